"""Adapters of PEFT on a model: what is computed, what stays apart, and files that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.checkpoints import made
from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.families.blocks import configs

DECODER, TOWER = "model.language_model.layers.{}.", "model.vision_tower.encoder.layers.{}."
SIZES = {"q_proj": (8, 8), "v_proj": (8, 4), "down_proj": (12, 8)}  # (inputs, outputs) in the decoder of made.model
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("base") / "hf"
    save.save_hf(made.model(), folder)
    return folder


def drawn(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pair(module: str, n_in: int, n_out: int, rank: int = 2, seed: int = 0) -> Arrays:
    """The two matrices of one module."""
    stem = f"base_model.model.{module}.lora_"
    return {
        f"{stem}A.weight": drawn(rank, n_in, seed=2 * seed),
        f"{stem}B.weight": drawn(n_out, rank, seed=2 * seed + 1),
    }


def decoder(name: str, rank: int = 2, layers: tuple[int, ...] = (0, 1)) -> Arrays:
    where = "mlp" if name == "down_proj" else "self_attn"
    made_ = [pair(f"{DECODER.format(i)}{where}.{name}", *SIZES[name], rank, i) for i in layers]
    return {key: value for arrays in made_ for key, value in arrays.items()}


def write(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], **config: Any) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    safetensors.numpy.save_file(dict(arrays), folder / "adapter_model.safetensors")
    return folder


def product(arrays: Arrays, module: str) -> np.ndarray:
    """B @ A, [out, in]."""
    stem = f"base_model.model.{module}.lora_"
    return arrays[f"{stem}B.weight"].astype(np.float64) @ arrays[f"{stem}A.weight"].astype(np.float64)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_what_the_network_computes_stays_apart(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """rsLoRA is another alpha."""
    arrays = decoder("q_proj") | decoder("down_proj")
    config = {"target_modules": r".*language_model.*\.(q|down)_proj", "use_rslora": True, "lora_dropout": 0.1}
    found = load.load(write(tmp_path / "lora", arrays, **config), base=str(base))
    assert found.lora == configs.LoraConfig(2, 6 * 2**0.5, 0.1, ("q_proj", "down_proj"))
    assert found.base is not None and found.base.name == str(base)
    assert "holds no projector" in found.extras["note"] and "merged" not in found.extras["note"]
    flat = trees.flatten(lora.merge(found).params)
    before = trees.flatten(load.load(base).params)
    for i in range(2):
        added = 6 / 2**0.5 * product(arrays, f"{DECODER.format(i)}self_attn.q_proj").T
        path = "text.layers.attention.q_proj.kernel"
        np.testing.assert_allclose(flat[path][i], before[path][i] + added, rtol=0, atol=2e-5)


def test_ranks_scales_and_magnitudes_of_their_own(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    arrays = decoder("q_proj", rank=3) | decoder("v_proj", layers=(1,))
    module = DECODER.format(1) + "self_attn.v_proj"
    config = {
        "target_modules": [f"{DECODER.format(i)}self_attn.q_proj" for i in (0, 1)] + [module],
        "rank_pattern": {"q_proj": 3},
        "alpha_pattern": {r"layers\.0\..*": 1},
    }
    before = trees.flatten(load.load(base).params)
    flat = load.load(write(tmp_path / "patterns", arrays, **config), base=str(base))
    assert flat.lora is None and flat.base is None
    assert "language model (several ranks or scales) are merged into the weights; training" in flat.extras["note"]
    q, v = (trees.flatten(flat.params)[f"text.layers.attention.{n}_proj.kernel"] for n in "qv")
    q_before, v_before = (before[f"text.layers.attention.{n}_proj.kernel"] for n in "qv")
    for i, scale in ((0, 1 / 3), (1, 6 / 3)):
        close(q[i], q_before[i] + scale * product(arrays, f"{DECODER.format(i)}self_attn.q_proj").T)
    np.testing.assert_array_equal(v[0], v_before[0])
    close(v[1], v_before[1] + 3 * product(arrays, module).T)

    magnitude = drawn(4, seed=9)
    dora = pair(module, *SIZES["v_proj"]) | {f"base_model.model.{module}.lora_magnitude_vector": magnitude}
    found = load.load(write(tmp_path / "dora", dora, target_modules=[module], use_dora=True), base=str(base))
    assert "language model (DoRA) are merged" in found.extras["note"]
    with pytest.raises(
        errors.UserError, match="has no LoRA adapters that stay apart: they are merged into its weights"
    ):
        save.check(found, "peft-hf")
    w = v_before[1].T.astype(np.float64) + 3 * product(dora, module)
    expected = magnitude[:, None] * w / np.sqrt((w**2).sum(1, keepdims=True))
    close(trees.flatten(found.params)["text.layers.attention.v_proj.kernel"][1], expected.T)


def test_only_the_tower_s_are_merged(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """The model no longer stands on its base then: what peft would put onto the base is another one."""
    towers = [pair(f"{TOWER.format(i)}self_attn.q_proj", 6, 6, seed=i) for i in range(3)]
    arrays = decoder("q_proj") | {key: value for one in towers for key, value in one.items()}
    found = load.load(write(tmp_path / "both", arrays, target_modules=["q_proj"]), base=str(base))
    assert found.lora == configs.LoraConfig(2, 6.0, 0.0, ("q_proj",)) and found.base is None
    assert found.extras["note"].endswith(
        "adapters of the vision tower are merged into the weights; the others stay adapters"
    )
    before = trees.flatten(load.load(base).params)["vision.layers.attention.q_proj.kernel"]
    for i, value in enumerate(trees.flatten(found.params)["vision.layers.attention.q_proj.kernel"]):
        close(value, before[i] + 3 * product(arrays, f"{TOWER.format(i)}self_attn.q_proj").T)
    with pytest.raises(errors.UserError, match="cannot be named as the base"):
        save.check(found, "peft")


def test_modules_trained_in_full(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """A projector is part of what stands on the base; a head is not."""
    shapes = {"linear_1.weight": (8, 6), "linear_1.bias": (8,), "linear_2.weight": (8, 8), "linear_2.bias": (8,)}
    stem = "base_model.model.model.multi_modal_projector."
    projector = {stem + name: drawn(*shape, seed=5) for name, shape in shapes.items()}
    config = {"target_modules": r".*language_model.*q_proj", "modules_to_save": ["multi_modal_projector"]}
    found = load.load(write(tmp_path / "projector", decoder("q_proj") | projector, **config), base=str(base))
    assert found.lora is not None and found.base is not None and "note" not in found.extras
    flat = trees.flatten(found.params)
    np.testing.assert_array_equal(flat["projector.fc1.kernel"], projector[f"{stem}linear_1.weight"].T)
    np.testing.assert_array_equal(flat["projector.fc2.bias"], projector[f"{stem}linear_2.bias"])
    head = {"base_model.model.lm_head.weight": drawn(128, 8, seed=6)}
    config = {"target_modules": r".*language_model.*q_proj", "modules_to_save": ["lm_head"]}
    found = load.load(write(tmp_path / "head", decoder("q_proj") | head, **config), base=str(base))
    assert found.lora is not None and found.base is None
    np.testing.assert_array_equal(trees.flatten(found.params)["text.head.kernel"].T, *(w[:100] for w in head.values()))
    np.testing.assert_array_equal(found.extras["padding"]["text.head.kernel"], *(w[100:] for w in head.values()))


SHARED, HEAD_TOO = {"A": (2, 100), "B": (32, 2)}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}


@pytest.mark.parametrize("names", ["today", "hub"])
def test_a_language_model_trained_in_full(tmp_path: pathlib.Path, base: pathlib.Path, names: str) -> None:
    """Its head was within it in older versions and is not today."""
    stem, today, older = "base_model.model.", "model.language_model.", "language_model.model."
    text = {name: value + 1 for name, value in tiny.read_all(base).items() if name.startswith(older)}
    arrays = {stem + name.replace(older, today): value for name, value in text.items()}
    tower = TOWER
    if names == "hub":
        tower = "vision_tower.vision_model.encoder.layers.{}."
        arrays = {stem + name: value for name, value in text.items()}
        arrays[f"{stem}language_model.lm_head.weight"] = drawn(128, 8, seed=6)
    arrays |= {k: v for i in range(3) for k, v in pair(f"{tower.format(i)}mlp.fc1", 6, 10).items()}
    config = {"target_modules": ["fc1"], "modules_to_save": ["language_model"]}
    found = load.load(write(tmp_path / "lora", arrays, **config), base=str(base))
    flat, before = trees.flatten(found.params), trees.flatten(load.load(base).params)
    for path, value in before.items():
        if path.startswith("text.") and path != "text.head.kernel":
            np.testing.assert_array_equal(flat[path], value + 1, err_msg=path)
    assert np.array_equal(flat["text.head.kernel"], before["text.head.kernel"]) is (names == "today")


Q, Q_ONLY = decoder("q_proj"), {"target_modules": r".*language_model.*q_proj"}
FIRST = DECODER.format(0) + "self_attn.q_proj"
OF_FIRST = {key: value for key, value in Q.items() if "layers.0" in key}


@pytest.mark.parametrize(
    ("arrays", "config", "message"),
    [
        (Q | pair("model.language_model.layers.2.self_attn.q_proj", 8, 8), Q_ONLY, "a module that the base does not"),
        (Q | pair("model.language_model.layers.0.self_attn.qkv", 8, 8), Q_ONLY, r"qkv\.lora_A.* base does not have"),
        (Q, {"target_modules": ["q_proj"]}, r"missing tensor .*vision_tower.*target_modules of"),
        (Q, {"target_modules": r".*language_model.*[qk]_proj"}, r"missing tensor .*k_proj.*: target_modules of"),
        (
            Q,
            {"target_modules": r".*layers\.0.*q_proj"},
            r"layers\.1\.self_attn\.q_proj has adapters, but .*as a target",
        ),
        (Q, {**Q_ONLY, "r": 3}, r"\[2, 8\] is not of rank 3, which .*adapter_config\.json gives to it"),
        (Q, {**Q_ONLY, "rank_pattern": {"q_proj": 4}}, "is not of rank 4"),
        (Q, {**Q_ONLY, "use_dora": True}, "has no lora_magnitude_vector"),
        (Q, {**Q_ONLY, "modules_to_save": ["lm_head"]}, r"missing tensor .*lm_head\.weight: modules_to_save of"),
        (Q, {**Q_ONLY, "modules_to_save": ["visual"]}, "modules_to_save names 'visual', which the base lacks"),
        (Q, {**Q_ONLY, "bias": "all"}, r"missing tensor .*bias: bias of .*names it"),
        (
            Q | {"base_model.model.lm_head.bias": drawn(128, seed=0)},
            Q_ONLY,
            "is of a module that the base does not have",
        ),
        (
            Q | {f"base_model.model.{FIRST}.base_layer.bias": drawn(8, seed=0)},
            {**Q_ONLY, "bias": "lora_only"},
            r"base_layer\.bias \[8\] is of a module that the base does not have",
        ),
        (
            Q | {f"base_model.model.{DECODER.format(0)}input_layernorm.weight": drawn(8, seed=0)},
            Q_ONLY,
            "input_layernorm.weight is neither an adapter nor in modules_to_save or bias",
        ),
        (
            pair(FIRST, 16, 8) | {k: v for k, v in Q.items() if k not in OF_FIRST},
            Q_ONLY,
            r"of another base: .*lora_A.* is \[2, 16\], and \[2, 8\] fits",
        ),
        (
            {name.replace(".weight", ".one.weight"): value for name, value in Q.items()} | Q,
            Q_ONLY,
            "duplicate tensor .*another adapter of the same module",
        ),
        (
            {name.replace("model.model.language_model", "model.language_model.model"): v for name, v in Q.items()} | Q,
            Q_ONLY,
            "duplicate adapters: .* are the same module",
        ),
        (
            {name.removeprefix("base_model.model."): value for name, value in Q.items()},
            Q_ONLY,
            "names of peft begin with",
        ),
        (OF_FIRST, {"target_modules": [FIRST], "use_dora": True, "bias": "none"}, "has no lora_magnitude_vector"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: pathlib.Path, base: pathlib.Path, arrays: Arrays, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.UserError, match=message) as error:
        load.load(write(tmp_path / "lora", arrays, **config), base=str(base))
    assert "\n" not in str(error.value)


def test_a_base_that_was_exported(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """Rows beyond the vocabulary, too. As a base it is named by what it was exported from, if it is still that."""
    head = {"base_model.model.lm_head.weight": drawn(128, 8, seed=6)}
    config = {"target_modules": r".*language_model.*q_proj", "modules_to_save": ["lm_head"]}
    save.save_orbax(load.load(base), tmp_path / "orbax")
    for name, arrays, settings in (("lora", Q, Q_ONLY), ("head", Q | head, config)):
        adapter = write(tmp_path / name, arrays, **settings)
        found = load.load(adapter, base=str(tmp_path / "orbax"))
        expected = load.load(adapter, base=str(base))
        tiny.assert_same_model(found, expected)
        tiny.assert_same_arrays(found.extras["padding"], expected.extras["padding"])
        assert found.base == expected.base and (found.base is None) is (name == "head")
    save.save_orbax(load.load(tmp_path / "lora", base=str(base)), tmp_path / "adapted")
    with pytest.raises(errors.UserError, match="adapted: a base with adapters of its own; merge them first"):
        load.load(tmp_path / "lora", base=str(tmp_path / "adapted"))


def test_a_config_of_the_base_beside_the_adapters(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """As some trainers leave it; it has to be the base's."""
    adapter = write(tmp_path / "lora", Q, **Q_ONLY)
    expected = load.load(adapter, base=str(base))
    (adapter / "config.json").write_text((base / "config.json").read_text())
    tiny.assert_same_model(load.load(adapter, base=str(base)), expected)
    text = json.loads((base / "config.json").read_text())["text_config"]
    tiny.change_json(adapter / "config.json", text_config=text | {"rms_norm_eps": 0.5})
    with pytest.raises(errors.UserError, match=r"config\.json: norm_eps is 0\.5, and 1e-05 in the base .*hf; name the"):
        load.load(adapter, base=str(base))
    (adapter / "config.json").write_text(json.dumps(text))
    with pytest.raises(errors.UserError, match=r"config\.json: is of llama, and the base .*hf is a llava model"):
        load.load(adapter, base=str(base))


def test_another_base(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """What is merged is compared with the tensor that it changes."""
    arrays = pair(FIRST, 16, 8)
    with pytest.raises(errors.UserError, match=r"these adapters are of another base: .*\[2, 16\], and \[2, 8\] fits"):
        load.load(write(tmp_path / "lora", arrays, target_modules=[FIRST]), base=str(base))


def test_a_base_whose_head_is_its_embedding(tmp_path: pathlib.Path) -> None:
    """What changes one of them needs a base that has both; merged by peft, it would change the other."""
    model = tiny.llama(tie_word_embeddings=True)
    stem = "base_model.model."
    targets = {"target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["q_proj", "embed_tokens"]}
    query = pair("model.layers.0.self_attn.q_proj", 32, 32) | pair("model.layers.1.self_attn.q_proj", 32, 32)
    embedding = {f"{stem}model.embed_tokens.lora_embedding_{k}": drawn(*s, seed=1) for k, s in SHARED.items()}
    cases = (
        (query | pair("lm_head", 32, 100), targets[0], "change the head"),
        (query | embedding, targets[1], "change the embedding"),
        (query | {f"{stem}lm_head.weight": drawn(100, 32, seed=3)}, HEAD_TOO, "change the head"),
    )
    tied = tiny.save(model, tmp_path / "tied", "pretrained")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    apart = tiny.save(model, tmp_path / "apart", "pretrained")
    for i, (arrays, config, message) in enumerate(cases):
        adapter = write(tmp_path / str(i), arrays, **config)
        with pytest.raises(errors.UserError, match=rf"{message}, and .*lm_head\.weight a copy .* name it as base"):
            load.load(adapter, base=str(tied))
        assert load.load(adapter, base=str(apart)).lora is not None


def test_targets_that_the_base_lacks(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """Also beside others; peft says nothing then, and the adapters may be of another model."""
    targets = [f"{DECODER.format(i)}self_attn.q_proj" for i in (0, 1)]
    load.load(write(tmp_path / "lora", Q, target_modules=targets), base=str(base))
    for name in ("W_pack", "layers.7.self_attn.q_proj"):
        adapter = write(tmp_path / "lora", Q, target_modules=[*targets, name])
        with pytest.raises(
            errors.UserError, match=rf"adapter_config\.json: target_modules names '{name}', which the base"
        ):
            load.load(adapter, base=str(base))


def test_a_folder_of_several_adapters(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    """As peft saves adapters with names, and trainers their checkpoints."""
    for name in ("safe", "helpful"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, Q, **Q_ONLY)
    with pytest.raises(
        errors.UserError, match=r"no config\.json or adapter_config\.json; name one of 'helpful, safe' in"
    ):
        load.load(tmp_path, base=str(base))


def test_a_base_that_is_not_here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    adapter = write(tmp_path / "lora", Q, **Q_ONLY, base_model_name_or_path="some/model")
    with pytest.raises(errors.UserError, match=r"some/model: no such folder here .*adapter_config\.json .*as base"):
        load.load(adapter)
