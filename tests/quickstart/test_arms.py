"""The arms: configs that resolve, data that is there, one recipe per kind of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.quickstart import stand
from vlguard_jax import config
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import world
from vlguard_jax.safety import run

ALL = (*arms.ARMS, *arms.SWEEP)
PICTURE_SUBSETS = {"unsafes", "safe_unsafes", "safe_safes"}
TEXT_SUBSETS = {"text_safe", "text_unsafe", "text_suffix"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a small world in it."""
    path = tmp_path_factory.mktemp("quickstart")
    world.write(path / "world", 1000, "test", stand.SMALL)
    return path


def settings(arm: arms.Arm, folder: Path, seed: int = 1000) -> config.TrainConfig:
    """Of the arm's training."""
    return arms.train_config(arm, folder, seed, stand.SMALL)


def by_name(name: str) -> arms.Arm:
    """The arm of that name."""
    return next(arm for arm in ALL if arm.name == name)


def test_names() -> None:
    assert [arm.name for arm in arms.ARMS] == [
        "llm",
        "base",
        "posthoc_vlguard_only",
        "posthoc",
        "mixed",
        "posthoc_lora",
    ]
    assert [arm.name for arm in arms.SWEEP] == ["posthoc_0", "posthoc_5", "posthoc_25"]
    made = [""]
    for arm in ALL:  # each starts from one that is trained before it
        assert arm.start in made
        made.append(arm.name)


@pytest.mark.parametrize("arm", ALL, ids=lambda a: a.name)
def test_training_reads_what_the_world_holds(arm: arms.Arm, folder: Path) -> None:
    """The readers of a real run take every source, pictures included."""
    found = settings(arm, folder)
    assert found.model.path == str(arms.model_folder(folder, arm.start))
    made = stand.mixture(found.data, folder)
    assert set(made.index.source.tolist()) == set(range(len(arm.sources))) and set(made.index.source_names) == set(
        arm.sources
    )
    assert made.index.pictures.any() == arm.pictures and not made.drops
    assert found.data.length_multiple == (arms.ROW if arm.pictures else arms.TEXT_ROW)


@pytest.mark.parametrize("arm", ALL, ids=lambda a: a.name)
def test_evaluations_read_what_the_world_holds(arm: arms.Arm, folder: Path) -> None:
    configs = arms.eval_configs(arm, folder)
    assert set(configs) == ({*arms.SUMMARY, *(p.name for p in arms.PROBES)} if arm.pictures else {"prompts"})
    items = {name: run.check(found) for name, found in configs.items()}
    subsets = {item.subset for name in configs if name in arms.SUMMARY for item in items[name]}
    assert subsets == (TEXT_SUBSETS | PICTURE_SUBSETS if arm.pictures else TEXT_SUBSETS)
    assert all(found.model.path == str(arms.model_folder(folder, arm.name)) for found in configs.values())
    for name, found in configs.items():
        assert found.baseline == (
            str(arms.eval_folder(folder, "base", name)) if arm.name not in ("llm", "base") else ""
        )
    folders = [arms.eval_folder(folder, arm.name, name) for name in configs]
    assert len(set(folders)) == len(folders)


def test_blank_pictures_are_the_test_items() -> None:
    """The control asks the same questions about one colour."""
    configs = arms.eval_configs(by_name("posthoc"), Path("work"))
    blank, real = configs["blanked"].benchmark, configs["pictures"].benchmark
    assert (blank.path, blank.images) == (real.path, real.images) and (blank.pictures, real.pictures) == (
        "white",
        "real",
    )


def test_a_recipe_belongs_to_a_kind_of_training() -> None:
    """Arms of one kind share one recipe, and beside start, data and recipe nothing of a config differs."""
    kinds = {
        "alignment": {"llm"},
        "visual tuning": {"base", "mixed"},
        "posthoc": {"posthoc", "posthoc_vlguard_only", *(arm.name for arm in arms.SWEEP)},
        "adapters": {"posthoc_lora"},
    }
    recipes = {kind: {by_name(name).recipe for name in names} for kind, names in kinds.items()}
    assert set().union(*kinds.values()) == {arm.name for arm in ALL}
    assert all(len(found) == 1 for found in recipes.values()) and len(set().union(*recipes.values())) == len(kinds)

    def common(arm: arms.Arm) -> config.TrainConfig:
        found = settings(arm, Path("work"))
        return dataclasses.replace(
            found,
            model=dataclasses.replace(found.model, path=""),
            data=dataclasses.replace(found.data, sources={}, length_multiple=arms.ROW),
            lora=config.LoraSettings(),
            optimizer=dataclasses.replace(found.optimizer, learning_rate=0.0, epochs=0.0),
        )

    assert all(common(arm) == common(ALL[0]) for arm in ALL)


@pytest.mark.parametrize("arm", ALL, ids=lambda a: a.name)
def test_config_says_the_recipe(arm: arms.Arm) -> None:
    found = settings(arm, Path("work"), seed=7)
    assert found.seed == 7
    assert (found.optimizer.learning_rate, found.optimizer.epochs) == (arm.recipe.learning_rate, arm.recipe.epochs)
    assert found.lora.rank == arm.recipe.lora_rank and bool(found.lora.rank) == (arm.name == "posthoc_lora")


def test_posthoc_takes_two_and_a_half_helpful_conversations_per_safety_record() -> None:
    """The paper's 5,000 helpful conversations to 2,000 of VLGuard."""
    sizes = world.Sizes()
    for name in ("posthoc", "posthoc_lora"):
        sources = arms.train_config(by_name(name), Path("work"), 0, sizes).data.sources
        assert sources["train"].count == sum(sizes.train)
        assert sources["helpful"].count / sources["train"].count == 2.5
        assert sources["helpful"].path == str(Path("work/world/mix.json"))
        assert sources["helpful"].count < sizes.mix
    assert set(settings(by_name("posthoc_vlguard_only"), Path("work")).data.sources) == {"train"}
    assert set(settings(by_name("mixed"), Path("work")).data.sources) == {"mix", "train"}


@pytest.mark.parametrize(
    ("name", "share"), [("posthoc_0", 0), ("posthoc_5", 0.05), ("posthoc_25", 0.25), ("posthoc", 1)]
)
def test_sweep_varies_the_safety_set_alone(name: str, share: float, folder: Path) -> None:
    found = settings(by_name(name), folder)
    made, whole = (stand.mixture(each.data, folder) for each in (found, settings(by_name("posthoc"), folder)))
    names = made.index.source_names
    assert sum(names[i] == "train" for i in made.index.source) == round(share * sum(stand.SMALL.train))
    helpful, all_helpful = (
        [m.index.ids[i] for i in range(len(m.index)) if m.source(i).name == "helpful"] for m in (made, whole)
    )
    assert helpful == all_helpful and len(helpful) == round(2.5 * sum(stand.SMALL.train))
