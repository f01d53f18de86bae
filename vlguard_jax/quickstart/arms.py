"""The arms of the quickstart, each a training config and an evaluation config of the same kind that a 7B run has.

base: visual instruction tuning from random weights, on data where forbidden questions are answered like all others.
posthoc: `base` fine-tuned on the VLGuard-style set together with a helpful sample (the paper's post-hoc recipe).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vlguard_jax import config

HELPFUL, COMPLIANT = 6000, 1500  # conversations; of the compliant ones so many on signs and so many on things
POSTHOC_HELPFUL = 2000  # as many as there are safety conversations

MESH = config.MeshSettings(data=-1, fsdp=1)  # the model is too small to be divided
PRECISION = config.PrecisionSettings(compute="fp32", params="fp32", frozen="fp32")
MAX_NEW_TOKENS = 24


@dataclasses.dataclass(frozen=True)
class Arm:
    """One training run: which arm it starts from ("" for the untrained model), on which sources, how long, how fast."""

    name: str
    start: str
    sources: tuple[str, ...]
    epochs: float
    learning_rate: float


ARMS = (
    Arm("base", "", ("helpful", "compliant_signs", "compliant_things"), epochs=2.0, learning_rate=2e-3),
    Arm("posthoc", "base", ("train", "helpful_sample"), epochs=3.0, learning_rate=1.5e-3),
)


@dataclasses.dataclass(frozen=True)
class Story:
    """What decides the whole run; a folder belongs to one of them."""

    seed: int
    arms: tuple[Arm, ...]
    helpful: int
    compliant: int
    posthoc_helpful: int


def story(seed: int) -> Story:
    """The story as it is told today."""
    return Story(seed, ARMS, HELPFUL, COMPLIANT, POSTHOC_HELPFUL)


def model_folder(workdir: Path, arm: str) -> Path:
    """Where the model of an arm is written; "" names the untrained one."""
    return workdir / arm / "model" if arm else workdir / "init"


def _source(world: Path, name: str) -> config.SourceSettings:
    if name == "train":
        return config.SourceSettings(format="vlguard", path=str(world / "train.json"), images=str(world / "train"))
    if name == "helpful_sample":
        return dataclasses.replace(_source(world, "helpful"), count=POSTHOC_HELPFUL)
    return config.SourceSettings(format="llava", path=str(world / f"{name}.json"), images=str(world / name))


def train_config(arm: Arm, workdir: Path, seed: int) -> config.TrainConfig:
    """Settings of the arm's training run."""
    settings = config.TrainConfig(
        seed=seed,
        model=config.ModelSettings(path=str(model_folder(workdir, arm.start))),
        precision=PRECISION,
        data=config.DataSettings(
            sources={name: _source(workdir / "world", name) for name in arm.sources},
            max_len=256,
            length_multiple=16,
            batch_size=32,
            group_size=16,
        ),
        optimizer=config.OptimizerSettings(learning_rate=arm.learning_rate, epochs=arm.epochs, warmup_ratio=0.05, b2=0.98, clip_norm=1.0),
        mesh=MESH,
        run=config.RunSettings(remat="none", save_every=200, tensorboard=False, log_every=10, export="llava"),
    )
    return config.resolve(dataclasses.asdict(settings), config.TrainConfig)


def eval_config(arm: Arm, workdir: Path) -> config.EvalConfig:
    """Settings of the arm's evaluation: all of the world's test questions."""
    world = workdir / "world"
    return config.EvalConfig(
        model=config.ModelSettings(path=str(model_folder(workdir, arm.name))),
        model_name=arm.name,
        preset="quickstart",
        precision=config.EvalPrecisionSettings(compute="fp32"),
        benchmark=config.BenchmarkSettings(name="vlguard_like", path=str(world / "test.json"), images=str(world / "test")),
        decode=config.DecodeSettings(max_new_tokens=MAX_NEW_TOKENS, batch_size=64),
        mesh=MESH,
    )
