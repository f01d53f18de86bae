"""The arms of the real-model run: settings that resolve, tuning and test questions apart."""

import pathlib
import subprocess
import sys

import pytest

from vlguard_jax import errors
from vlguard_jax.real import arms as arms_lib
from vlguard_jax.real import story as story_lib
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry

SIZES = arms_lib.Sizes()


@pytest.fixture
def benchmarks(tmp_path: pathlib.Path) -> pathlib.Path:
    """Stand-ins where the official files are expected."""
    for asked in arms_lib.ASKED:
        made = registry.get(asked.benchmark).stand_in
        assert made is not None
        made((tmp_path / asked.file).parent)
    return tmp_path


def asked_of(items: str, benchmarks: pathlib.Path) -> dict[str, list[str]]:
    place = arms_lib.Place(pathlib.Path("runs"), items)
    found: dict[str, list[str]] = {}
    for name, config in arms_lib.eval_configs("posthoc", place, benchmarks, SIZES).items():
        for item in benchmark_lib.select(registry.get(name), config.benchmark):
            found.setdefault(item.subset, []).append(item.id)
    return found


def test_as_many_prompts_as_the_smallest_set_has_can_be_asked(benchmarks: pathlib.Path) -> None:
    """XSTest has 200 unsafe questions, 50 of which are the tuning ones: 150 as the flag's range says."""
    place = arms_lib.Place(pathlib.Path("runs"), "test")
    sizes = arms_lib.Sizes(prompts=150)
    for name, config in arms_lib.eval_configs("posthoc", place, benchmarks, sizes).items():
        assert len(benchmark_lib.select(registry.get(name), config.benchmark)) % 150 == 0
    told = subprocess.run([sys.executable, "-m", "vlguard_jax.real", "--prompts=151"], capture_output=True, text=True)
    assert told.returncode == 2 and "--prompts=151: must be a whole number from 1 to 150" in told.stderr


def test_tuning_questions_are_none_of_the_test(benchmarks: pathlib.Path) -> None:
    test, tuning = asked_of("test", benchmarks), asked_of("tuning", benchmarks)
    assert list(test) == [subset for asked in arms_lib.ASKED for subset in asked.subsets] == list(tuning)
    for subset, ids in test.items():
        assert len(ids) == SIZES.prompts and len(tuning[subset]) == arms_lib.TUNING
        assert not set(ids) & set(tuning[subset])
    assert test["advbench_vanilla"] == test["advbench_suffix"]


def test_arms_differ_in_their_data_alone() -> None:
    place = arms_lib.Place(pathlib.Path("runs"), "test", 3)
    made = {arm.name: arms_lib.train_config(arm, place, SIZES) for arm in (*arms_lib.ARMS, *arms_lib.SWEEP)}
    counts = {name: {kind: one.count for kind, one in c.data.sources.items()} for name, c in made.items()}
    assert counts == {
        "safety_only": {"safety": 200},
        "posthoc": {"safety": 200, "helpful": 300},
        "safety_only_lora": {"safety": 200},
        "posthoc_lora": {"safety": 200, "helpful": 300},
        "posthoc_0": {"helpful": 300},
        "posthoc_10": {"safety": 20, "helpful": 300},
        "posthoc_33": {"safety": 66, "helpful": 300},
    }
    assert len({c.optimizer for name, c in made.items() if "lora" not in name}) == 1
    assert {c.seed for c in made.values()} == {3} and made["posthoc_lora"].lora.rank == 16


def test_answers_are_withheld_and_compared_with_the_base() -> None:
    place = arms_lib.Place(pathlib.Path("runs"), "test", 3)
    for name, config in arms_lib.eval_configs("posthoc", place, pathlib.Path("files"), SIZES).items():
        assert config.withhold_text and config.judges == arms_lib.JUDGES
        assert config.baseline == f"runs/test/base/eval/{name}"


def test_a_share_that_is_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    """10 % of 4 conversations would be the arm without any, under another name."""
    story = story_lib.Story(arms_lib.Sizes(safety=4), (*arms_lib.ARMS, *arms_lib.SWEEP))
    with pytest.raises(errors.UserError, match="--safety=4: 10 % of it, as in posthoc_10, is none"):
        story_lib.check(tmp_path / "run", story, story_lib.Files(tmp_path, tmp_path))
    assert not (tmp_path / "run").exists()
