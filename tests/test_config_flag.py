"""The flag --config: new members of groups, and what is said of names that are none."""

from __future__ import annotations

import pathlib
import re

from absl import flags
import pytest

from vlguard_jax import config
from vlguard_jax import config_flag
from vlguard_jax import errors

TRAIN = "from vlguard_jax import config\n\n\ndef get_config(sources=''):\n    c = config.base_train_config()\n"
FILE = f"{TRAIN}    c.data.sources = {{'chats': config.source(path='chats.json')}}\n    return c\n"
TOML = '[mine]\npath = "mine.json"\nweight = 2\n\n[help]\nformat = "alpaca"\npath = "help.json"\ncount = 5\n'


def read(folder: pathlib.Path, *changes: str, text: str = FILE, argument: str = "") -> config.TrainConfig:
    (folder / "config.py").write_text(text)
    argv = ["train", f"--config={folder / 'config.py'}{argument}", *changes]
    values = flags.FlagValues()
    holder = config_flag.define("train", "a config", values=values, argv=argv)
    values(argv)
    return config.resolve(holder.value, config.TrainConfig)


def test_a_source_from_the_command_line(tmp_path):
    found = read(
        tmp_path,
        *("--config.data.sources.mine.path=mine.json", "--config.data.sources.mine.images=pictures"),
        *("--config.data.sources.mine.weight=2", "--config.data.sources.chats.count", "7"),
        "--noconfig.run.tensorboard",
    )
    mine = config.SourceSettings(path="mine.json", images="pictures", weight=2.0)
    assert found.data.sources == {"chats": config.SourceSettings(path="chats.json", count=7), "mine": mine}
    assert not found.run.tensorboard
    alone = read(tmp_path, "--config.data.sources.mine.path=m", text=f"{TRAIN}    return c\n")
    assert alone.data.sources == {"mine": config.SourceSettings(path="m")}


def test_members_of_other_groups(tmp_path):
    found = read(
        tmp_path,
        *("--config.loss_args.kl_weight=0.5", "--config.probe.evaluations.mine.benchmark.path=data"),
        "--config.probe.evaluations.mine.judges=('keyword_repaired',)",
    )
    assert found.loss_args == {"kl_weight": 0.5}
    benchmark = config.BenchmarkSettings(path="data")
    assert found.probe.evaluations == {"mine": config.ProbedSettings(benchmark, ("keyword_repaired",))}


def test_sources_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sources.toml").write_text(TOML)
    text = f"{TRAIN}    c.data.sources = config.sources(sources)\n    return c\n"
    wanted = {
        "mine": config.SourceSettings(path="mine.json", weight=2.0),
        "help": config.SourceSettings(format="alpaca", path="help.json", count=5),
    }
    assert read(tmp_path, text=text, argument=":sources.toml").data.sources == wanted
    for wrong, message in (
        ("mine = 3", "sources.toml: sources.mine must be a section of settings, not 3"),
        ("[mine]\npth = 'x'", "sources.toml: sources.mine.pth is not a setting; did you mean 'path'?"),
        ("[mine", "sources.toml: not TOML: "),
    ):
        (tmp_path / "sources.toml").write_text(wrong)
        with pytest.raises(errors.UserError, match=re.escape(message)):
            config.sources("sources.toml")
    with pytest.raises(errors.UserError, match=r"^none\.toml: no such file"):
        config.sources("none.toml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("optimizer.lr=1", "config.optimizer.lr is not a setting; did you mean config.optimizer.learning_rate?"),
        ("optimizer.learning_rat=1", "did you mean config.optimizer.learning_rate?"),
        ("learning_rate=1", "config.learning_rate is not a setting; did you mean config.optimizer.learning_rate?"),
        ("num_epochs=1", "did you mean config.optimizer.epochs?"),
        ("bs=8", "did you mean config.data.batch_size?"),
        ("lora.r=8", "did you mean config.lora.rank?"),
        ("optimiser.epochs=1", "config.optimiser.epochs is not a setting; did you mean config.optimizer.epochs?"),
        ("lora.zebra=8", "config.lora.zebra is not a setting; config.lora has: alpha, dropout, rank"),
        ("zebra.zebra=8", "config.zebra.zebra is not a setting; config has: data, lora, loss, loss_args, mesh"),
        ("data.sources.mine=x", "config.data.sources.mine is not a setting"),
        ("data.sources..path=x", "config.data.sources..path is not a setting"),
        ("data.sources.chats.pth=x", "did you mean config.data.sources.chats.path?"),
        ("data.sources.mine.pth=x", "did you mean config.data.sources.mine.path?"),
        ("loss_args.a.b=1", "config.loss_args.a.b is not a setting"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(tmp_path, given, message):
    with pytest.raises(errors.UserError, match=re.escape(message)) as error:
        read(tmp_path, f"--config.{given}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [[], ["--config.optimizer.epochs=2"], ["--config=OWN"], ["-config", "OWN"]])
def test_a_file_unless_one_is_given(tmp_path, given):
    for name, text in (("config", FILE), ("own", FILE.replace("chats", "own"))):
        (tmp_path / f"{name}.py").write_text(text)
    argv = ["train", *(word.replace("OWN", str(tmp_path / "own.py")) for word in given)]
    config_flag.unless_given(str(tmp_path / "config.py"), argv)
    values = flags.FlagValues()
    holder = config_flag.define("train", "a config", values=values, argv=argv)
    values(argv)
    own = any("OWN" in word for word in given)
    assert set(config.resolve(holder.value, config.TrainConfig).data.sources) == {"own" if own else "chats"}
