"""The quickstart on several seeds, with a sweep over the amount of safety data: how much of it is luck?

  python benchmarks/quickstart_seeds.py --workdir runs/quickstart_seeds --seeds 3,4,5

A seed is another world, another model and another order of the data; its run is in WORKDIR/seed_N. Rates are means over
the seeds with intervals over seeds and items. Writes to WORKDIR seeds.html (open it in a browser) and seeds.md, and
prints the table, or with --json one JSON object. Started again it resumes where it stopped; finished seeds are not
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

if TYPE_CHECKING:
    from vlguard_jax.reporting import seeds as seeds_lib

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/quickstart_seeds", "folder of the runs and of the page; the same command again resumes there"
)
_SEEDS = flags.DEFINE_list("seeds", ["3", "4", "5"], "seeds to run, below 1000")
_SWEEP = flags.DEFINE_boolean("sweep", True, "also train with 0, 5 and 25 % of the safety set")
_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)

TUNING = 1000  # seeds from here on are for choosing settings
WHOLE = "posthoc"  # the arm that has all of the safety set

TITLE = "Safety fine-tuning in miniature, on several seeds"
INTRODUCTION = (
    "The quickstart's story, told from the start for seeds {seeds}: a tiny model is aligned on text (llm), learns to"
    " see and forgets its refusals (base), and is repaired or trained with safety data from the start. A seed is"
    " another world, another model and another order of the data. Settings were chosen on tuning seeds (1000 and"
    " above) and tuning items; a first choice failed on the test items of seeds 0 and 1 and was changed, so those two"
    " seeds can give no result. The items asked are test items: pictures that are in no training file, with symbols"
    " on the forbidden signs and wordings of the requests that neither training nor tuning items have. Nothing in this"
    " world is harmful: what is forbidden is a convention."
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The purpose of one working directory. Seeds can be added later."""

    sweep: bool


def main(positional: list[str]) -> int:
    """Run what is missing, then gather, write and print."""
    if positional or not _WORKDIR.value:
        raise errors.UserError(
            "quickstart_seeds.py takes --workdir DIR, --seeds, --sweep or --nosweep, and --json; see --help"
        )
    chosen = seeds(_SEEDS.value)
    folder = Path(_WORKDIR.value)
    with contextlib.redirect_stdout(sys.stderr if _JSON.value else sys.stdout):
        if not run(folder, chosen, _SWEEP.value):
            print("stopped; start the same command again to go on")
            return errors.EXIT_RESTART
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import seeds as seeds_lib

    found = gather(folder, chosen, _SWEEP.value)
    introduction = INTRODUCTION.format(
        seeds=" and ".join(filter(None, (", ".join(map(str, chosen[:-1])), str(chosen[-1]))))
    )
    page.save(folder / "seeds.html", seeds_lib.render(found, title=TITLE, introduction=introduction))
    page.save(folder / "seeds.md", seeds_lib.markdown(found))
    if _JSON.value:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        seeds_lib.show(found)
        print(f"{folder}/seeds.html and seeds.md written")
    return errors.EXIT_OK


def seeds(texts: Sequence[str]) -> list[int]:
    """The flag's value as numbers.

    Raises:
      UserError: not a list of different numbers from 0 to 999.
    """
    try:
        found = [int(text) for text in texts]
    except ValueError as e:
        raise errors.UserError(
            f"--seeds={','.join(texts)}: write numbers with commas between them, as in --seeds=0,1,2"
        ) from e
    if not found or len(set(found)) < len(found) or not all(0 <= seed < TUNING for seed in found):
        raise errors.UserError(
            f"--seeds={','.join(texts)}: name each seed once, from 0 to {TUNING - 1}; settings were chosen on seeds"
            f" from {TUNING} on, which can give no result"
        )
    return found


def run(folder: Path, chosen: Sequence[int], sweep: bool) -> bool:
    """Run the quickstart for every seed that is not finished; False if a signal stopped it.

    Raises:
      UserError: `folder` holds runs with other arms, settings or items.
    """
    from vlguard_jax import workdir as workdir_lib
    from vlguard_jax.quickstart import arms
    from vlguard_jax.quickstart import story
    from vlguard_jax.quickstart import world

    workdir_lib.claim(folder, Plan(sweep))
    wanted = (*arms.ARMS, *(arms.SWEEP if sweep else ()))
    for seed in chosen:
        part = folder / f"seed_{seed}"
        if (part / "report.html").exists():  # what a run writes last
            workdir_lib.check(part, story.Story(seed, "test", wanted, world.Sizes()))
            print(f"seed {seed}: finished before")
            continue
        print(f"\n==== seed {seed}")
        if not story.tell(part, seed, arms=wanted):
            return False
    return True


def gather(folder: Path, chosen: Sequence[int], sweep: bool) -> seeds_lib.Gathered:
    """All figures of the finished runs.

    Raises:
      UserError: a file of a run is missing, or the runs do not measure the same.
    """
    from vlguard_jax.quickstart import arms
    from vlguard_jax.quickstart import claims
    from vlguard_jax.reporting import gathering
    from vlguard_jax.reporting import seeds as seeds_lib
    from vlguard_jax.safety import summary as summary_lib

    parts = [folder / f"seed_{seed}" for seed in chosen]
    summary = gathering.rates(
        parts, [gathering.rows(part, summary_lib.NAME, summary_lib.Row) for part in parts], same_items=False
    )
    probes = [gathering.rows(part, claims.PROBES, claims.ProbeRow) for part in parts]
    swept = {arm.name: f"{100 * arm.safety:.0f}" for arm in arms.SWEEP} if sweep else {}
    settings = gathering.read(parts[0], "config.json")
    return seeds_lib.Gathered(
        seeds=tuple(chosen),
        arms={model: rates for model, rates in summary.items() if model not in swept},
        probes={
            p.name: seeds_lib.Probe(
                p.pictures,
                gathering.rates(parts, [[r for r in rows if r.probe == p.name] for rows in probes], same_items=False),
            )
            for p in arms.PROBES
        },
        claims=_claims(parts),
        sweep={share: summary[model] for model, share in {**swept, WHOLE: "100"}.items()} if sweep else {},
        settings={key: value for key, value in settings.items() if key != "seed"},
        versions=gathering.versions(parts),
    )


def _claims(parts: Sequence[Path]) -> tuple[seeds_lib.Claim, ...]:
    from vlguard_jax.quickstart import claims
    from vlguard_jax.reporting import seeds as seeds_lib

    per_seed = [claims.read(part) for part in parts]
    found = []
    for part, run_ in zip(parts, per_seed, strict=True):
        if [(c.text, c.bar) for c in run_] != [(c.text, c.bar) for c in per_seed[0]]:
            raise errors.UserError(
                f"{part}/claims.json holds other claims than {parts[0]}/claims.json; they are of different versions"
            )
    for same in zip(*per_seed, strict=True):
        claim = seeds_lib.Claim(
            text=same[0].text,
            bar=same[0].bar,
            per_seed=tuple(c.value for c in same),
            ci_per_seed=tuple((c.ci_low, c.ci_high) for c in same),
            n=same[0].n,
            mean=sum(c.value for c in same) / len(same),
            met=sum(bool(c.met) for c in same) if same[0].bar else None,
        )
        found.append(claim)
    return tuple(found)


if __name__ == "__main__":
    cli.run(main)
