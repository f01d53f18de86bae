"""checkpoint.json of an exported model: what it says is compared with what it says elsewhere, and with the arrays."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
import pathlib
import random
from typing import Any

import hypothesis
from hypothesis import strategies as st
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.checkpoints import made
from tests.faults import documents
from tests.faults import exports
from vlguard_jax import errors
from vlguard_jax.checkpoints import describe
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save

pytestmark = pytest.mark.usefixtures("without_manifests")


def write(folder: pathlib.Path, record: dict[str, Any]) -> pathlib.Path:
    (folder / export_record.RECORD).write_text(json.dumps(record))
    return folder


def test_a_sound_record(tmp_path: pathlib.Path) -> None:
    found = export_record.read(write(tmp_path, exports.record()))
    assert (found.config, found.lora) == (exports.CONFIG, exports.LORA)
    assert found.base is not None and found.base.name == "base" and found.extras["source"] == "somewhere"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("weights_sha256",), "f" * 64, r"weights_sha256 'f+' is not that of its arrays"),
        (("arrays", "text.norm.scale"), 7, r"the hash of text\.norm\.scale is 7"),
        (("arrays", "other"), "0" * 64, "array 'other' does not belong to a model of its sizes"),
        (("arrays",), {}, "is missing in its arrays"),
        (("arrays",), [], "arrays=.* must be an object"),
        (("family",), None, "model family '' is unknown"),
        (("family",), "lava", "model family 'lava' is unknown; did you mean 'llava'"),
        (("family",), "llama", "'vision' is unknown; known: text"),
        (("family",), ["llava"], "family=.* must be a printable text"),
        (("config",), None, "vocab_size is missing"),
        (("config", "text", "width"), 8.0, r"width=8\.0 must be a whole number"),
        (("config", "text", "num_layers"), 10**9, "num_layers=1000000000 must be a whole number from 1 to 1,024"),
        (("config", "text", "norm_eps"), 0, "norm_eps=0 must be a number from"),
        (("config", "text", "tie_embeddings"), "false", "tie_embeddings='false' must be true or false"),
        (("config", "text", "surprise"), 1, "'surprise' is unknown"),
        (("config", "text", "rope_scaling", "factor"), -1, "factor=-1 must be a number"),
        (("config", "text", "num_kv_heads"), 3, "do not fit together"),
        (("config", "vision", "feature_layer"), 9, "feature_layer=9 must be one of the tower's 3 layers"),
        (("config", "vision", "image_mean"), [0.5], "image_mean=.* must be 3 numbers"),
        (("config", "vision", "image_std"), [0, 1, 1], "image_std=.* must be 3 numbers"),
        (("config", "projector"), None, "projector=None is not supported"),
        (("lora", "targets"), ["x"], "targets=.* must be a list out of"),
        (("lora", "rank"), True, "rank=True must be a whole number"),
        (("base", "name"), ["a"], "name=.* must be a printable text"),
        (("base",), "a", "base='a' must be an object"),
        (("extras", "config"), [], "extras: 'config' is an empty list"),
        (("extras", "config"), None, "extras: 'config' is null"),
        (("extras", "generation_config"), None, "extras: 'generation_config' is null"),
        (("extras", "kind"), None, "extras: 'kind' is null"),
        (("extras", "config", "text_config"), [1], "text_config=.* must be an object"),
        (("extras", "provenance", "stand_in"), "no", "stand_in='no' must be true or false"),
        (("extras", "padding"), {}, "extras: 'padding' is"),
        (("kind",), ["x" * 9000], "an exported model was expected"),
    ],
)
def test_values_that_cannot_be(tmp_path: pathlib.Path, path: tuple[str, ...], value: Any, message: str) -> None:
    record = exports.record()
    above = record
    for key in path[:-1]:
        above = above[key]
    above[path[-1]] = value
    with pytest.raises(errors.UserError, match=message):
        export_record.read(write(tmp_path, record))
    with pytest.raises(errors.UserError, match=message):
        describe.describe(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("family",), "model family '' is unknown; known: llama, llava"),
        (("config", "projector"), "projector is missing"),
        (("config", "text"), "vocab_size is missing"),
        (("config", "text", "rope_scaling", "kind"), "kind is missing"),
        (("config", "vision"), "image_size is missing"),
        (("config", "vision", "activation"), "activation is missing"),
        (("lora", "alpha"), "alpha is missing"),
    ],
)
def test_what_is_left_out(tmp_path: pathlib.Path, path: tuple[str, ...], message: str) -> None:
    record = exports.record()
    above = record
    for key in path[:-1]:
        above = above[key]
    del above[path[-1]]
    with pytest.raises(errors.UserError, match=rf"^{tmp_path}/checkpoint\.json: {message}"):
        export_record.read(write(tmp_path, record))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.randoms(use_true_random=False))
def test_any_record_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rng: random.Random) -> None:
    folder = tmp_path_factory.mktemp("record")
    (folder / export_record.RECORD).write_bytes(documents.change(rng, exports.record())[1])
    try:
        exports.read(folder)
    except errors.UserError as e:
        assert str(folder) in str(e) and "\n" not in str(e)


def _other_shapes(folder: pathlib.Path) -> None:
    record = json.loads((folder / export_record.RECORD).read_text())
    record["config"]["text"]["mlp_width"] = 14
    write(folder, record)


def _other_arrays(folder: pathlib.Path) -> None:
    with ocp.StandardCheckpointer() as writer:
        writer.save((folder / "arrays").absolute(), {"params": {"text": {"norm": {"scale": np.ones(8)}}}}, force=True)


def _more_arrays(folder: pathlib.Path) -> None:
    tree = {"params": made.model().params, "padding": {"text": {"norm": {"scale": np.ones(8, np.float32)}}}}
    with ocp.StandardCheckpointer() as writer:
        writer.save((folder / "arrays").absolute(), tree, force=True)


def _no_record_of_arrays(folder: pathlib.Path) -> None:
    (folder / "arrays/_METADATA").write_text("[" * 5000)


def _pipe(folder: pathlib.Path) -> None:
    os.mkfifo(folder / "arrays/pipe")


def _device(folder: pathlib.Path) -> None:
    (folder / "arrays/manifest.ocdbt").unlink()
    (folder / "arrays/manifest.ocdbt").symlink_to("/dev/zero")


def _not_finite(folder: pathlib.Path) -> None:
    tree = made.model().params
    tree["text"]["norm"]["scale"][3] = np.nan
    with ocp.StandardCheckpointer() as writer:
        writer.save((folder / "arrays").absolute(), {"params": tree}, force=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _other_shapes,
            r"arrays: array text\.layers\.mlp\.(down|gate|up)_proj\.kernel: \[2, .*14.*\] expected,"
            r" \[2, .*12.*\] found",
        ),
        (_other_arrays, "arrays: array .*: unknown or missing"),
        (_more_arrays, r"arrays: array padding\.text\.norm\.scale: unknown or missing"),
        (_no_record_of_arrays, "arrays: damaged, export the model again"),
        (_pipe, "arrays/pipe: not a file, and Orbax writes only files"),
        (_device, r"arrays/manifest\.ocdbt: not a file"),
        (_not_finite, r"text\.norm\.scale holds nan, and weights are finite numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: pathlib.Path, change: Callable[[pathlib.Path], None], message: str) -> None:
    save.save_orbax(made.model(), tmp_path / "a")
    change(tmp_path / "a")
    with pytest.raises(errors.UserError, match=message):
        load.load(tmp_path / "a")
