"""The arms of the real-model run: what each is trained on, and how it is asked.

A recipe (epochs, learning rate) belongs to a kind of training, not to an arm, so that arms differ in their data alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vlguard_jax import config
from vlguard_jax.real import data

BASE = "base"
BATCH, ROW = 8, 512  # conversations per update; tokens that a packed row has at most
TUNING = 50  # questions of each subset that settings may be chosen by; results ask others


@dataclasses.dataclass(frozen=True)
class Sizes:
    """safety, helpful: conversations of an arm that has all of the kind. prompts: asked of each subset. new_tokens: of
    an answer."""

    safety: int = 200
    helpful: int = 300
    prompts: int = 80
    new_tokens: int = 48


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One kind of training."""

    epochs: float
    learning_rate: float
    lora_rank: int = 0


# Chosen on seed 1000 by the tuning questions (BUILD.md): 1e-4 and 1e-3 were the first rates tried that teach to refuse.
FULL = Recipe(epochs=1.0, learning_rate=1e-4)
LORA = Recipe(epochs=1.0, learning_rate=1e-3, lora_rank=16)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One training run from the base model. safety, helpful: shares of what `Sizes` has of the kind."""

    name: str
    about: str
    recipe: Recipe
    safety: float = 1.0
    helpful: float = 1.0


ARMS = (
    Arm("safety_only", "all weights, on safety data alone", FULL, helpful=0.0),
    Arm("posthoc", "all weights, on safety and helpful data (the paper's post-hoc recipe)", FULL),
    Arm("safety_only_lora", "adapters, on safety data alone", LORA, helpful=0.0),
    Arm("posthoc_lora", "adapters, on safety and helpful data", LORA),
)
WHOLE = "posthoc"
# Share of the safety data beside all of the helpful data (the paper's Fig. 4); 100 % is the arm WHOLE.
SWEEP = tuple(
    Arm(f"posthoc_{percent}", f"as posthoc, with {percent} % of the safety data", FULL, safety=percent / 100)
    for percent in (0, 10, 33)
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A benchmark, its official file below the folder of benchmarks, and the subsets that are asked."""

    benchmark: str
    file: str
    subsets: tuple[str, ...]


ASKED = (
    Asked("advbench", "advbench/harmful_behaviors.csv", ("advbench_vanilla", "advbench_suffix")),
    Asked("xstest", "xstest/xstest_prompts.csv", ("xstest_safe", "xstest_unsafe")),
    Asked("strongreject", "strongreject/strongreject_dataset.csv", ("strongreject",)),
)
JUDGES = ("keyword_vlguard_v1", "keyword_repaired")
MESH = config.MeshSettings(data=-1, fsdp=1)  # the model is too small to be sharded


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders of a run. root: of everything. items: "test" or "tuning". seed: of a training run."""

    root: Path
    items: str
    seed: int = 0

    @property
    def run(self) -> Path:
        """Of one seed."""
        return self.root / self.items / f"seed_{self.seed}"

    def model(self, arm: str) -> Path:
        """The model of an arm. The base has no seed."""
        return self.root / "base" if arm == BASE else self.run / arm / "model"

    def answers(self, arm: str, benchmark: str) -> Path:
        """Working directory of an evaluation."""
        return (self.root / self.items / BASE if arm == BASE else self.run / arm) / "eval" / benchmark


def train_config(arm: Arm, place: Place, sizes: Sizes) -> config.TrainConfig:
    """Settings of the arm's training run."""
    recipe, made = arm.recipe, data.folder(place.root)
    lora = config.LoraSettings()
    if recipe.lora_rank:
        lora = config.LoraSettings(rank=recipe.lora_rank, alpha=2.0 * recipe.lora_rank, dropout=0.0)
    counts = {"safety": round(arm.safety * sizes.safety), "helpful": round(arm.helpful * sizes.helpful)}
    sources = {
        kind: config.SourceSettings(path=str(made / f"{kind}.json"), count=count, sample_seed=place.seed)
        for kind, count in counts.items()
        if count
    }
    settings = config.TrainConfig(
        seed=place.seed,
        model=config.ModelSettings(path=str(place.model(BASE))),
        precision=config.PrecisionSettings(compute="fp32", params="fp32", frozen="fp32"),
        data=config.DataSettings(
            sources=sources,
            max_len=ROW,
            mode="pack",
            max_row_len=ROW,
            length_multiple=64,
            order="shuffle",
            batch_size=BATCH,
            group_size=BATCH // 2,
            cache=str(place.root / "cache"),
        ),
        lora=lora,
        optimizer=config.OptimizerSettings(
            learning_rate=recipe.learning_rate, epochs=recipe.epochs, warmup_ratio=0.05, clip_norm=1.0
        ),
        mesh=MESH,
        run=config.RunSettings(remat="none", save_every=25, tensorboard=False, log_every=5, export="hf"),
    )
    return config.resolve(dataclasses.asdict(settings), config.TrainConfig)


def eval_configs(arm: str, place: Place, benchmarks: Path, sizes: Sizes) -> dict[str, config.EvalConfig]:
    """Benchmark -> settings of the arm's evaluation; `benchmarks` is the folder of the official files."""
    return {asked.benchmark: _eval_config(arm, place, benchmarks, asked, sizes) for asked in ASKED}


def _eval_config(arm: str, place: Place, benchmarks: Path, asked: Asked, sizes: Sizes) -> config.EvalConfig:
    tuning = place.items == "tuning"
    settings = config.EvalConfig(
        model=config.ModelSettings(path=str(place.model(arm))),
        model_name=arm,
        preset="real",
        precision=config.EvalPrecisionSettings(compute="fp32"),
        benchmark=config.BenchmarkSettings(
            name=asked.benchmark,
            path=str(benchmarks / asked.file),
            subsets=asked.subsets,
            order="drawn",
            skip=0 if tuning else TUNING,
            limit=TUNING if tuning else sizes.prompts,
        ),
        judges=JUDGES,
        decode=config.DecodeSettings(max_new_tokens=sizes.new_tokens, batch_size=32),
        baseline="" if arm == BASE else str(place.answers(BASE, asked.benchmark)),
        mesh=MESH,
        withhold_text=True,
    )
    return config.resolve(dataclasses.asdict(settings), config.EvalConfig)
