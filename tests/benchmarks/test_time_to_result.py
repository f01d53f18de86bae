import dataclasses
import importlib
import json
import pathlib
import threading

import pytest

from benchmarks import phases
from benchmarks import time_to_result
from vlguard_jax import errors


@pytest.mark.parametrize(("module", "path"), [(m, p) for timed in phases.TIMED.values() for m, p, _ in timed])
def test_what_is_timed_exists(module: str, path: str) -> None:
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    assert callable(found)


def test_every_phase_has_a_column() -> None:
    assert {phase for timed in phases.TIMED.values() for *_, phase in timed} <= set(time_to_result.PHASES)


@dataclasses.dataclass
class Time:
    """Stands in for the module `time`."""

    now: float = 100.0

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass them."""
        self.now += seconds


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    """What the clock goes by; nothing passes by itself."""
    made = Time()
    monkeypatch.setattr(phases, "time", made)
    return made


def test_a_phase_holds_its_own_time_alone(passing: Time) -> None:
    clock = phases.Clock(began=98.0)
    with clock.phase("steps"):
        passing.sleep(3)
        clock.timed(passing.sleep, "save")(5)
        passing.sleep(0.5)
    passing.sleep(7)
    assert clock.settle() == passing.now and clock.seconds == {"start": 9.0, "steps": 3.5, "save": 5.0}


def test_other_threads_are_left_alone(passing: Time) -> None:
    clock = phases.Clock(passing.now)
    called = threading.Thread(target=clock.timed(passing.sleep, "save"), args=(1.0,))
    called.start()
    called.join()
    assert "save" not in clock.seconds


def test_compiling_is_taken_from_the_phase_it_happens_in(passing: Time) -> None:
    clock = phases.Clock(began=90.0)
    clock.compiled(phases.COMPILING[1], 4.0)
    clock.compiled("/jax/something/else", 3.0)
    assert clock.seconds == {"start": 6.0, "compile": 4.0} and clock.programs == 1


def test_a_stage_and_its_table(tmp_path: pathlib.Path) -> None:
    task = time_to_result.stand_in(tmp_path / "stand_in", (), ())
    arguments = [f"--src={task.model}", f"--dst={tmp_path / 'model'}", "--to=llava"]
    found = time_to_result.stage("convert", arguments, tmp_path, tmp_path / "programs")
    assert (tmp_path / "model/config.json").exists()
    assert {"start", "load", "save", "exit"} <= set(found["phases"])
    # nothing is lost between two phases
    assert sum(found["phases"].values()) == pytest.approx(found["seconds"], abs=1e-3)
    shown = time_to_result.table("cold", {"seconds": found["seconds"], "stages": {"convert": found}})
    assert (
        f"{found['seconds']:.2f}" in shown
        and json.loads((tmp_path / "convert.json").read_text())["programs"] == found["programs"]
    )


def test_a_stage_that_fails_says_its_last_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match=r"convert ended with exit code 2: .*missing"):
        time_to_result.stage(
            "convert", ["--src=missing", f"--dst={tmp_path / 'model'}", "--to=llava"], tmp_path, tmp_path / "programs"
        )
