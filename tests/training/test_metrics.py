"""What a resumed run's TensorBoard shows."""

import pathlib
import struct

import pytest
from tensorboardX.proto import event_pb2

from vlguard_jax import errors
from vlguard_jax.training import metrics
from vlguard_jax.training import tracking

VALUES = {"loss": 1.0, "learning_rate": 0.1, "step_seconds": 1.0, "tokens_per_second": 1.0, "input_wait": 0.0}


def _write(workdir: pathlib.Path, start: int, steps: range) -> None:
    workdir.mkdir()
    board = tracking.TensorBoard(workdir, start)
    with metrics.Writer(workdir, start_step=start, total_steps=6, active=True, trackers=[board]) as writer:
        for step in steps:
            writer.write(step, VALUES | {"loss": float(10 * start + step)})


def _shown(path: pathlib.Path, shown: dict[int, float]) -> dict[int, float]:
    """`shown` after TensorBoard has read one more event file: a start mark hides every event of its step and later
    ones."""
    data = path.read_bytes()
    while data:
        size = struct.unpack("<Q", data[:8])[0]
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        if event.session_log.status == event_pb2.SessionLog.START:
            shown = {step: loss for step, loss in shown.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == "loss":
                shown[event.step] = value.simple_value
    return shown


def test_a_resumed_run_hides_no_update(tmp_path: pathlib.Path) -> None:
    """Stopped after update 3 although 4 was written: 1, 2, 3 stay, 4 is the resumed run's."""
    shown: dict[int, float] = {}
    for start, steps in ((0, range(1, 5)), (3, range(4, 6)), (5, range(6, 7))):
        _write(tmp_path / str(start), start, steps)  # apart: the files of one second share a name
        (written,) = (tmp_path / str(start) / "tensorboard").iterdir()
        shown = _shown(written, shown)
    assert shown == {1: 1.0, 2: 2.0, 3: 3.0, 4: 34.0, 5: 35.0, 6: 56.0}


def test_a_folder_in_the_place_of_a_log_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "probe.jsonl").mkdir()
    with pytest.raises(errors.UserError, match=r"probe\.jsonl: a folder, not a file"):
        metrics.cut_back(tmp_path / "probe.jsonl", 3)


def test_a_line_that_cannot_be_read_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the last one, which a kill has torn."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n{"step": 4}\n{"st')
    assert metrics.cut_back(path, 3) == 3 and path.read_text() == '{"step": 1}\n{"step": 3}\n'
    assert capsys.readouterr().out == f"{path}: line 2 cannot be read, and is left out from now on\n"
