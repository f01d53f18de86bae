"""A launch file's commands are read as the machine reads them: the same values pass, with the same errors."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import subprocess
import sys
import tempfile

import hypothesis
from hypothesis import strategies as st
import pytest

from launch import jobs
from tests import source
from tests.launch import readers
from vlguard_jax import config as settings_lib
from vlguard_jax import errors

HEAD = 'name = "one"\naccelerator = "v6e-4"\nbucket = "gs://b"\nimage = "r/x"\n'
TRAIN = 'run = "train"\nconfig = "configs/train/rehearsal.py"\n'
EVALUATE = 'run = "evaluate"\nconfig = "configs/eval/vlguard.py:llava"\n'


def prepare(folder: pathlib.Path, step: str, /, **overrides: object) -> jobs.Job:
    """The job of one step; overrides with __ for a dot."""
    given = {"model__path": "/m", **overrides} if "config =" in step else overrides
    given = {"benchmark__path": "/b", **given} if "evaluate" in step else given
    lines = [f"{readers.toml(key.replace('__', '.'))} = {_toml(value)}" for key, value in given.items()]
    path = folder / "spec.toml"
    path.write_text(
        HEAD + "[[steps]]\n" + step + ("[steps.overrides]\n" + "\n".join(lines) if lines else ""), encoding="utf-8"
    )
    (job,) = jobs.prepare(path, "gke").jobs
    return job


def _toml(value: object) -> str:
    return readers.toml(value) if isinstance(value, str) else str(value).lower()


@pytest.mark.parametrize(
    ("step", "overrides"),
    [
        (EVALUATE, {"benchmark__subsets": "('unsafes', \"safe_safes\")"}),
        (EVALUATE, {"benchmark__subsets": "unsafes"}),
        (EVALUATE, {"judges": "('keyword_vlguard_v1',)", "withhold_text": "True", "decode__max_new_tokens": "0x10"}),
        (EVALUATE, {"withhold_text": True, "seed": "3", "benchmark__suffix": "a, b"}),
        (EVALUATE, {"withhold_text": 1}),
        (TRAIN, {"mesh__tensor": 2, "run__attention": "splash", "precision__compute": "bf16"}),
        (EVALUATE, {"mesh__data": -1, "mesh__fsdp": 2}),
        (TRAIN, {"optimizer__epochs": 1, "optimizer__learning_rate": "1e-5", "run__tensorboard": "f"}),
        (TRAIN, {"data__sources__mine__path": "/m.json", "data__sources__mine__weight": 2}),
        (EVALUATE, {"judges": "('my_judges:one',)", "benchmark__name": "my_benchmark:MINE", "benchmark__path": ""}),
        ('run = "evaluate"\nconfig = "configs/eval/vlguard.py"\narguments = ["--grid", "--config.seed=2"]\n', {}),
        ('run = "convert"\narguments = ["--src=/m", "--dst=/n", "--to=hf"]\n', {}),
        ('run = "prepare"\narguments = ["vlguard", "--metadata=/v", "--out=/w"]\n', {}),
        ('run = "report"\narguments = ["--out=/bucket/r.html", "{bucket}/runs/a"]\n', {}),
        ('run = "quickstart"\narguments = ["--items=tuning", "--seed=4"]\n', {}),
    ],
)
def test_what_the_command_takes_passes(step, overrides, tmp_path):
    prepare(tmp_path, step, **overrides)


@pytest.mark.parametrize(
    ("step", "overrides", "message"),
    [
        (EVALUATE, {"benchmark__subsets": "a,b"}, "vlguard has no subset 'a,b'"),
        (EVALUATE, {"benchmark__subsets": "unsafes, safe-"}, "as tuple"),
        (EVALUATE, {"benchmark__subsets": "-" * 20_000 + "1"}, "nested too deeply"),
        (EVALUATE, {"benchmark__subsets": "('unsafes', 3)"}, "config.benchmark.subsets[1]"),
        (EVALUATE, {"benchmark__name": "vlgard"}, "did you mean 'vlguard'"),
        (EVALUATE, {"judges": "keyword"}, "config.judges: 'keyword' is unknown"),
        (EVALUATE, {"judges": "()"}, "config.judges is empty"),
        (EVALUATE, {"model__template": "vicuna"}, "vicuna_v1"),
        (EVALUATE, {"model__image_mode": "padd"}, "did you mean 'pad'"),
        (EVALUATE, {"model__path": ""}, "config.model.path is empty"),
        (EVALUATE, {"paper_row": "x"}, "paper_row"),
        (EVALUATE, {"withhold_text": "yes"}, "--config.withhold_text=yes"),
        (EVALUATE, {"decode__batch_size": 8.5}, "--config.decode.batch_size=8.5"),
        (EVALUATE, {"decode": 8}, "--config.decode=8"),
        (EVALUATE, {"model__nonsense": 8}, "config.model.nonsense is not a setting; config.model has: base, "),
        (EVALUATE, {"benchmark__path": ""}, "config.benchmark.path is empty"),
        (TRAIN, {"data__sources__vlguard__path": ""}, "config.data.sources.vlguard.path is empty: name the JSON file"),
        (TRAIN, {"data__sources__mine__images": "/i"}, "config.data.sources.mine.path is empty: name the JSON file"),
        (TRAIN, {"data__sources__mine__pth": "/i"}, "did you mean config.data.sources.mine.path?"),
        (TRAIN, {"data__batch_size": 7}, "config.data.batch_size=7"),
        (TRAIN, {"run__attention": "flash"}, "config.run.attention='flash'"),
        (
            TRAIN,
            {"mesh__fsdp": 3},
            "config.mesh={'data': 1, 'fsdp': 3, 'tensor': 1} does not multiply to the 4 devices of v6e:2x2",
        ),
        (EVALUATE, {"mesh__fsdp": 64}, "to the 4 devices of v6e:2x2; set one size to -1"),
        (TRAIN, {"mesh__slices": 2}, "config.mesh.slices=2, but the devices of v6e:2x2 are of 1"),
        (TRAIN, {"run__attention": "cudnn"}, "config.run.attention='cudnn' does not run on tpu"),
        (TRAIN, {"loss": "cross_entropi"}, "did you mean 'cross_entropy'"),
        (TRAIN, {"optimizer__epochs": "many"}, "--config.optimizer.epochs=many"),
        ('run = "train"\n', {}, "no config is named"),
        (
            'run = "train"\nconfig = "configs/train/rehearsal.py"\narguments = ["--grid"]\n',
            {},
            "Unknown command line flag 'grid'",
        ),
        (
            'run = "train"\nconfig = "configs/train/rehearsal.py"\narguments = ["now"]\n',
            {},
            "unexpected argument 'now'",
        ),
        (
            'run = "train"\nconfig = "configs/train/rehearsal.py"\narguments = ["--help"]\n',
            {},
            "Unknown command line flag 'help'",
        ),
        ('run = "convert"\narguments = ["--to=hff"]\n', {}, "--to=hff"),
        ('run = "convert"\nconfig = "configs/train/rehearsal.py"\n', {}, "takes no config"),
        ('run = "prepare"\narguments = ["vlgard"]\n', {}, "prepare cannot do 'vlgard'; did you mean 'vlguard'"),
        ('run = "prepare"\narguments = ["vlguard", "--out=/w"]\n', {}, "prepare vlguard needs --metadata"),
        ('run = "prepare"\n', {}, "name what to prepare"),
        ('run = "report"\nworkdir = "x"\n', {}, "report has no workdir"),
        ('run = "quickstart"\narguments = ["--item=test"]\n', {}, "Did you mean: items"),
    ],
)
def test_what_the_command_refuses_is_refused(step, overrides, message, tmp_path):
    with pytest.raises(errors.UserError) as caught:
        prepare(tmp_path, step, **overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        ("evaluate", "decode.batch_size", "eight"),
        ("evaluate", "benchmark.subsets", "unsafes, b"),
        ("evaluate", "model.paht", "/m"),
        ("train", "data.batch_size", "7"),
        ("train", "run.tensorboard", "yes"),
    ],
)
def test_errors_are_those_of_the_command(command, key, value, tmp_path):
    config = {"evaluate": "configs/eval/vlguard.py:llava", "train": "configs/train/rehearsal.py"}[command]
    words = [f"--config={config}", "--workdir=w", "--config.model.path=/m", f"--config.{key}={value}"]
    done = subprocess.run(
        [sys.executable, "-m", f"vlguard_jax.{command}", *words],
        cwd=source.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    with pytest.raises(errors.UserError) as caught:
        prepare(tmp_path, {"evaluate": EVALUATE, "train": TRAIN}[command], **{key.replace(".", "__"): value})
    assert f"error: {str(caught.value).removeprefix(f'job one, {command}: ')}\n" == done.stderr


def flat(settings: object, prefix: str = "") -> Iterator[str]:
    """Every section and setting, with __ for a dot."""
    for field in dataclasses.fields(settings):
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value := getattr(settings, field.name)):
            yield from flat(value, f"{prefix}{field.name}__")


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_override_passes_or_is_refused(data):
    """No traceback whatever is written for whichever setting."""
    kind = data.draw(st.sampled_from([EVALUATE, TRAIN]))
    known = list(flat(settings_lib.EvalConfig() if kind is EVALUATE else settings_lib.TrainConfig()))
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
        ["()", "(1,)", "[", "{}", "None", "nan", "1e999", "-1"]
    )
    values = texts | st.integers(-(2**70), 2**70) | st.floats() | st.booleans()
    overrides = data.draw(st.dictionaries(st.sampled_from(known) | st.text(max_size=8), values, min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepare(pathlib.Path(folder), kind, **overrides)
        except errors.UserError as e:
            assert str(e).isprintable() and len(str(e)) < 1000
