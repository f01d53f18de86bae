"""Settings: dataclass -> ConfigDict -> dataclass, unknown keys, types, choices and rules that span fields."""

import dataclasses
import math
import re

import pytest

from vlguard_jax import config
from vlguard_jax import errors


def _config(**changes):
    """A valid training config as plain dict; `section__name=value` changes one setting, `section=value` a section."""
    base = config.base_train_config()
    base.data.sources = {"chats": config.source(path="chats.json", images="pictures")}
    plain = base.to_dict()
    for path, value in changes.items():
        section, _, name = path.partition("__")
        plain |= {section: plain[section] | {name: value} if name else value}
    return plain


def test_there_and_back() -> None:
    for kind, base in ((config.EvalConfig, config.base_eval_config()), (config.TrainConfig, _config())):
        settings = config.resolve(base, kind)
        assert config.resolve(config.to_config_dict(settings), kind) == settings
    assert settings.data.sources["chats"] == config.SourceSettings(path="chats.json", images="pictures")


def test_whole_numbers_are_fine_as_floats() -> None:
    settings = config.resolve({**_config(), "lora": {"rank": 4, "alpha": 8, "dropout": 0}}, config.TrainConfig)
    assert dataclasses.astuple(settings.lora) == (4, 8.0, 0.0) and isinstance(settings.lora.alpha, float)


BAD = {
    "unknown key": (
        {"optimizer__learning_rat": 1.0},
        "config.optimizer.learning_rat is not a setting; did you mean 'learning_rate'?",
    ),
    "unknown section": ({"optimiser": {}}, "config.optimiser is not a setting; did you mean 'optimizer'?"),
    "unknown source key": (
        {"data__sources": {"a": {"pth": "x"}}},
        "config.data.sources.a.pth is not a setting; did you mean 'path'?",
    ),
    "section as value": ({"optimizer": 3}, "config.optimizer must be a section of settings"),
    "type": ({"data__batch_size": "many"}, "config.data.batch_size='many' must be a whole number from 1 to 1048576"),
    "choice": ({"data__order": "shufle"}, "config.data.order='shufle' is unknown; did you mean 'shuffle'?"),
    "no source": ({"data__sources": {}}, "config.data.sources is empty"),
    "groups": (
        {"data__group_size": 48},
        "group_size=48: take --config.data.batch_size=144, or --config.data.group_size=32, by which",
    ),
    "rows": ({"run__rows": -1}, "config.run.rows=-1 must be a whole number from 0 to 1048576"),
    "row length": (
        {"data__length_multiple": 0},
        "config.data.length_multiple=0 must be a whole number from 1 to 65536",
    ),
    "workers": ({"data__read_workers": -2}, "config.data.read_workers=-2 must be a whole number from 0 to 1024"),
    "replay": ({"data__order": "replay"}, "needs config.data.replay"),
    "dropout": ({"lora__dropout": 1.0}, "config.lora.dropout=1.0 must be a number from 0 to 0.99"),
    "replay without its order": (
        {"data__replay": "x.json"},
        "followed with config.data.order=\"replay\" only, not 'modality_length'",
    ),
    "more than the file": (
        {"data__sources": {"a": {"count": 8, "expect": 7}}},
        "config.data.sources.a.count=8 is more than the config.data.sources.a.expect=7",
    ),
    "two free axes": ({"mesh__data": -1}, "config.mesh={'data': -1, 'fsdp': -1, 'tensor': 1}: at most one size is -1"),
    "slices": ({"mesh": {"data": 3, "slices": 2}}, "config.mesh.data=3 must be a multiple of config.mesh.slices=2"),
    "argument of the loss": (
        {"loss_args": {"weight": math.nan}},
        "config.loss_args.weight=nan must be a number from -1000000000.0",
    ),
    "member as value": ({"data__sources": {"a": 3}}, "config.data.sources.a must be a section of settings, not 3"),
    "group as value": ({"data__sources": [1]}, "config.data.sources must be a section of settings, not [1]"),
    "format": (
        {"data__sources": {"a": {"format": "llva"}}},
        "config.data.sources.a.format='llva' is unknown; did you mean 'llava'?",
    ),
    "adapter export": ({"run__export": "peft"}, "needs config.lora.rank > 0"),
    "adapter export for peft": ({"run__export": "peft-hf"}, 'export="peft-hf" needs config.lora.rank > 0'),
    "half precision": ({"precision__compute": "fp16"}, "training needs fp32 or bf16"),
    "rate": ({"optimizer__learning_rate": 0.0}, "config.optimizer.learning_rate=0.0 must be a number from 1e-12 to 1"),
    "epochs": ({"optimizer__epochs": -1.0}, "config.optimizer.epochs=-1.0 must be a number from 1e-06 to 1000"),
    "logging": ({"run__log_every": 0}, "config.run.log_every=0 must be a whole number from 1 to 1000000000"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_name_the_setting(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(errors.UserError) as error:
        config.resolve(_config(**changes), config.TrainConfig)
    assert message in str(error.value)


def test_an_answer_is_not_longer_than_the_longest() -> None:
    changed = config.base_eval_config().to_dict() | {"decode": {"min_new_tokens": 13, "max_new_tokens": 12}}
    with pytest.raises(errors.UserError, match=r"min_new_tokens=13 is more than config\.decode\.max_new_tokens=12"):
        config.resolve(changed, config.EvalConfig)


def test_top_p_needs_a_temperature() -> None:
    decode = {"top_p": 0.9}
    with pytest.raises(errors.UserError, match=r"top_p=0\.9 has no effect with config\.decode\.temperature=0"):
        config.resolve(config.base_eval_config().to_dict() | {"decode": decode}, config.EvalConfig)
    found = config.resolve(
        config.base_eval_config().to_dict() | {"decode": decode | {"temperature": 1}}, config.EvalConfig
    )
    assert found.decode == config.DecodeSettings(temperature=1.0, top_p=0.9)
    for wrong, message in (
        ({"temperature": -0.1}, "temperature=-0.1 must be a number from 0.01 to 100 or 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0.0 must be a number from 1e-06 to 1"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p=1.1 must be a number from 1e-06 to 1"),
        ({"kv_cache": "int4"}, "kv_cache='int4' is unknown; did you mean 'int8'"),
    ):
        with pytest.raises(errors.UserError, match=re.escape(message)):
            config.resolve(config.base_eval_config().to_dict() | {"decode": wrong}, config.EvalConfig)


def test_an_unknown_source_setting_is_named_in_the_config_file() -> None:
    with pytest.raises(errors.UserError, match="did you mean 'exclude_ids'"):
        config.source(exclude_id="x")


def test_resume_differences_name_the_setting(tmp_path) -> None:
    from vlguard_jax import workdir

    settings = config.resolve(_config(), config.TrainConfig)
    workdir.claim(tmp_path / "run", settings)
    workdir.claim(tmp_path / "run", dataclasses.replace(settings, run=config.RunSettings(rows=4)), free=("run",))
    other = dataclasses.replace(settings, optimizer=config.OptimizerSettings(weight_decay=0.1))
    with pytest.raises(errors.UserError, match=r"config\.optimizer\.weight_decay is 0\.1 here and 0\.0 there"):
        workdir.claim(tmp_path / "run", other)
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.UserError, match="cannot be written"):
        workdir.claim(tmp_path / "file" / "run", settings)
