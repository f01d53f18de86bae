"""Compiled programs are kept for their user alone, give the same bits, and never keep a command from running."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax.parallel import programs

# Prints the folder, how many programs were taken from it, and the bits of a few training steps.
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from vlguard_jax import cli
from vlguard_jax.parallel import programs

def main(given):
    hits = []
    def note(name, **more):
        if name.endswith("/cache_hits"):
            hits.append(name)
    jax.monitoring.register_event_listener(note)
    folder = programs.keep()
    def loss(w, x):
        for i in range(6):
            x = jnp.tanh(x @ w) + jax.nn.softmax(x * i)
        return (x ** 2).mean()
    step = jax.jit(lambda w, x: w - 0.1 * jax.grad(loss)(w, x), donate_argnums=0)
    rng = np.random.default_rng(0)
    w, x = (jnp.asarray(rng.standard_normal((64, 64)), jnp.float32) for _ in range(2))
    for _ in range(5):
        w = step(w, x)
    print(folder, len(hits), np.asarray(w).tobytes().hex()[:4000], sep="\\n")

cli.run(main)
"""


def ran(home: pathlib.Path, **more: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_") and name != "XLA_FLAGS"}
    own |= {
        "XDG_CACHE_HOME": str(home),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    } | more
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=own, capture_output=True, text=True, timeout=source.PATIENCE
    )


def told(done: subprocess.CompletedProcess[str]) -> tuple[str, int, str]:
    assert done.returncode == 0, done.stderr
    folder, hits, bits = done.stdout.splitlines()
    return folder, int(hits), bits


def kept(folder: str) -> list[pathlib.Path]:
    return sorted(pathlib.Path(folder).glob("*-cache"))


def test_the_second_start_takes_the_programs_and_gets_the_same_bits(tmp_path: pathlib.Path) -> None:
    folder, hits, bits = told(ran(tmp_path))
    assert hits == 0 and kept(folder)
    for part in [pathlib.Path(folder), *list(pathlib.Path(folder).parents)[:2]]:
        assert stat.S_IMODE(part.stat().st_mode) == 0o700
    done = ran(tmp_path)
    again = told(done)
    assert again[0] == folder and again[1] >= 1 and again[2] == bits
    assert done.stderr == ""
    assert told(ran(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")) == ("None", 0, bits)


def test_what_a_killed_process_left_is_made_again(tmp_path: pathlib.Path) -> None:
    """JAX writes the program and then the time of its last use."""
    folder, _, bits = told(ran(tmp_path))
    torn = kept(folder)[0]
    torn.write_bytes(torn.read_bytes()[:100])
    torn.with_name(torn.name.removesuffix("-cache") + "-atime").unlink()
    (pathlib.Path(folder) / "gone-atime").write_bytes(b"12345678")
    done = ran(tmp_path)
    assert told(done)[2] == bits and done.stderr == ""
    assert torn.stat().st_size > 100 and not (pathlib.Path(folder) / "gone-atime").exists()


def test_the_size_is_bounded(tmp_path: pathlib.Path) -> None:
    folder, _, bits = told(ran(tmp_path))
    size = max(path.stat().st_size for path in kept(folder))
    other = told(ran(tmp_path / "small", JAX_COMPILATION_CACHE_MAX_SIZE=str(size)))
    assert other[2] == bits and sum(path.stat().st_size for path in kept(other[0])) <= size


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"JAX_COMPILATION_CACHE_DIR": "{home}/mine"}, "mine"), ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "")],
)
def test_jaxs_own_variables_come_first(variables: Mapping[str, str], expected: str, tmp_path: pathlib.Path) -> None:
    given = {name: value.format(home=tmp_path) for name, value in variables.items()}
    assert told(ran(tmp_path, **given))[0] == "None"
    assert [path.name for path in tmp_path.iterdir()] == ([expected] if expected else [])


def _links(folder: pathlib.Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def _open_to_all(folder: pathlib.Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def _strangers(folder: pathlib.Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_links, "is no folder of its own"),
        (_open_to_all, "can be written to by others"),
        pytest.param(
            _strangers, "is another user's", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs chown")
        ),
    ],
)
@pytest.mark.parametrize("deep", [0, 1, 2])
def test_a_folder_that_others_may_have_filled_is_refused(spoil, words: str, deep: int, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "vlguard_jax"
    for part in ("programs", programs.processor())[:deep]:
        place.mkdir(mode=0o700)
        place = place / part
    spoil(place)
    done = ran(tmp_path)
    assert done.returncode == 2 and words in done.stderr and str(place) in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "JAX_COMPILATION_CACHE_DIR" in done.stderr


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    done = ran(tmp_path / "file")
    assert told(done)[0] == "None" and "compiled programs are not kept" in done.stderr


def test_several_processes_keep_none_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", None)
    assert programs.keep() is None


def test_each_kind_of_processor_has_its_own(tmp_path: pathlib.Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("processor : 0\nmodel name : A\nflags : fma avx2\ncpu MHz : 1\n\nprocessor : 1\nmodel name : A\n")
    other.write_text("processor : 0\nmodel name : A\nflags : fma avx2 avx512f\ncpu MHz : 2\n")
    assert programs.processor(one) != programs.processor(other) and len(programs.processor(one)) == 16
    other.write_text("processor : 0\nmodel name : A\nflags : fma avx2\ncpu MHz : 3\n")
    assert programs.processor(one) == programs.processor(other) != programs.processor(tmp_path / "none")
