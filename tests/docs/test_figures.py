"""What the pages say of memory, time and price is what `plan --estimate` and `plan --sweep` say today."""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib

from ml_collections import config_dict
import pytest

from launch import pricing
from tests import source
from tests.docs import pages
from vlguard_jax.planning import estimate
from vlguard_jax.planning import run
from vlguard_jax.safety import presets
from vlguard_jax.training import recipes

MODEL = "liuhaotian/llava-v1.5-7b"
FULL = functools.partial(recipes.posthoc, MODEL, lora=False)
LORA = functools.partial(recipes.posthoc, MODEL, lora=True)
TEXT = functools.partial(recipes.posthoc, MODEL, lora=True, helpful="alpaca")
ASKED = functools.partial(presets.vlguard, "llava")
RELEASED = functools.partial(presets.vlguard, "released")


def planned(make: Callable[[], config_dict.ConfigDict], topology: str, **changes: object) -> estimate.Estimate:
    config = make()
    config.update_from_flattened_dict({path.replace("__", "."): value for path, value in changes.items()})
    settings = run.settings_of(config)
    return run.planner(settings, "7b")(settings, run.topology_of(topology))


def said(page: str) -> str:
    return (pages.DOCS / page).read_text()


def memory(found: estimate.Estimate) -> str:
    return f"{found.per_chip['peak_gib']:.2f} of {found.topology.chip.usable_gib:g}"


@pytest.mark.parametrize(
    ("page", "make", "topology"),
    [
        ("recipes/posthoc_tpu_vm.md", LORA, "v5e:2x4"),
        ("recipes/posthoc_tpu_vm.md", FULL, "v6e:2x4"),
        ("recipes/posthoc_gpu.md", FULL, "h100:8"),
        ("recipes/posthoc_gpu.md", LORA, "h100:1"),
    ],
)
def test_trainings(page: str, make: Callable[[], config_dict.ConfigDict], topology: str) -> None:
    found = planned(make, topology)
    assert found.fits and found.steps == 165
    assert f"{found.hours['total']:.2f} h, ${found.dollars:.2f}; {memory(found)}" in said(page)


@pytest.mark.parametrize(
    ("page", "make", "topology"),
    [
        ("recipes/posthoc_tpu_vm.md", ASKED, "v5e:2x4"),
        ("recipes/posthoc_tpu_vm.md", ASKED, "v6e:2x4"),
        ("recipes/posthoc_gpu.md", ASKED, "h100:8"),
        ("recipes/posthoc_gpu.md", ASKED, "h100:1"),
        ("recipes/published.md", RELEASED, "v6e:1x1"),
        ("recipes/published.md", RELEASED, "h100:1"),
        ("recipes/published.md", RELEASED, "v5e:2x2"),
    ],
)
def test_evaluations(page: str, make: Callable[[], config_dict.ConfigDict], topology: str) -> None:
    found = planned(make, topology)
    assert found.fits and found.answers
    hours = f"{found.answers.hours['total']:.2f} to {found.hours['total']:.2f} h"
    assert f"{hours}, ${found.answers.dollars:.2f} to ${found.dollars:.2f}" in said(page)


@pytest.mark.parametrize(
    ("page", "make", "topology", "every"),
    [
        ("recipes/posthoc_gpu.md", FULL, "h100:8", 50),
        ("recipes/posthoc_tpu_vm.md", LORA, "v5e:2x4", 25),
        ("recipes/posthoc_tpu_vm.md", FULL, "v6e:2x4", 25),
    ],
)
def test_trainings_as_the_pages_start_them(
    page: str, make: Callable[[], config_dict.ConfigDict], topology: str, every: int
) -> None:
    """The checkpoints on the way take a good part of the time."""
    found, text = planned(make, topology, run__save_every=every), " ".join(said(page).split())
    assert f"--config.run.save_every={every}" in text and f"Saved every {every} updates" in text
    assert f"{found.hours['total']:.2f} h, ${found.dollars:.2f}" in text


@pytest.mark.parametrize("page", ["recipes/posthoc_slurm.md", "recipes/posthoc_tpu_pod.md"])
def test_launch_files(page: str, tmp_path: pathlib.Path) -> None:
    """The job that stands on the page."""
    (file,) = (block for block in pages.blocks(said(page)) if block.title == "posthoc.toml")
    (tmp_path / "posthoc.toml").write_text(file.text)
    (job,) = pricing.price(tmp_path / "posthoc.toml")
    hours = f"trains in {job.hours('train'):.1f} h and evaluates in {job.hours('evaluate'):.1f} h"
    assert f"{hours}, ${job.dollars:.2f} to ${job.most_dollars:.2f}" in " ".join(said(page).split())


def test_what_fits_a_chip() -> None:
    vm, notebooks = said("recipes/posthoc_tpu_vm.md"), said("recipes/notebooks.md")
    assert not planned(FULL, "v5e:2x4").fits
    assert f"({planned(LORA, 'v5e:2x4', run__rows=8).per_chip['peak_gib']:.2f} GiB by formula)" in vm
    state = planned(FULL, "v6e:2x4")
    assert f"{state.per_chip['weights_gib']:.2f} + {state.per_chip['moments_gib']:.2f} GiB on each of 8 chips" in vm
    trained = planned(TEXT, "v5e:2x4")
    assert f"{memory(trained)} GiB a chip; {trained.hours['total']:.2f} h to train" in notebooks
    small = {"decode__batch_size": 3, "decode__kv_cache": "int8", "decode__reuse_gib": 0.0}
    for topology, changes in (("v6e:1x1", {}), ("v5e:1x1", small)):
        found = planned(RELEASED, topology, **changes)
        assert found.fits and f"{memory(found)} GiB" in notebooks
        assert f"{found.answers.hours['total']:.2f} to {found.hours['total']:.2f} h" in notebooks


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.more) for name in ("Table 1", "Table 2", "Table 3", "Table 14")),
        *("Table 4", "Table 13", "Figure 4", "Figure 5"),
    ],
)
def test_experiments(name: str) -> None:
    file = f"{name.lower().replace(' ', '')}.toml"
    jobs = pricing.price(source.ROOT / "launch" / "experiments" / file)
    assert f"{name} ${sum(job.dollars for job in jobs):,.0f}" in " ".join(said("paper.md").split())
