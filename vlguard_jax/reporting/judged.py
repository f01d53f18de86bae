"""What a report says of its judges: their error by people's labels, and how far they agree with others and people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlguard_jax.reporting import agreed as agreed_lib
from vlguard_jax.reporting import calibrated
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs


def find(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    calibration: Sequence[str],
    labels: Sequence[str],
    *,
    agreed: bool,
) -> tuple[provenance.Section | None, agreed_lib.Agreed | None]:
    """(judges by the label files `calibration`, agreement if `agreed`); None for what was not asked.

    For agreement people's labels are those with keys of `calibration` and of the files `labels`.

    Raises:
      UserError: as `labelled.load`, `labelled.people`, `calibrated.calibrate` and `agreed.measure`.
    """
    files = labelled.load([Path(path) for path in calibration], evaluations, "calibration")
    section = calibrated.calibrate(grid, labelled.by_model(files, evaluations)) if files else None
    if not agreed:
        return section, None
    more = labelled.load([Path(path) for path in labels], evaluations, "labels")
    keyed = [one for one in files if any(answer.key for answer in one.answers)]
    people = labelled.people([*keyed, *more], "labels")
    asks = (more or keyed)[0].answers[0].asks if people else ""
    return section, agreed_lib.measure(evaluations, people, asks)
