"""SIGTERM ends a command with 75, wherever its main thread is."""

from __future__ import annotations

import fcntl
import os
import pathlib
import pty
import subprocess
import sys
import termios

import pytest

from tests import source
from vlguard_jax import stopping

# Each sends itself SIGTERM at its worst moment. PATIENCE is short: where the main thread cannot take the signal it is
# waited for.
PROGRAM = """
import gc, os, signal, sys, threading
from vlguard_jax import cli, errors, stopping

stopping.PATIENCE = 0.2

def term(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

def wait():
    for _ in range(400):
        threading.Event().wait(0.05)

def main(_):
{body}

cli.run(main)
"""
PLACES = {
    "at rest": "term(); wait()",
    "in a finally that fails": "try: term(); wait()\nfinally: raise ValueError('no longer of interest')",
    "in a destructor": "class Dying:\n  def __del__(self): term(); wait()\nDying(); wait()",
    "in the garbage collector": (
        "gc.callbacks.append(lambda *_: None if stopping.requested() else term())\ngc.collect(); wait()"
    ),
    "swallowed by a library": "try: term(); wait()\nexcept BaseException: wait()",
    # which lets other threads run, but no handler of Python
    "in a library": "import hashlib\nthreading.Timer(0.1, term).start()\nhashlib.pbkdf2_hmac('sha256', b'', b'',"
    " 10**8)\nwait()",
    "twice": "try: term(); wait()\nfinally: term(); term(); print('cleaned up', flush=True)",
    "in an event loop": "import asyncio\nasync def late():\n"
    "  asyncio.get_running_loop().call_soon(term); await asyncio.sleep(20)\nasyncio.run(late())",
}


# A library whose native part would crash if an exception came out of what it imports.
FRAGILE = """
import os, signal, threading
try:
    os.kill(os.getpid(), signal.SIGNAL)
    threading.Event().wait(0.3)
except BaseException:
    os._exit(139)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("{body}", "\n".join(f"  {line}" for line in body.splitlines()))
    return subprocess.run([sys.executable, "-c", program], cwd=source.ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_means_75(place: str) -> None:
    done = run(PLACES[place])
    assert (done.returncode, done.stderr) == (75, f"{stopping.MESSAGE}\n")
    assert done.stdout == ("cleaned up\n" if place == "twice" else "")


SAVES = """
with stopping.Noted() as noted:
  noted.hold()
  print('begun', flush=True)
  while not noted.seen: threading.Event().wait(0.05)
  for _ in range(9): print('saving', flush=True)
open(os.environ['SAVED'], 'w').write('saved')
return 75
"""
HANGS_UP = {
    "at rest": "print('begun', flush=True); wait()",
    "in a library": "import hashlib\nprint('begun', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)",
    "with something to save": SAVES,
}


def hang_up(program: str, saved: pathlib.Path) -> subprocess.Popen[bytes]:
    """Run a program in a terminal of its own, which is closed once it has begun."""
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=source.ROOT,
        env=os.environ | {"SAVED": str(saved)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(master, 1000)
    os.close(master)
    return running


@pytest.mark.parametrize("place", HANGS_UP)
def test_a_closed_terminal_is_a_sigterm(place: str, tmp_path: pathlib.Path) -> None:
    """What is said from then on goes nowhere: writing to the terminal would fail."""
    program = PROGRAM.replace("{body}", "\n".join(f"  {line}" for line in HANGS_UP[place].splitlines()))
    assert hang_up(program, tmp_path / "x").wait(source.PATIENCE) == 75
    assert (tmp_path / "x").exists() == (place == "with something to save")


def test_a_closed_terminal_that_is_ignored(tmp_path: pathlib.Path) -> None:
    """As under nohup."""
    program = PROGRAM.replace("{body}", "  print('begun', flush=True)\n  threading.Event().wait(0.1); wait()")
    running = hang_up(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{program}", tmp_path / "x")
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(1)
    running.kill()
    running.wait()


@pytest.mark.parametrize(
    ("name", "ending"), [("SIGTERM", (75, stopping.MESSAGE)), ("SIGINT", (130, stopping.INTERRUPTED))]
)
def test_an_import_is_not_broken_off(name: str, ending: tuple[int, str], tmp_path) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE.replace("SIGNAL", name))
    done = run(f"sys.path.insert(0, {str(tmp_path)!r})\nimport fragile; wait()")
    assert (done.returncode, done.stderr) == (ending[0], f"{ending[1]}\n")


@pytest.mark.parametrize(
    "body",
    [
        "term(signal.SIGINT); wait()",
        "class Dying:\n  def __del__(self): term(signal.SIGINT); wait()\nDying(); wait()",
        "sent = []\ngc.callbacks.append(lambda *_: None if sent else (sent.append(1),"
        " term(signal.SIGINT)))\ngc.collect(); wait()",
    ],
)
def test_ctrl_c_means_130(body: str) -> None:
    done = run(body)
    assert (done.returncode, done.stderr) == (130, f"{stopping.INTERRUPTED}\n")


def test_ctrl_c_between_the_imports_of_a_command() -> None:
    program = (
        "import os, signal\nfrom vlguard_jax import stopping\nstopping.install()\nos.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=source.ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, f"{stopping.INTERRUPTED}\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_when_the_work_is_done_its_exit_code_stands(name: str) -> None:
    """While JAX and Python take themselves down."""
    body = (
        f"import atexit\nclass Late:\n  def __del__(self): term(signal.{name})\nsys.modules['late'] ="
        " Late()\nprint('done', flush=True)"
    )
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    done = run(
        f"import atexit\natexit._run_exitfuncs()\nterm(signal.{name}); threading.Event().wait(0.1)\nprint('done',"
        " flush=True)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_what_is_half_written_is_taken_away(tmp_path) -> None:
    """The body of a `finally` runs, and `write_bytes` leaves nothing behind."""
    body = "import pathlib\nfrom vlguard_jax import files\n"
    body += f"os.fsync = lambda _: (term(), wait())\nfiles.write_bytes(pathlib.Path({str(tmp_path / 'x')!r}), b'x')"
    assert run(body).returncode == 75
    assert list(tmp_path.iterdir()) == []


def test_noted_from_hold_on() -> None:
    body = (
        "with stopping.Noted() as noted:\n  noted.hold(); term(); noted.hold()\n  threading.Event().wait(0.5)\n"
        "  print(noted.seen)\nprint('saved', flush=True)\nreturn errors.EXIT_RESTART"
    )
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (75, "True\nsaved\n", "")
    assert run("with stopping.Noted() as noted:\n  term(); wait()").returncode == 75
    assert run("with stopping.Noted() as noted:\n  noted.hold()\nterm(); wait()").returncode == 75


def test_a_forked_child_is_not_its_parent() -> None:
    """What is sent to a child neither ends the parent nor comes to its watcher."""
    body = "child = os.fork()\nif child == 0: wait(); os._exit(1)\n"
    body += "os.kill(child, 15)\nprint(os.waitpid(child, 0)[1])\nthreading.Event().wait(0.5)"
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "15\n", "")


@pytest.mark.parametrize("name", source.entry_points())
def test_it_is_taken_before_a_command_is_imported(name: str, tmp_path) -> None:
    """The first import of each command behind the package itself sends the signal: nothing of ours is loaded yet."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n\n\nclass Finder:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {name!r} or name == {name + '.__main__'!r}:\n            os.kill(os.getpid(),"
        " signal.SIGTERM)\n\n\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{source.ROOT}"}
    done = subprocess.run([sys.executable, "-m", name], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (75, f"{stopping.MESSAGE}\n")


def test_outside_the_main_thread_nothing_is_installed() -> None:
    body = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\nt ="
        " threading.Thread(target=stopping.install); t.start(); t.join()\n"
    )
    body += "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    assert run(body).stdout == "True\n"
