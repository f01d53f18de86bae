"""Adapters that peft makes, each kind on each family: our logits are peft's, adapters apart and merged; and
adapters of ours that peft loads."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import warnings

import numpy as np
import peft
import pytest

from tests.checkpoints import tiny
from tests.parity import peft_oracle
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.families.blocks import configs

pytestmark = pytest.mark.parity
TOLERANCE, SEEN = 1e-5, 1e-3  # of logits; what an adapter changes in them at least


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind in peft_oracle.MODELS:
        peft_oracle.base(kind, folder / kind)
    return folder


def compare(folder: pathlib.Path, base: pathlib.Path, theirs: object, *, apart: bool) -> None:
    """What lies in `folder`, on `base`, is the model `theirs` of peft."""
    ours = load.load(folder, base=str(base))
    assert (ours.lora is not None) is apart
    asked = peft_oracle.ask(ours)
    expected = asked.theirs(theirs)
    before = asked.ours(load.load(base))
    assert np.abs(expected - before).max() > SEEN
    np.testing.assert_allclose(asked.ours(ours), expected, rtol=0, atol=TOLERANCE)
    merged = lora.merge(ours)
    np.testing.assert_allclose(asked.ours(merged), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "case"),
    [pytest.param(*one, marks=pytest.mark.more) if one[0] == "llama" else one for one in peft_oracle.ALL],
)
def test_every_case(bases: pathlib.Path, tmp_path: pathlib.Path, kind: str, case: str) -> None:
    """Also every weight of the merged model, padding of the vocabulary included, as merge_and_unload has it."""
    theirs = peft_oracle.make(kind, case)
    theirs.save_pretrained(tmp_path / "adapter")
    apart = (peft_oracle.CASES | peft_oracle.SEEING)[case][0]
    compare(tmp_path / "adapter", bases / kind, theirs, apart=apart)
    merged = load.load(tiny.save(theirs.merge_and_unload(), tmp_path / "merged", "pretrained"))
    ours = lora.merge(load.load(tmp_path / "adapter", base=str(bases / kind)))
    expected, found = trees.flatten(merged.params), trees.flatten(ours.params)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=1e-6, err_msg=path)
    for path, value in merged.extras.get("padding", {}).items():
        np.testing.assert_allclose(ours.extras["padding"][path], value, rtol=0, atol=1e-6, err_msg=path)


def hub(name: str) -> str:
    """Of transformers before 4.52."""
    return "base_model.model." + tiny.hub_name(name.removeprefix("base_model.model."))


def of_4_52(name: str) -> str:
    """With the tower's inner model."""
    return name.replace("model.vision_tower.", "model.vision_tower.vision_model.")


def in_memory(name: str) -> str:
    """With the adapter's name."""
    name = re.sub(r"\.(lora_[AB])\.weight$", r".\1.default.weight", name)
    name = re.sub(r"\.(lora_embedding_[AB])$", r".\1.default", name)
    name = re.sub(r"\.lora_magnitude_vector$", ".lora_magnitude_vector.default.weight", name)
    return name if "lora_" in name else re.sub(r"(multi_modal_projector)\.", r"\1.modules_to_save.default.", name)


@pytest.mark.parametrize("change", [hub, of_4_52, in_memory])
@pytest.mark.parametrize(
    ("kind", "case"),
    [
        *(("llava", case) for case in ("regex", "DoRA", "bias of LoRA", "projector", "embeddings")),
        ("llava_next", "DoRA"),
    ],
)
def test_every_naming_generation(bases: pathlib.Path, tmp_path: pathlib.Path, kind: str, case: str, change) -> None:
    """And a file of torch, as older versions wrote it."""
    theirs = peft_oracle.make(kind, case)
    theirs.save_pretrained(tmp_path)
    peft_oracle.renamed(tmp_path, change, torch_file=change is hub)
    compare(tmp_path, bases / kind, theirs, apart=(peft_oracle.CASES | peft_oracle.SEEING)[case][0])


@pytest.mark.parametrize("layout", ["llava", "hf", "orbax"])
@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_a_base_in_another_layout(bases: pathlib.Path, tmp_path: pathlib.Path, kind: str, layout: str) -> None:
    writers = {"llava": save.save_llava, "hf": save.save_hf, "orbax": save.save_orbax}
    writers[layout](load.load(bases / kind), tmp_path / "base")
    for case in ("all-linear", "DoRA", "projector"):
        theirs = peft_oracle.make(kind, case)
        theirs.save_pretrained(tmp_path / case)
        compare(tmp_path / case, tmp_path / "base", theirs, apart=case != "DoRA")


def trained(model: checkpoint.Checkpoint, *, projector: bool) -> checkpoint.Checkpoint:
    """The model with random adapters and, if it is asked for, another projector and newline."""
    rng = np.random.default_rng(7)
    settings = configs.LoraConfig(3, 5 * 3**0.5, 0.05, ("q_proj", "o_proj", "up_proj"))
    flat = dict(trees.flatten(model.params))
    for path, shape in layouts.tree_shapes(model.config, settings).items():
        if ".lora_" in path or (projector and path.startswith(("projector.", "image_newline"))):
            flat[path] = flat.get(path, 0) + 0.1 * rng.normal(size=shape).astype(np.float32)
    return dataclasses.replace(model, params=trees.unflatten(flat), lora=settings)


@pytest.mark.parametrize("names", ["hub", "memory"])
@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("kind", list(peft_oracle.MODELS))
def test_peft_loads_what_was_written(tmp_path: pathlib.Path, kind: str, projector: bool, names: str) -> None:
    """Without a word about keys, with the adapters on the decoder alone, and with our logits; merged by it, too."""
    base = peft_oracle.base(kind, tmp_path / "base", names)
    ours = trained(load.load(base), projector=projector)
    save_adapters.save_peft_hf(ours, tmp_path / "lora")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("error", UserWarning)
        theirs = peft.PeftModel.from_pretrained(
            type(peft_oracle.MODELS[kind]()).from_pretrained(base), tmp_path / "lora"
        )
    adapted = {name for name, module in theirs.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)}
    assert len(adapted) == 2 * 3 and all(re.search(r"\.layers\.[01]\.(self_attn|mlp)\.", name) for name in adapted)
    assert not any("vision_tower" in name for name in adapted)
    asked = peft_oracle.ask(ours)
    expected = asked.theirs(theirs.eval())
    assert np.abs(expected - asked.ours(load.load(base))).max() > SEEN
    np.testing.assert_allclose(asked.ours(ours), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(asked.theirs(theirs.merge_and_unload()), expected, rtol=0, atol=TOLERANCE)
    again = load.load(tmp_path / "lora")
    np.testing.assert_array_equal(asked.ours(again), asked.ours(ours))
