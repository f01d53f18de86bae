"""Adapters that peft makes, each kind on each family: our logits are peft's, adapters apart and merged."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

from tests.checkpoints import tiny
from tests.parity import peft_oracle
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora

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


@pytest.mark.parametrize(("kind", "case"), peft_oracle.ALL)
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
@pytest.mark.parametrize("case", ["regex", "DoRA", "bias of LoRA", "projector", "embeddings"])
@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_every_naming_generation(bases: pathlib.Path, tmp_path: pathlib.Path, kind: str, case: str, change) -> None:
    """And a file of torch, as older versions wrote it."""
    theirs = peft_oracle.make(kind, case)
    theirs.save_pretrained(tmp_path)
    peft_oracle.renamed(tmp_path, change, torch_file=change is hub)
    compare(tmp_path, bases / kind, theirs, apart=(peft_oracle.CASES | peft_oracle.SEEING)[case][0])


@pytest.mark.parametrize("layout", ["llava", "hf"])
@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_a_base_in_another_layout(bases: pathlib.Path, tmp_path: pathlib.Path, kind: str, layout: str) -> None:
    from vlguard_jax.checkpoints import save

    {"llava": save.save_llava, "hf": save.save_hf}[layout](load.load(bases / kind), tmp_path / "base")
    for case in ("all-linear", "DoRA", "projector"):
        theirs = peft_oracle.make(kind, case)
        theirs.save_pretrained(tmp_path / case)
        compare(tmp_path / case, tmp_path / "base", theirs, apart=case != "DoRA")
