"""Which losses are spikes, and what is written about them."""

import json
import math
import pathlib

import numpy as np

from vlguard_jax.training import spikes


def _held(update: int) -> list[tuple[str, str]]:
    return [("fox", f"chat-{update}"), ("hen", "d")]


def _watch(folder: pathlib.Path, first: int = 0, recent: tuple[float, ...] = ()) -> tuple[spikes.Spikes, list[str]]:
    said: list[str] = []
    return spikes.Spikes(folder, _held, said.append, first, recent, active=True), said


def _values(loss: float, skipped: float = 0.0) -> dict[str, float]:
    return {"loss": loss, "grad_norm": 2.0 if not skipped else math.nan, "skipped": skipped, "loss/fox": loss}


def _lines(folder: pathlib.Path) -> list[dict]:
    path = folder / spikes.FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_limit_is_that_of_the_rule() -> None:
    assert spikes.limit([1.0] * 15) == math.inf
    assert spikes.limit([2.0] * 16) == 2.5  # the median and a quarter
    assert spikes.limit([0.001] * 16) == 0.101  # learned by heart
    rng = np.random.default_rng(0)
    losses = rng.normal(2.0, 0.1, 64)
    median = np.median(losses)
    deviation = 1.4826 * np.median(np.abs(losses - median))
    assert math.isclose(spikes.limit(losses), median + 8 * deviation)
    assert spikes.limit([*losses[:48], *[1e9] * 16]) < 4, "spikes among them do not raise it beyond reach"
    assert spikes.limit([-2.0] * 20) == -1.5  # a user's loss


def test_noise_is_no_spike() -> None:
    rng = np.random.default_rng(1)
    falling = 4 * np.exp(-np.arange(3000) / 300) + 0.8
    losses = falling * np.exp(rng.normal(0, 0.15, 3000))
    told = sum(losses[i] > spikes.limit(losses[max(0, i - 64) : i]) for i in range(3000))
    assert told == 0
    losses[1500] *= 5
    assert losses[1500] > spikes.limit(losses[1436:1500])


def test_a_spike_is_written_with_its_conversations(tmp_path: pathlib.Path) -> None:
    watch, said = _watch(tmp_path)
    for update in range(1, 21):
        watch.note(update, _values(1.0 + update / 100))
    watch.note(21, _values(7.0))
    watch.note(22, _values(1.1))
    watch.note(23, _values(math.nan, skipped=1.0))
    spike, broken = _lines(tmp_path)
    assert spike == {
        "schema": 1,
        "step": 21,
        "loss": 7.0,
        "median": 1.105,
        "grad_norm": 2.0,
        "skipped": False,
        "loss_by_source": {"fox": 7.0},
        "conversations": [{"source": "fox", "id": "chat-21"}, {"source": "hen", "id": "d"}],
    }
    assert broken["step"] == 23 and broken["skipped"] and broken["loss"] is None and broken["grad_norm"] is None
    assert broken["conversations"] == [{"source": "fox", "id": "chat-23"}, {"source": "hen", "id": "d"}]
    assert said == ["update 21: loss 7 is far above its recent median 1.105; its conversations are in spikes.jsonl"]


def test_a_resumed_run_writes_the_same_lines(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(2)
    losses = rng.normal(1.0, 0.05, 120)
    losses[[30, 31, 75, 100]] = 6.0, math.nan, 9.0, 5.0
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()

    def run(watch: spikes.Spikes, first: int, last: int) -> None:
        for i in range(first, last):
            watch.note(i + 1, _values(losses[i], float(math.isnan(losses[i]))))

    run(_watch(tmp_path / "whole")[0], 0, 120)
    watch = _watch(tmp_path / "cut")[0]
    run(watch, 0, 70)
    saved = json.loads(json.dumps(watch.recent))
    run(watch, 70, 90)  # lost
    run(_watch(tmp_path / "cut", 70, tuple(saved))[0], 70, 120)
    whole = (tmp_path / "whole" / spikes.FILE).read_text()
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [31, 32, 76, 101]
    assert (tmp_path / "cut" / spikes.FILE).read_text() == whole


def test_conversations_in_a_message() -> None:
    many = [("fox", str(i)) for i in range(30)] + [("hen", "x" * 100)]
    assert spikes.told(many) == f"{', '.join(map(str, range(20)))} and 10 more of fox; {'x' * 60}... of hen"
