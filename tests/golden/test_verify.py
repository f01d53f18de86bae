"""`verify`: a golden folder of transformers' own making, and checkpoints of the same and of other weights beside it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.families.chat import test_choice
from tests.golden import reference
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import load
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.training import setup
from vlguard_jax.verifying import compare
from vlguard_jax.verifying import golden as golden_lib
from vlguard_jax.verifying import hugging_face

pytestmark = pytest.mark.parity


@dataclasses.dataclass(frozen=True)
class Made:
    """A llava-hf folder with a chat template, and what transformers makes of it."""

    source: pathlib.Path
    golden: golden_lib.Golden


@pytest.fixture(scope="module")
def made(golden: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("verified")
    shutil.copytree(golden / "llava-hf-mha", top / "hf", copy_function=shutil.copyfile)
    (top / "hf").chmod(0o755)
    (top / "hf" / "chat_template.json").write_text(json.dumps({"chat_template": test_choice.PICTURED}))
    found = hugging_face.make(str(top / "hf"), top / "golden")
    with pytest.raises(errors.UserError, match="golden is there already"):
        hugging_face.make(str(top / "hf"), top / "golden")
    return Made(top / "hf", found)


def _holds(model: checkpoint_lib.Checkpoint, made: Made, dtype: str = "fp32") -> dict[str, compare.Stage]:
    return {one.name: one for one in compare.compare(model, made.golden, dtype, jinja_template.DATE)}


def test_the_folder_itself(made: Made) -> None:
    assert {one.asked.pictures for one in made.golden.answers} == {0, 1}
    assert all(one.asked.templated for one in made.golden.answers)
    assert made.golden.record.files["config.json"].sha256 == golden_lib.digest(made.source / "config.json")
    stages = _holds(load.load(made.source), made)
    assert list(stages) == ["prompt", "ids", "pixels", "features", "logits", "answers"]
    assert all(one.holds for one in stages.values()), stages


def test_the_same_weights_in_another_layout(golden: pathlib.Path, made: Made) -> None:
    (tower,) = (golden / "vision_tower").iterdir()
    stages = _holds(load.load(golden / "liuhaotian-mha", vision_tower=str(tower)), made)
    assert stages["prompt"].holds is None and "has no chat template" in stages["ids"].why
    assert all(stages[name].holds for name in ("pixels", "features", "logits", "answers")), stages


def test_sixteen_bits_have_their_own_bounds(made: Made) -> None:
    stages = _holds(load.load(made.source), made, "bf16")
    assert all(one.holds for one in stages.values()), stages
    assert float(stages["logits"].worst.split()[0]) > compare.BOUNDS["fp32"]


def test_another_weight_is_found(made: Made) -> None:
    model = load.load(made.source)
    flat = trees.flatten(model.params)
    id_ = next(id_ for id_ in flat if id_.startswith("text.layers.") and "mlp" in id_)
    changed = np.array(flat[id_])
    changed[1] *= 1.01
    stages = _holds(dataclasses.replace(model, params=trees.unflatten({**flat, id_: changed})), made)
    assert stages["features"].holds and not stages["logits"].holds
    assert stages["logits"].why.startswith("prompt text, place ")


def test_adapters_that_do_nothing_are_found(made: Made) -> None:
    model, lora = load.load(made.source), configs.LoraConfig(2, 4.0, 0.0)
    params = setup._with_adapters(model, lora, seed=0)
    stages = _holds(dataclasses.replace(model, params=params, lora=lora), made)
    assert stages["adapters"].holds is False and "change no logit" in stages["adapters"].why
    assert stages["logits"].holds and stages["answers"].holds
    flat = trees.flatten(params)
    moved = {id_: x + 0.1 if id_.endswith(".lora_b") else x for id_, x in flat.items()}
    stages = _holds(dataclasses.replace(model, params=trees.unflatten(moved), lora=lora), made)
    assert stages["adapters"].holds and not stages["logits"].holds


def test_another_model_is_refused(golden: pathlib.Path, made: Made) -> None:
    record = dataclasses.replace(made.golden.record, rows=made.golden.record.rows + 1)
    other = dataclasses.replace(made.golden, record=record)
    with pytest.raises(errors.UserError, match="they are of different models"):
        compare.compare(reference.load(golden, "liuhaotian-mha"), other, "fp32", jinja_template.DATE)
