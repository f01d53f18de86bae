"""The page and the table of the real-model run, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlguard_jax import workdir
from vlguard_jax.real import arms as arms_lib
from vlguard_jax.real import story as story_lib
from vlguard_jax.reporting import gathering
from vlguard_jax.reporting import page
from vlguard_jax.reporting import seeds as seeds_lib
from vlguard_jax.safety import summary as summary_lib

INTRODUCTION = (
    "SmolLM2-135M-Instruct (base) was tuned on {safety} of VLGuard's unsafe instructions with their refusals, as text"
    " without pictures, alone (safety_only) or with {helpful} of its own answers to harmless questions (posthoc), all"
    " weights or adapters (lora), and asked {prompts} prompts of each set, {new_tokens} tokens an answer, greedy. It is"
    " a small text model: nothing here is a figure of a vision-language model or of the paper."
)
CHOSEN = (
    f" Epochs, batch size and learning rates were chosen with another seed and {arms_lib.TUNING} other questions of"
    " each set, and fixed before any of these answers was made."
)
BEYOND = "The same answers, read by a judge whose error on people's labels is smaller (BUILD.md)."
DRAWN = (
    ("advbench_vanilla", "asr"),
    ("advbench_suffix", "asr"),
    ("xstest_unsafe", "asr"),
    ("strongreject", "asr"),
    ("xstest_safe", "refusal_rate"),
)
NO_RESULT = " TUNING RUN: settings are chosen by looking at such runs; no figure of this page is a result."


def write(root: Path, items: str, seeds: Sequence[int], story: story_lib.Story) -> tuple[Path, Path]:
    """Gather the finished seeds, print their table and write it as a page and as Markdown; returns both files.

    Raises:
      UserError: a file of a seed is missing or damaged, or seeds were not asked alike.
    """
    found = gather(root, items, seeds, story)
    told = INTRODUCTION.format(**vars(story.sizes))
    told += NO_RESULT if items == "tuning" else CHOSEN
    name = "real" if items == "test" else "tuning"
    html, markdown = root / f"{name}.html", root / f"{name}.md"
    page.save(html, seeds_lib.render(found, title=story_lib.TITLE, introduction=told, beyond=BEYOND))
    page.save(markdown, seeds_lib.markdown(found))
    seeds_lib.show(found)
    return html, markdown


def gather(root: Path, items: str, seeds: Sequence[int], story: story_lib.Story) -> seeds_lib.Gathered:
    """The figures of all seeds: by the paper's judge, and beside them by the other ones. Raises as `write`."""
    parts = [arms_lib.Place(root, items, seed).run for seed in seeds]
    rows = [gathering.rows(part, summary_lib.NAME, summary_lib.Row) for part in parts]
    by_judge = {
        judge: gathering.rates(
            parts,
            [[row for row in one if row.judge == judge] for one in rows],
            same_items=True,
            without_seed=(arms_lib.BASE,),
        )
        for judge in arms_lib.JUDGES
    }
    first, *others = arms_lib.JUDGES
    swept = {arm.name: f"{100 * arm.safety:.0f}" for arm in story.arms if arm in arms_lib.SWEEP}
    shown = {judge: _without(rates, swept) for judge, rates in by_judge.items()}
    return seeds_lib.Gathered(
        seeds=tuple(seeds),
        arms=shown[first],
        probes={f"by {judge}": seeds_lib.Probe("real", shown[judge]) for judge in others},
        claims=(),
        sweep={share: by_judge[first][arm] for arm, share in {**swept, arms_lib.WHOLE: "100"}.items()} if swept else {},
        settings=gathering.read(root, workdir.CONFIG_FILE),
        versions=gathering.versions([root / items]),
        drawn=DRAWN,
    )


def _without(rates: gathering.Rates, models: Sequence[str] | dict[str, str]) -> gathering.Rates:
    return {model: by_subset for model, by_subset in rates.items() if model not in models}
