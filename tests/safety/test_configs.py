"""Every shipped config resolves; the released ones name their checkpoint and their row of the paper."""

import ast
import importlib.util
import re

import pytest

from tests import source
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import table
from vlguard_jax.safety import paper
from vlguard_jax.safety import paper_tables

CONFIGS = source.ROOT / "configs"
EVALUATIONS = sorted([*CONFIGS.glob("eval/*.py"), *CONFIGS.glob("released/*.py")])
RELEASED = sorted(CONFIGS.glob("released/*.py"))


def get_config(path, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda p: p.stem)
def test_evaluation_configs_resolve(path):
    assert config.resolve(get_config(path), config.EvalConfig).preset == (
        {"llava_v16_mistral_7b": "llava_next_mistral", "llama3_llava_next_8b": "llava_next_llama3"}.get(
            path.stem, "llava_next" if "v16" in path.stem else "released"
        )
    )
    for preset, chosen in table.ASKING.items():
        found = config.resolve(get_config(path, preset), config.EvalConfig)
        assert (found.preset, found.model.template, found.model.image_mode) == (
            preset,
            chosen.template,
            chosen.image_mode,
        )
        assert (found.decode.max_new_tokens, found.decode.min_new_tokens) == (256, 1)
        assert not found.paper_row or found.paper_row in paper_tables.rows()
    with pytest.raises(errors.UserError, match="preset 'lava' is unknown; did you mean 'llava'"):
        get_config(path, "lava")
    assert f"configs/{path.parent.name}/{path.name}" in ast.get_docstring(ast.parse(path.read_text()))


def test_every_published_checkpoint_has_its_config():
    """7B and 13B: the base, and {Mixed, Posthoc, Clean} tuned in full and by LoRA."""
    found = {get_config(path).model.path: get_config(path).paper_row for path in RELEASED}
    kinds = [f"{kind}{lora}" for kind in ("Mixed", "Posthoc", "Clean") for lora in ("", "-lora")]
    tuned = {f"ys-zong/llava-v1.5-{size}-{kind}" for size in ("7b", "13b") for kind in kinds}
    bases = {f"liuhaotian/llava-{line}-{size}" for line in ("v1.5", "v1.6-vicuna") for size in ("7b", "13b")}
    bases |= {"liuhaotian/llava-v1.6-mistral-7b", "lmms-lab/llama3-llava-next-8b"}
    assert found.keys() == tuned | bases
    with_row = [row for row in found.values() if row]
    assert sorted(with_row) == sorted(row for row in paper_tables.TABLES["table2"].rows if row.startswith("LLaVA"))
    for path, row in found.items():
        plain = row.lower().replace("post-hoc", "posthoc").replace(" ", "-")
        without = "Clean" in path or "v1.6" in path or "llama3" in path
        assert (without and row == "") or path.lower().endswith(plain)


@pytest.mark.parametrize("path", RELEASED, ids=lambda p: p.stem)
def test_docstrings_quote_the_papers_row(path):
    text, row = path.read_text(), get_config(path).paper_row
    quoted = re.search(r"unsafes ([\d.]+), safe_unsafes ([\d.]+) percent", text)
    if row:
        assert [float(v) for v in quoted.groups()] == [paper.value(row, "unsafes"), paper.value(row, "safe_unsafes")]
    else:
        assert quoted is None


def test_number_formats_follow_the_backend():
    auto = config.EvalPrecisionSettings("auto_fp16")
    assert config.on_backend(auto, "cpu") == "fp32"
    assert config.on_backend(auto, "gpu") == "fp16"
    assert config.on_backend(config.EvalPrecisionSettings("bf16"), "cpu") == "bf16"
    train = config.base_train_config()
    train.data.sources = {"a": config.source(path="x")}
    train.precision.compute = "auto_bf16"
    with pytest.raises(errors.UserError, match="'auto_bf16' is unknown; did you mean 'bf16'"):
        config.resolve(train, config.TrainConfig)
