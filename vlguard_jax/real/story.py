"""Runs the real-model story: the base model asked once, then for every seed each arm trained and asked."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path

from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.preparing import smollm2
from vlguard_jax.real import arms as arms_lib
from vlguard_jax.real import data
from vlguard_jax.reporting import page
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import run as run_lib
from vlguard_jax.safety import summary as summary_lib
from vlguard_jax.training import loop

TITLE = "Safety fine-tuning of a real language model of 135 M parameters"
POOL = 1.4  # harmless questions asked for each helpful conversation of an arm, so that seeds draw different ones


@dataclasses.dataclass(frozen=True)
class Files:
    """What the user has. benchmarks: folder of the official files (`arms.ASKED`). metadata: of VLGuard's train.json.
    gguf: the model, "": the installed package's."""

    benchmarks: Path
    metadata: Path
    gguf: str = ""


@dataclasses.dataclass(frozen=True)
class Story:
    """Everything that determines a run's figures but for its seeds and items; a folder belongs to one."""

    sizes: arms_lib.Sizes
    arms: tuple[arms_lib.Arm, ...]


def check(root: Path, story: Story, have: Files) -> None:
    """Raise UserError, before anything is made, where a file of the user's is missing or not the published one, or
    `root` belongs to another story."""
    workdir_lib.check(root, story)
    workdir_lib.check_unclaimed(root, "data")
    for arm in story.arms:
        if arm.safety and not round(arm.safety * story.sizes.safety):
            raise errors.UserError(
                f"--safety={story.sizes.safety}: {100 * arm.safety:g} % of it, as in {arm.name}, is none; raise it, or"
                " set --nosweep"
            )
    data.safety(have.metadata, root)
    place = arms_lib.Place(root, "test")
    if have.gguf and place.model(arms_lib.BASE).is_dir():
        smollm2.check_source(place.model(arms_lib.BASE), have.gguf)
    for config in arms_lib.eval_configs(arms_lib.BASE, place, have.benchmarks, story.sizes).values():
        run_lib.check(config)


def prepare(root: Path, story: Story, have: Files) -> None:
    """Make what all seeds share, where it is missing: the model's folder, the safety and the helpful conversations.

    Raises:
      UserError: as `check`; or the model's package is missing, or too few of its answers are usable.
    """
    check(root, story, have)
    workdir_lib.prepare(root)
    workdir_lib.claim(root, story)
    data.folder(root).mkdir(exist_ok=True)
    base = arms_lib.Place(root, "test").model(arms_lib.BASE)
    if not base.is_dir():
        smollm2.run(str(base), have.gguf, "fp32")
    data.write_safety(have.metadata, root)
    if not (data.folder(root) / "helpful.json").is_file():
        wanted = story.sizes.helpful
        asked = round(POOL * wanted)
        terminal.say(f"asking the model {asked:,} harmless questions; its own answers are the helpful data")
        if (usable := data.write_helpful(base, root, asked, wanted)) < wanted:
            raise errors.UserError(
                f"{root}: {usable} of {asked} answers are usable, {wanted} are needed; choose another --workdir and a"
                " lower --helpful"
            )


def tell(place: arms_lib.Place, story: Story, have: Files) -> list[summary_lib.Row] | None:
    """Train and ask every arm of one seed; the rows of all models, or None if a signal stopped the run.

    Finished parts are not repeated.
    """
    rows = _ask(arms_lib.BASE, place, story, have)
    for arm in story.arms:
        terminal.say(f"== seed {place.seed}, {arm.name}: {arm.about}")
        if not place.model(arm.name).is_dir():
            trained = loop.train(arms_lib.train_config(arm, place, story.sizes), place.model(arm.name).parent)
            if not trained.finished:
                return None
        rows += _ask(arm.name, place, story, have)
    summary_lib.write(place.run / summary_lib.NAME, rows)
    page.write(folders(place, story.arms), place.run / "report.html", title=f"{TITLE}, seed {place.seed}")
    return rows


def _ask(arm: str, place: arms_lib.Place, story: Story, have: Files) -> list[summary_lib.Row]:
    rows: list[summary_lib.Row] = []
    for name, config in arms_lib.eval_configs(arm, place, have.benchmarks, story.sizes).items():
        rows += from_checkpoint.evaluate(config, place.answers(arm, name))
    return rows


def folders(place: arms_lib.Place, arms: Sequence[arms_lib.Arm]) -> list[Path]:
    """Working directories of one seed's models, for the report."""
    return [place.answers(arms_lib.BASE, ""), *(place.run / arm.name for arm in arms)]
