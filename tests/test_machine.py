"""Failures of the machine are told from faults of ours, in one line that names the file and the way out."""

from __future__ import annotations

import errno
import io
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import machine

USER, AGAIN = errors.EXIT_USER_ERROR, errors.EXIT_RESTART


def raised(make) -> BaseException:
    with pytest.raises(BaseException) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("ENOSPC", USER, "no space left"),
        ("EDQUOT", USER, "quota"),
        ("EFBIG", USER, "ulimit -f"),
        ("EACCES", USER, "permission denied"),
        ("EPERM", USER, "not permitted"),
        ("EROFS", USER, "read-only"),
        ("ENOTDIR", USER, "is a file, where a folder must be"),
        ("EISDIR", USER, "is a folder"),
        ("ENAMETOOLONG", USER, "too long"),
        ("ELOOP", USER, "links"),
        ("EMFILE", USER, "ulimit -n"),
        ("ENFILE", USER, "too many open files"),
        ("ENOMEM", USER, "out of memory"),
        ("EADDRINUSE", USER, "port is in use"),
        ("ENODEV", USER, "no such device"),
        ("ENXIO", USER, "no such device"),
        ("EIO", AGAIN, "input/output error"),
        ("ESTALE", AGAIN, "file server"),
        ("ENOTCONN", AGAIN, "connection"),
        ("ETIMEDOUT", AGAIN, "no answer"),
        ("EPIPE", AGAIN, "has gone"),
        ("EEXIST", USER, "there already"),
        ("ENOENT", USER, "no such file"),
    ],
)
def test_numbers_of_the_system(number: str, code: int, words: str) -> None:
    for error in (
        OSError(getattr(errno, number), "text", "/there"),
        OSError(getattr(errno, number), "text", b"/there"),
    ):
        found = machine.failure(error)
        assert found is not None and found.code == code and words in found.line and "\n" not in found.line
        assert found.line.startswith("/there: ") or number == "EPIPE"
    wrapped = RuntimeError("save failed")
    wrapped.__cause__ = ValueError("in a thread")
    wrapped.__cause__.__context__ = OSError(getattr(errno, number), "text", "/there")
    found = machine.failure(wrapped)
    assert found is None if number in ("EEXIST", "ENOENT") else found is not None and found.code == code


def test_a_path_is_shown_as_it_is() -> None:
    """Blanks are part of a name, and of a long one the end says which file it is."""
    for path, shown in (
        ("/a  b/ c", "/a  b/ c: no space"),
        ("/a\nb", r"/a\nb: no space"),
        ("/" + "x" * 500 + "/last", "/last: no space"),
    ):
        found = machine.failure(OSError(errno.ENOSPC, "text", path))
        assert found is not None and shown in found.line and found.line.startswith(path[:2]) and len(found.line) < 500


def test_faults_of_ours_are_none() -> None:
    for error in (
        ValueError("x"),
        KeyError("x"),
        OSError("x"),
        OSError(errno.EINVAL, "x"),
        FileNotFoundError(),
        RuntimeError("os error"),
        KeyboardInterrupt(),
    ):
        assert machine.failure(error) is None
    missing = FileNotFoundError(errno.ENOENT, "x", "/there")
    assert machine.failure(missing) and machine.failure(missing, places=False) is None


def test_words_of_libraries(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "x")

    def save() -> None:
        with machine.naming("/dst"):
            safetensors.numpy.save_file({"a": np.zeros(1)}, below)

    words = (
        'RESOURCE_EXHAUSTED: Error writing "a/0" at local file "/w/": Failed writing: "/w/d/02": No space left'
        " on device"
    )
    tensorstore = ValueError(f"{words} [os_error_code='28']")
    for error, start in (
        (raised(save), "/dst: a part of this path is a file"),
        (raised(lambda: sentencepiece.SentencePieceProcessor(model_file=below)), f"{below}: a part of this path"),
        (tensorstore, "/w/: no space left on the disk; what was finished before is kept"),
        (ExceptionGroup("of tasks", [KeyError("x"), OSError(errno.ENOSPC, "x", "/w")]), "/w: no space left"),
    ):
        found = machine.failure(error)
        assert found is not None and found.code == USER and found.line.startswith(start), found


def test_memory() -> None:
    found = machine.failure(raised(lambda: np.ones(1 << 50, np.uint8)))
    assert (
        found is not None and found.code == USER and found.line.startswith("out of memory: Unable to allocate 1.00 PiB")
    )
    found = machine.failure(
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 281474976710656 bytes.\nmore")
    )
    assert (
        found is not None
        and found.code == USER
        and "on the device: Out of memory allocating 281474976710656 bytes" in found.line
    )
    assert "more" not in found.line.partition("bytes.")[2][:10]


def test_another_process_that_has_gone() -> None:
    for text in ("UNAVAILABLE: failed to connect", "UNKNOWN: Gloo AllReduce failed: Connection closed by peer"):
        found = machine.failure(jax.errors.JaxRuntimeError(text))
        assert found is not None and found.code == AGAIN and "another process" in found.line
    assert machine.alone(ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"))
    for other in (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: x"), ValueError("Gloo is a name")):
        assert machine.failure(other) is None and not machine.alone(other)


def test_naming_keeps_what_is_known() -> None:
    def fail(name: str | None, beside: str | None) -> str:
        with pytest.raises(OSError) as caught, machine.naming("/dst", beside):
            raise OSError(errno.ENOSPC, "x", name)
        return caught.value.filename

    assert fail(None, None) == fail("/.part/x", "/.part") == "/dst"
    assert fail("/src", None) == fail("/src", "/.part") == "/src"


class Disk(io.FileIO):
    """Takes two bytes at a time, and after `room` bytes none."""

    room = 100

    def write(self, data) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "x")
        self.room -= 2
        return super().write(data[:2])


def test_append_is_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lines"
    with Disk(path, "ab") as file:
        files.append(file, b"first\n")
        file.room = 4
        with pytest.raises(OSError) as caught:
            files.append(file, b"second\n")
        assert caught.value.filename == os.fspath(path)
        assert path.read_bytes() == b"first\n"
        file.room = 100
        files.append(file, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        ({"sys/bus/pci/devices/0/vendor": "0x8086\n"}, {}, {"JAX_PLATFORMS": "cpu"}),
        ({}, {"JAX_PLATFORMS": "tpu"}, {"JAX_PLATFORMS": "tpu"}),
        ({}, {"JAX_PLATFORMS": ""}, {"JAX_PLATFORMS": ""}),
        ({}, {"JAX_FORCE_TPU_INIT": "1"}, {"JAX_FORCE_TPU_INIT": "1"}),
        ({"sys/bus/pci/devices/0/vendor": "0x1ae0\n"}, {}, {}),
        ({}, {"TPU_NAME": "local"}, {"TPU_NAME": "local"}),
        ({"dev/vfio/0": ""}, {}, {}),
        ({"dev/nvidia0": ""}, {}, {}),
        ({"dev/kfd": ""}, {}, {}),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_the_tpu_compiler_alone_is_no_tpu(
    files: dict[str, str],
    given: dict[str, str],
    expected: dict[str, str],
    installed: bool,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object() if installed else None)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = dict(given)
    machine.leave_tpu_out(environment, tmp_path)
    assert environment == (expected if installed else given)
