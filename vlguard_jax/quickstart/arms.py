"""The arms of the quickstart, each with a training config and evaluation configs like those of a 7B run.

A recipe (epochs and learning rate) belongs to a kind of training, not to an arm.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vlguard_jax import config
from vlguard_jax.quickstart import language
from vlguard_jax.quickstart import world


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One kind of training."""

    epochs: float
    learning_rate: float
    lora_rank: int = 0


ALIGNMENT = Recipe(epochs=3.0, learning_rate=2e-3)
VISUAL_TUNING = Recipe(epochs=2.0, learning_rate=2e-3)
POSTHOC = Recipe(epochs=3.0, learning_rate=1.5e-3)
POSTHOC_LORA = Recipe(epochs=3.0, learning_rate=6e-3, lora_rank=16)

HELPFUL_PER_SAFETY = 2.5  # 5,000 to 2,000 in the paper
BATCH, ROW, TEXT_ROW = 16, 72, 48  # conversations per update; tokens in a row, one shape each
MAX_NEW_TOKENS = 24

MESH = config.MeshSettings(data=-1, fsdp=1)  # the model is too small to be sharded
PRECISION = config.PrecisionSettings(compute="fp32", params="fp32", frozen="fp32")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One training run: the arm it starts from ("" for the untrained model), its data and recipe.

    pictures: whether it can be asked about pictures. safety: share of the safety set in the source "train".
    """

    name: str
    about: str
    start: str
    sources: tuple[str, ...]
    recipe: Recipe
    pictures: bool = True
    safety: float = 1.0


ARMS = (
    Arm(
        "llm",
        "a language model, aligned on text: it refuses forbidden requests",
        "",
        ("texts",),
        ALIGNMENT,
        pictures=False,
    ),
    Arm(
        "base",
        "visual instruction tuning of llm, on data without anything forbidden and without refusals",
        "llm",
        ("mix",),
        VISUAL_TUNING,
    ),
    Arm("posthoc_vlguard_only", "base tuned on the safety set alone", "base", ("train",), POSTHOC),
    Arm(
        "posthoc",
        "base tuned on the safety set and helpful data (the paper's post-hoc recipe)",
        "base",
        ("train", "helpful"),
        POSTHOC,
    ),
    Arm(
        "mixed",
        "as base, with the safety set in the data from the start (the paper's mixed recipe)",
        "llm",
        ("mix", "train"),
        VISUAL_TUNING,
    ),
    Arm("posthoc_lora", "as posthoc, with adapters", "base", ("train", "helpful"), POSTHOC_LORA),
)

# Share of the safety set in the post-hoc recipe with fixed helpful data (the paper's Fig. 4); 1 is the arm posthoc.
SWEEP = tuple(
    Arm(
        f"posthoc_{percent}",
        f"as posthoc, with {percent} % of the safety set",
        "base",
        sources,
        POSTHOC,
        safety=percent / 100,
    )
    for percent, sources in ((0, ("helpful",)), (5, ("train", "helpful")), (25, ("train", "helpful")))
)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Questions besides the six subsets of the summary, about other pictures or none."""

    name: str
    file: str
    subsets: tuple[str, ...]
    pictures: config.Shown = "real"


SUMMARY = ("pictures", "prompts")  # the evaluations behind summary.json
PROBES = (
    Probe("blanked", "test", ("unsafes",), pictures="white"),
    Probe("new_category", "new_category", ("unsafes", "safe_unsafes")),
    Probe("joint", "joint", ("unsafes",)),
)


def model_folder(workdir: Path, arm: str) -> Path:
    """The folder of an arm's model; "" names the untrained one."""
    return workdir / arm / "model" if arm else workdir / "init"


def train_config(arm: Arm, workdir: Path, seed: int, sizes: world.Sizes) -> config.TrainConfig:
    """Settings of the arm's training run."""
    recipe = arm.recipe
    lora = (
        config.LoraSettings(rank=recipe.lora_rank, alpha=2.0 * recipe.lora_rank, dropout=0.0)
        if recipe.lora_rank
        else config.LoraSettings()
    )
    settings = config.TrainConfig(
        seed=seed,
        model=config.ModelSettings(path=str(model_folder(workdir, arm.start))),
        precision=PRECISION,
        data=config.DataSettings(
            sources={name: _source(workdir / "world", name, arm, sizes) for name in arm.sources},
            max_len=256,
            length_multiple=ROW if arm.pictures else TEXT_ROW,
            batch_size=BATCH,
            group_size=BATCH // 2,
            cache=str(workdir / "cache"),
        ),
        lora=lora,
        optimizer=config.OptimizerSettings(
            learning_rate=recipe.learning_rate, epochs=recipe.epochs, warmup_ratio=0.05, b2=0.98, clip_norm=1.0
        ),
        mesh=MESH,
        run=config.RunSettings(remat="none", unroll=3, save_every=400, tensorboard=False, log_every=10, export="llava"),
    )
    return config.resolve(dataclasses.asdict(settings), config.TrainConfig)


def _source(folder: Path, name: str, arm: Arm, sizes: world.Sizes) -> config.SourceSettings:
    if name == "train":
        count = round(arm.safety * sum(sizes.train))
        return config.SourceSettings(
            format="vlguard", path=str(folder / "train.json"), images=str(folder / "train"), count=count
        )
    file = "mix" if name == "helpful" else name
    count = round(HELPFUL_PER_SAFETY * sum(sizes.train)) if name == "helpful" else 0
    images = "" if name == "texts" else str(folder / file)
    return config.SourceSettings(format="llava", path=str(folder / f"{file}.json"), images=images, count=count)


def eval_configs(arm: Arm, workdir: Path) -> dict[str, config.EvalConfig]:
    """Name -> settings of the arm's evaluations: those of SUMMARY, and PROBES."""
    benchmarks = {
        "prompts": config.BenchmarkSettings(
            name="prompts", path=str(workdir / "world/prompts.json"), suffix=language.SUFFIX
        )
    }
    if arm.pictures:
        benchmarks = {"pictures": _pictures(workdir, "test", ("unsafes", "safe_unsafes", "safe_safes"))} | benchmarks
        benchmarks |= {p.name: _pictures(workdir, p.file, p.subsets, p.pictures) for p in PROBES}
    return {name: _eval_config(arm, workdir, name, benchmark) for name, benchmark in benchmarks.items()}


def _pictures(
    workdir: Path, file: str, subsets: tuple[str, ...], shown: config.Shown = "real"
) -> config.BenchmarkSettings:
    world = workdir / "world"
    return config.BenchmarkSettings(
        name="vlguard_like", path=str(world / f"{file}.json"), images=str(world / file), subsets=subsets, pictures=shown
    )


def _eval_config(arm: Arm, workdir: Path, name: str, benchmark: config.BenchmarkSettings) -> config.EvalConfig:
    compared = arm.name not in ("llm", "base")
    return config.EvalConfig(
        model=config.ModelSettings(path=str(model_folder(workdir, arm.name))),
        model_name=arm.name,
        preset="quickstart",
        precision=config.EvalPrecisionSettings(compute="fp32"),
        benchmark=benchmark,
        judges=("keyword_vlguard_v1", "exact_match_v1") if name == "pictures" else ("keyword_vlguard_v1",),
        decode=config.DecodeSettings(max_new_tokens=MAX_NEW_TOKENS, batch_size=64),
        baseline=str(eval_folder(workdir, "base", name)) if compared else "",
        mesh=MESH,
    )


def eval_folder(workdir: Path, arm: str, name: str) -> Path:
    """Working directory of one evaluation of an arm.

    Probes of other items are kept apart from the results in the report's table.
    """
    other_items = name in {probe.name for probe in PROBES if probe.file != "test"}
    return workdir / "probes" / name / arm if other_items else workdir / arm / "eval" / name
