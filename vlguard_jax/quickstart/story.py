"""Runs the arms one after another, gathers their results and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path

from vlguard_jax import files
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.quickstart import arms as arms_lib
from vlguard_jax.quickstart import claims as claims_lib
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import world
from vlguard_jax.reporting import page
from vlguard_jax.reporting import tables
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import summary as summary_lib
from vlguard_jax.training import loop

TITLE = "Safety fine-tuning in miniature"
INTRODUCTION = (
    "A tiny language model is aligned on text (llm), learns to see and forgets its refusals (base), and is repaired: by"
    " safety data alone (posthoc_vlguard_only), by safety and helpful data (posthoc, with adapters posthoc_lora), or by"
    " mixing safety data into the visual tuning (mixed). Nothing in this world is harmful: what is forbidden is a"
    " convention, black signs with a coloured rim and made-up words. The pictures asked about, the wordings of the"
    " requests and the symbols on the forbidden signs are in no training file."
)
# Seeds whose results were seen while settings were chosen; 0 and 1 on test items, on which a first choice failed.
TUNING_SEEDS = frozenset({0, 1, *range(1000, 1006)})


def honesty(seed: int, items: str) -> str:
    """A note for readers of the page on how its settings were chosen."""
    if items == "test" and seed not in TUNING_SEEDS:
        return (
            f"Settings were chosen on other seeds than this one (seed {seed}), and all but two of those on tuning"
            " items, whose wordings and symbols differ from those of the test."
        )
    return (
        f"TUNING RUN (seed {seed}, {items} items): settings were chosen by looking at such runs; no figure of"
        " this page is a result."
    )


@dataclasses.dataclass(frozen=True)
class Story:
    """Everything that determines the run; a folder belongs to one story."""

    seed: int
    items: str
    arms: tuple[arms_lib.Arm, ...]
    sizes: world.Sizes


def tell(
    folder: Path,
    seed: int,
    *,
    items: str = "test",
    arms: Sequence[arms_lib.Arm] = arms_lib.ARMS,
    sizes: world.Sizes | None = None,
) -> bool:
    """Make the world and the model, train and evaluate every arm, write the results; False if a signal stopped the run.

    Finished parts are not repeated. Writes summary.json (the six subsets of every arm), probes.json, claims.json and
    report.html.

    Args:
      folder: working directory.
      seed: of the world, the weights and the order of the data.
      items: "test", or "tuning" to choose settings by.
      arms: what to train, each after the arm it starts from.
      sizes: of the data.

    Raises:
      UserError: `folder` holds the run of another seed or version of the story.
    """
    told = Story(seed, items, tuple(arms), sizes or world.Sizes())
    workdir_lib.check(folder, told)
    workdir_lib.check_unclaimed(folder, "world")
    workdir_lib.prepare(folder)
    if not (folder / "world").is_dir():
        print("drawing the world")
        world.write(folder / "world", seed, items, told.sizes)
    workdir_lib.claim(folder, told)
    if not arms_lib.model_folder(folder, "").is_dir():
        model.write(arms_lib.model_folder(folder, ""), language_lib.language(seed, len(pictures.symbols())))
    summary: list[summary_lib.Row] = []
    probes: list[claims_lib.ProbeRow] = []
    for arm in told.arms:
        print(f"\n== {arm.name}: {arm.about}")
        if not arms_lib.model_folder(folder, arm.name).is_dir():
            result = loop.train(arms_lib.train_config(arm, folder, seed, told.sizes), folder / arm.name)
            if not result.finished:
                return False
        for name, config in arms_lib.eval_configs(arm, folder).items():
            rows = from_checkpoint.evaluate(config, arms_lib.eval_folder(folder, arm.name, name), quiet=True)
            summary += rows if name in arms_lib.SUMMARY else []
            probes += [claims_lib.ProbeRow(probe=name, **vars(row)) for row in rows if name not in arms_lib.SUMMARY]
    _write(folder, told, summary, probes)
    return True


def _write(folder: Path, told: Story, summary: list[summary_lib.Row], probes: list[claims_lib.ProbeRow]) -> None:
    summary_lib.write(folder / summary_lib.NAME, summary)
    summary_lib.write(folder / claims_lib.PROBES, probes)
    tables.show(summary)
    found = claims_lib.check(folder, summary, probes)
    files.write_text(folder / "claims.json", json.dumps([dataclasses.asdict(c) for c in found], indent=1) + "\n")
    claims_lib.show(found)
    folders = [folder / arm.name for arm in told.arms]
    told_first = f"{INTRODUCTION} {honesty(told.seed, told.items)}"
    # nothing in this world is harmful, so nothing is folded
    page.write(
        folders,
        folder / "report.html",
        title=TITLE,
        introduction=told_first,
        claims=claims_lib.table(found),
        fold_unsafe=False,
    )
