"""The programs that the commands of a page find first: this checkout's own, at tiny size, and stand-ins of all that
would reach beyond the page's folder. Each refuses what the real one would, as far as this checkout can know it.

Started as `python -m tests.docs.tools NAME WORDS...`, by the small programs that `write` puts into a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib

from tests import source

FLAGS = "DOCS_FLAGS"  # the file of `write`
GCLOUD = source.ROOT / "tests" / "launch" / "gcloud_flags.json"
OURS = ("vlguard", "python", "python3")
REACHING = (
    "make",
    "pip",
    "git",
    "gcloud",
    "kubectl",
    "sbatch",
    "squeue",
    "srun",
    "ssh",
    "sky",
    "xpk",
    "nvidia-smi",
    "docker",
    "hf",
)
QUESTION = "what is the shape ?\n"


def write(folder: pathlib.Path, flags: Sequence[Mapping[str, tuple[str, ...]]]) -> dict[str, str]:
    """Write the programs. flags: each command's, those that are added where the page does not give them itself, and
    those that stand in place of its own.

    Returns the environment that finds them.
    """
    folder.mkdir()
    for name in (*OURS, *REACHING):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.docs.tools {name} "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "flags.json").write_text(json.dumps(flags))
    path = f"{folder}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, FLAGS: str(folder / "flags.json")}


def main(name: str, words: list[str]) -> int:
    """Do what the program of this name is for; its exit code."""
    if name == "vlguard":
        return _ours(words)
    if name.startswith("python"):
        return _python(words)
    refusal = {"make": _make, "pip": _pip, "gcloud": _gcloud, "hf": _hf}.get(name, _files)(words)
    if refusal:
        print(f"{name} {shlex.join(words)}: {refusal}", file=sys.stderr)
        return 1
    return _there(name, words)


def _ours(words: list[str]) -> int:
    """This checkout's command, with the flags of a tiny run behind the page's own."""
    command, *given = words
    both = (command, " ".join([command, *given[:1]]))  # `prepare vlguard` has flags of its own
    told = json.loads(pathlib.Path(os.environ[FLAGS]).read_text())
    added, always = ([flag for one in both for flag in flags.get(one, [])] for flags in told)
    names = {word.partition("=")[0] for word in given}
    more = [flag for flag in added if flag.partition("=")[0] not in names]
    instead = {name: flag for flag in always if (name := flag.partition("=")[0]) in names}
    kept = [instead.get(word.partition("=")[0], word) for word in given]
    whole = [sys.executable, "-m", "vlguard_jax", command, *kept, *more]
    if command == "ask" and "--page" in given:
        return _served([*whole, "--port=0"])
    asks = command == "ask" and os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev and "--prompt" not in names
    return subprocess.run(whole, input=QUESTION if asks else None, text=True).returncode


def _served(command: list[str]) -> int:
    """Wait for the address, and stop the server as one does by Ctrl-C."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        shown = next((line for line in running.stdout if "http://" in line), "")
        running.send_signal(signal.SIGINT)
        code = running.wait(source.PATIENCE)
    print(shown, end="")
    return 0 if shown and code in (0, 130) else code or 1


def _python(words: list[str]) -> int:
    if words[:1] == ["-m"] and words[1].startswith("vlguard_jax"):
        command = words[1].partition(".")[2]
        return _ours([command, *words[2:]] if command else words[2:])
    if words[:2] == ["-m", "pip"]:
        return main("pip", words[2:])
    if words[:2] == ["-m", "venv"]:
        return 0
    return subprocess.run([sys.executable, *words]).returncode


def _make(words: list[str]) -> str:
    """Whether the Makefile has these targets."""
    real = shutil.which("make", path=os.environ["PATH"].partition(":")[2]) or "make"
    made = subprocess.run([real, "-n", *words], cwd=source.ROOT, capture_output=True, text=True)
    return made.stderr.strip() if made.returncode else ""


def _pip(words: list[str]) -> str:
    """Whether the extras, and what else is installed, are in pyproject.toml."""
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {re.split(r"[\[<>=!~; ]", one)[0] for one in itertools.chain(project["dependencies"], *extras.values())}
    if words[:1] != ["install"]:
        return "only install is known"
    for word in [one for one in words[1:] if not one.startswith("-")]:
        found = re.fullmatch(r"(\.|vlguard_jax|dist/[\w.-]+\.whl)(?:\[([\w,]+)\])?", word)
        asked = found[2].split(",") if found and found[2] else []
        if not found and not word.endswith(".txt") and re.split(r"[\[<>=!~; ]", word)[0] not in known:
            return f"{word} is none of the project's requirements"
        if missing := [one for one in asked if one not in extras]:
            return f"there is no extra {', '.join(missing)}"
    return ""


def _gcloud(words: list[str]) -> str:
    """Whether gcloud has such a command with these flags."""
    flags = json.loads(GCLOUD.read_text())
    plain: list[str] = []
    for word in words:
        if word.startswith("-"):
            break
        plain.append(word)
    command = next((c for n in range(len(plain), 0, -1) if (c := " ".join(plain[:n])) in flags["commands"]), "")
    if not command:
        return f"the command is not in {GCLOUD.name}"
    known = {*flags["commands"][command], *flags["everywhere"], *flags["newer"].get(command, ())}
    wrong = [word for word in words if word.startswith("--") and word != "--" and word.partition("=")[0] not in known]
    return f"gcloud has no {', '.join(wrong)} here" if wrong else ""


def _hf(words: list[str]) -> str:
    """Whether what would be downloaded is there: the folder, and the files that are named."""
    folder = next((pathlib.Path(after) for word, after in itertools.pairwise(words) if word == "--local-dir"), None)
    if words[:1] != ["download"] or folder is None:
        return "only download with --local-dir is known"
    named = itertools.takewhile(lambda word: not word.startswith("-"), words[2:])
    missing = [path for path in (folder, *(folder / name for name in named)) if not path.exists()]
    return f"there is no {missing[0]}" if missing else ""


def _files(words: list[str]) -> str:
    """Whether the files that a program is given are there."""
    named = [word for word in words if re.fullmatch(r"[^-:=\s][^:=\s]*\.(yaml|yml|sh|sbatch|toml)", word)]
    missing = [name for name in named if not pathlib.Path(name).exists()]
    return f"there is no {', '.join(missing)}" if missing else ""


def _there(name: str, words: list[str]) -> int:
    """What is to run on the other machine runs here: gcloud ... ssh ... --command=X, ssh HOST X, srun ... X."""
    told = [word.removeprefix("--command=") for word in words if name == "gcloud" and word.startswith("--command=")]
    if name == "ssh":
        plain = [word for word in words if not word.startswith("-")]
        told = [" ".join(plain[1:])] if len(plain) > 1 else []
    if name == "srun":
        at = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
        told = [shlex.join(words[at:])] if words[at:] else []
    return subprocess.run(["bash", "-e", "-u", "-o", "pipefail", "-c", told[0]]).returncode if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
