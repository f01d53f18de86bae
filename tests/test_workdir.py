"""A working directory and the configuration it belongs to."""

import dataclasses
import errno
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests import source
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.safety import probes
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import remote
from vlguard_jax.training import metrics
from vlguard_jax.training import spikes
from vlguard_jax.training import tracking


def _settings(**changes: Any) -> config.TrainConfig:
    sources = {"chats": config.SourceSettings(path="chats.json", images="pictures", **changes.pop("source", {}))}
    return config.TrainConfig(data=config.DataSettings(sources=sources, **changes.pop("data", {})), **changes)


def test_a_setting_that_is_new_since_counts_as_its_default(tmp_path: pathlib.Path) -> None:
    """Working directories of an older version can be resumed."""
    workdir.claim(tmp_path, _settings())
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["data"]["sources"]["chats"]["weight"], stored["data"]["shapes"], stored["lora"], stored["seed"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    workdir.check(tmp_path, _settings())
    for changed, message in (
        (_settings(data={"shapes": 2}), r"config\.data\.shapes is 2 here and 0 there"),
        (_settings(source={"weight": 2.0}), r"config\.data\.sources\.chats\.weight is 2\.0 here and 1\.0 there"),
        (_settings(lora=config.LoraSettings(rank=4)), r"config\.lora\.rank is 4 here and 0 there"),
    ):
        with pytest.raises(errors.UserError, match=message):
            workdir.check(tmp_path, changed)


def test_a_setting_that_is_gone_is_a_difference(tmp_path: pathlib.Path) -> None:
    workdir.claim(tmp_path, _settings())
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"data": stored["data"] | {"colour": 3}}))
    with pytest.raises(errors.UserError, match=r"config\.data\.colour is None here and 3 there"):
        workdir.check(tmp_path, _settings())


def test_evaluations_resume_too(tmp_path: pathlib.Path) -> None:
    settings = config.EvalConfig(model_name="tiny")
    workdir.claim(tmp_path, settings)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["benchmark"]["suffix"], stored["judges"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    workdir.check(tmp_path, settings)
    with pytest.raises(
        errors.UserError, match=r"config\.judges is \['other'\] here and \['keyword_vlguard_v1'\] there"
    ):
        workdir.check(tmp_path, dataclasses.replace(settings, judges=("other",)))


def test_differences_are_short(tmp_path: pathlib.Path) -> None:
    workdir.claim(tmp_path, _settings(source={"leave_out": tuple(f"category {i}" for i in range(500))}))
    with pytest.raises(errors.UserError) as error:
        workdir.check(tmp_path, _settings())
    assert "leave_out is [] here and ['category 0', 'category 1', 'category 2', 'category 3', ...] there" in str(
        error.value
    )


@pytest.mark.parametrize("content", [b"", b" \n", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"seed": 1' + b"[" * 5000])
def test_a_damaged_config_is_told(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    for use in (workdir.check, workdir.claim):
        with pytest.raises(
            errors.UserError, match=r"^--workdir=.*/config\.json: .*; put it back, or delete it: "
        ) as error:
            use(tmp_path, _settings())
        assert "\n" not in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_try_claims_nothing(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "new" / "run"
    workdir.prepare(folder)
    assert list(folder.iterdir()) == []
    workdir.check(folder, _settings())
    for impossible in (tmp_path / "file" / "run", tmp_path / "nul\0", tmp_path / ("x" * 300)):
        (tmp_path / "file").write_text("x")
        with pytest.raises(errors.UserError, match="cannot be written"):
            workdir.prepare(impossible)


def test_a_folder_that_cannot_be_held_leaves_none_above_it(tmp_path: pathlib.Path) -> None:
    for name in ("x" * 300, "nul\0"):
        with pytest.raises(errors.UserError, match="cannot be written"), workdir.hold(tmp_path / "new" / name):
            pass
        assert not list(tmp_path.iterdir())


def test_results_of_nobody_are_refused(tmp_path: pathlib.Path) -> None:
    workdir.check_unclaimed(tmp_path, "world")
    (tmp_path / "world").mkdir()
    with pytest.raises(errors.UserError, match=r"holds world and no config\.json"):
        workdir.check_unclaimed(tmp_path, "world")
    workdir.claim(tmp_path, _settings())
    workdir.check_unclaimed(tmp_path, "world")


WORK = """
import pathlib, sys
from vlguard_jax import errors, workdir
try:
    with workdir.hold(pathlib.Path(sys.argv[1])):
        print("works", flush=True)
        sys.stdin.readline()
except errors.UserError as e:
    print(e, flush=True)
    sys.exit(2)
"""


def _worker(folder: pathlib.Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder)], cwd=source.ROOT, **pipes)


def test_of_processes_that_start_at_once_one_works(tmp_path: pathlib.Path) -> None:
    """Also where one was killed before; and nothing is left of those that wrote nothing."""
    folder = tmp_path / "new" / "run"
    killed = _worker(folder)
    assert killed.stdout is not None and killed.stdout.readline() == "works\n"
    killed.kill()
    killed.communicate()
    assert [path.name for path in folder.iterdir()] == [workdir.LOCK_FILE]
    racing = [_worker(folder) for _ in range(4)]
    said = [worker.stdout.readline() for worker in racing if worker.stdout]
    (winner,) = (worker for worker, line in zip(racing, said, strict=True) if line == "works\n")
    others = [line for line in said if line != "works\n"]
    expected = (
        f"another process (pid {winner.pid} on {socket.gethostname()}) is working in --workdir={folder}; wait for it"
    )
    assert len(others) == 3 and all(line.startswith((expected, "another process is working")) for line in others)
    for worker in racing:
        worker.communicate("done\n")
    assert sorted(worker.returncode for worker in racing) == [0, 2, 2, 2] and winner.returncode == 0
    assert not list(folder.iterdir())
    with workdir.hold(folder):  # it was let go
        pass
    with workdir.hold(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["a\0b", "d/" * 1100, "n" * 256])
def test_a_name_that_no_folder_can_have(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(errors.UserError, match=r"--workdir=.* cannot be written: "), workdir.hold(tmp_path / name):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_is_no_way_out_of_the_folder(tmp_path: pathlib.Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("kept")
    lock = folder / workdir.LOCK_FILE
    for make in (lambda: lock.symlink_to(outside), lock.mkdir):
        make()
        with (
            pytest.raises(errors.UserError, match=r"run: \.vlguard_jax\.lock cannot be written: "),
            workdir.hold(folder),
        ):
            pass
        lock.unlink() if lock.is_symlink() else lock.rmdir()
    assert outside.read_text() == "kept"
    os.mkfifo(lock)
    with (
        pytest.raises(errors.UserError, match=r"run: \.vlguard_jax\.lock is a pipe or a device, not a file; remove it"),
        workdir.hold(folder),
    ):
        pass
    assert lock.is_fifo()


def test_what_a_run_goes_on_writing_is_known() -> None:
    assert set(workdir.WRITTEN_ON) == {
        metrics.METRICS_FILE,
        "tensorboard",
        "logs",
        probes.FILE,
        probes.FOLDER,
        spikes.FILE,
        tracking.WANDB_ID,
        results.GENERATIONS,
        results.VERDICTS,
        remote.FOLDER,
    }


@pytest.mark.parametrize("name", [*workdir.WRITTEN_ON, "logs/process-0.log", "tensorboard/events"])
def test_what_a_run_goes_on_writing_leads_nowhere(tmp_path: pathlib.Path, name: str) -> None:
    written, outside = tmp_path / "run" / name, tmp_path / "outside"
    written.parent.mkdir(parents=True)
    for make in (lambda: written.symlink_to(outside), lambda: os.mkfifo(written)):
        make()
        with (
            pytest.raises(errors.UserError, match=f"run/{name} is a link, a pipe or a device"),
            workdir.hold(tmp_path / "run"),
        ):
            pass
        written.unlink()
    with workdir.hold(tmp_path / "run"):
        pass
    assert not outside.exists()


def test_a_file_system_without_locks(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(workdir.fcntl, "flock", none)
    with workdir.hold(tmp_path):
        pass
    assert "no locks on this file system (Function not implemented); let no other process work there" in caplog.text


@pytest.mark.parametrize("name", ["gs://bucket/runs/a", "s3://bucket/a"])
def test_the_address_of_a_bucket_is_no_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(errors.UserError, match=f"--workdir={name} is the address of a bucket.*mount the bucket"),
        workdir.hold(pathlib.Path(name)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_what_was_set_is_told_before_what_followed_from_it(tmp_path: pathlib.Path) -> None:
    before = config.EvalConfig(model=config.ModelSettings(path="fox"))
    workdir.claim(tmp_path, before)
    marked = dataclasses.replace(before.benchmark, stand_in=True)
    other = dataclasses.replace(before, model=config.ModelSettings(path="hound"), benchmark=marked)
    message = r"config\.model\.path is 'hound' here and 'fox' there \(and 1 more\); choose another --workdir"
    with pytest.raises(errors.UserError, match=message):
        workdir.check(tmp_path, other)
    with pytest.raises(errors.UserError, match=r"config\.benchmark\.stand_in is True here and False there; choose"):
        workdir.check(tmp_path, dataclasses.replace(before, benchmark=marked))
