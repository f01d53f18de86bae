"""What a report says of its judges and of people's judgement: error, agreement, and whose answers people prefer."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import Any

from vlguard_jax import terminal
from vlguard_jax.reporting import agreed as agreed_lib
from vlguard_jax.reporting import agreed_tables
from vlguard_jax.reporting import calibrated
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import preferred
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs


@dataclasses.dataclass(frozen=True)
class Judged:
    """Judges by people's labels, all raters beside each other, people's preferences; None for what was not asked."""

    calibration: provenance.Section | None = None
    agreement: agreed_lib.Agreed | None = None
    preferences: provenance.Section | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What `page.render` takes."""
        agreement = agreed_tables.shown(self.agreement) if self.agreement else None
        return {"calibration": self.calibration, "agreement": agreement, "preferences": self.preferences}

    @property
    def sections(self) -> list[provenance.Section]:
        """All of it as tables."""
        agreement = agreed_tables.section(self.agreement) if self.agreement else None
        return [section for section in (self.calibration, agreement, self.preferences) if section]


def find(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    *,
    calibration: Sequence[str],
    labels: Sequence[str],
    preferences: Sequence[str],
    agreed: bool,
) -> Judged:
    """Read the files `calibration`, `labels` and `preferences`.

    For agreement, which is found if `agreed`, people's labels are those with keys of `calibration` and of `labels`.

    Raises:
      UserError: as `labelled.load`, `labelled.people`, `calibrated.calibrate`, `agreed.measure` and `preferred.load`.
    """
    files = labelled.load([Path(path) for path in calibration], evaluations, "calibration")
    section = calibrated.calibrate(grid, labelled.by_model(files, evaluations)) if files else None
    preferred_of = [Path(path) for path in preferences]
    better = preferred.section(*preferred.load(preferred_of, evaluations)) if preferred_of else None
    if not agreed:
        return Judged(section, None, better)
    more = labelled.load([Path(path) for path in labels], evaluations, "labels")
    keyed = [one for one in files if any(answer.key for answer in one.answers)]
    labelled.check_asked([*keyed, *more], "labels")
    people = labelled.people([*keyed, *more], "labels")
    asks = (more or keyed)[0].asks if people else ""
    return Judged(section, agreed_lib.measure(evaluations, people, asks), better)


def tell(found: Judged, folder: str) -> None:
    """Print agreement and preferences; with agreement also corrected rates, and write both to `folder`.

    Raises:
      UserError: it cannot be written.
    """
    if found.agreement:
        agreed_tables.show(agreed_tables.section(found.agreement), agreed_tables.confusions(found.agreement))
        if found.calibration:
            agreed_tables.show(found.calibration)
        agreed_tables.save(found.agreement, Path(folder), found.calibration.figures if found.calibration else ())
        terminal.say(f"wrote {folder}")
    if found.preferences:
        agreed_tables.show(found.preferences)
