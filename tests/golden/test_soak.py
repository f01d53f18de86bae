"""A real evaluation, killed from outside by the clock and resumed, ends with an uninterrupted one's results."""

import json
import pathlib
import threading

import pytest

from tests.soak import __main__ as soak
from tests.soak import watched

KILLS = 2  # `make soak`: 20, of all questions with long answers
SHORT = ["--config.benchmark.limit=24", "--config.decode.max_new_tokens=24"]


@pytest.mark.parity
def test_killed_by_the_clock(golden: pathlib.Path, metadata: pathlib.Path, tmp_path: pathlib.Path) -> None:
    line, good = soak.campaign(tmp_path, [*soak.material(tmp_path, golden, metadata), *SHORT], KILLS, seed=1)
    assert good and f"soak: {KILLS} kills" in line, line


def test_what_is_lost_changed_or_answered_twice_is_seen(tmp_path: pathlib.Path) -> None:
    one, two = ({"key": key, "time": key, "run_id": "r", "response": "yes"} for key in "ab")
    expected = {name: [{"key": "a", "response": "yes"}, {"key": "b", "response": "yes"}] for name in soak.FILES}

    def left(*lines: dict) -> list[str]:
        for name in soak.FILES:
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return soak.differences(soak.results(tmp_path), expected)

    assert left(two | {"time": "later", "run_id": "s"}, one) == []
    assert len(left(one)) == len(left(one, two, two)) == len(left(one, two | {"response": "no"})) == 2
    assert left(one, two) == []
    (tmp_path / "left.partial").touch()
    assert left(one, two) == ["left.partial: in one folder only"]


def test_a_phase_outlives_its_process(tmp_path: pathlib.Path) -> None:
    phase = watched.Phase(tmp_path / "phase")
    assert watched.read(tmp_path / "phase") == "start"
    with phase.of("decode"):
        phase.wrapped("append", lambda: None)()
        assert watched.read(tmp_path / "phase") == "decode"
        asked: list[str] = []
        seen = phase.wrapped("append", lambda: asked.append(watched.read(tmp_path / "phase")))
        writer = threading.Thread(target=seen)
        writer.start()
        writer.join()
        assert asked == ["append"] and watched.read(tmp_path / "phase") == "decode"
    assert watched.read(tmp_path / "phase") == "start"
