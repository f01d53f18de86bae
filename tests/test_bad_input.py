"""Bad input through the real commands: one clear line on stderr, exit code 2, nothing half-written."""

from collections.abc import Callable
import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from tests import source
from tests.training import stand

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Case:
    """Prepare a folder, run a command in it, expect words in the one line that comes back."""

    words: tuple[str, ...]
    prepare: Callable[[pathlib.Path], None] = lambda folder: None
    extra: tuple[str, ...] = ()
    command: str = "train"
    devices: int = 1  # fake ones


def _config(folder: pathlib.Path) -> None:
    root = stand.folder()
    (folder / "config.py").write_text(
        "from vlguard_jax import config\n\n\ndef get_config():\n    c = config.base_train_config()\n"
        f"    c.model.path = {str(root / 'init')!r}\n    c.precision.compute = 'fp32'\n"
        "    c.data.batch_size = c.data.group_size = 4\n    c.data.max_len = 160\n    c.optimizer.max_steps = 1\n"
        f"    c.data.sources = {{'chats': config.source(path='chats.json', images={str(root / 'pictures')!r})}}\n  "
        "  return c\n"
    )
    shutil.copy(root / "chats.json", folder / "chats.json")


def _chats(change: Callable[[list], object]) -> Callable[[pathlib.Path], None]:
    def prepare(folder: pathlib.Path) -> None:
        chats = json.loads((folder / "chats.json").read_text())
        change(chats)
        (folder / "chats.json").write_text(json.dumps(chats))

    return prepare


def _broken_json(folder: pathlib.Path) -> None:
    (folder / "chats.json").write_text('[\n {"id": "a",\n  "conversations" [] }\n]')


def _picture(content: Callable[[bytes], bytes]) -> Callable[[pathlib.Path], None]:
    def prepare(folder: pathlib.Path) -> None:
        shutil.copytree(stand.folder() / "pictures", folder / "pictures")
        for path in (folder / "pictures").iterdir():
            path.write_bytes(content(path.read_bytes()))

    return prepare


def _model(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[pathlib.Path], None]:
    def prepare(folder: pathlib.Path) -> None:
        shutil.copytree(stand.folder() / "init", folder / "model", ignore=shutil.ignore_patterns("manifest.json"))
        path = next((folder / "model").glob("*.safetensors"))
        arrays = safetensors.numpy.load_file(path)
        change(arrays)
        index = path.with_name("model.safetensors.index.json")
        if index.exists():
            index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(arrays, path.name)}))
        safetensors.numpy.save_file(arrays, path)

    return prepare


def _other_type(folder: pathlib.Path) -> None:
    shutil.copytree(stand.folder() / "init", folder / "model", ignore=shutil.ignore_patterns("manifest.json"))
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"model_type": "persimmon"}))


def _other_run(folder: pathlib.Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text('{"seed": 7}')


def _vlguard(folder: pathlib.Path) -> None:
    record = {"id": "odd-1", "safe": False, "harmful_category": "c", "harmful_subcategory": "s"}
    record["instr-resp"] = [{"instruction": "what is the shape ?", "response": "a circle"}]
    (folder / "train.json").write_text(json.dumps([record]))


def _silent(chats: list) -> None:
    for chat in chats:
        chat["conversations"][1]["value"] = ""


NORM = "model.norm.weight"
VLGUARD = ("--config.data.sources.chats.path=train.json", "--config.data.sources.chats.format=vlguard")
HERE = ("--config.data.sources.chats.images=pictures",)
TUNED = ("--config.model.path=model",)
CASES = {
    "missing file": Case(("nowhere.json", "no such file"), extra=("--config.data.sources.chats.path=nowhere.json",)),
    "missing config": Case(("other.py",), extra=("--config=other.py",)),
    "broken json": Case(("chats.json", "line 3"), _broken_json),
    "no turns": Case(("chats.json", "chat-2"), _chats(lambda c: c[2].update(conversations=[]))),
    "no picture": Case(("train.json", "odd-1", "image"), _vlguard, VLGUARD),
    "missing picture": Case(("none.png", "1 of 18"), _chats(lambda c: c[1].update(image="none.png"))),
    "unknown template": Case(("vicuna_v2", "vicuna_v1"), extra=("--config.model.template=vicuna_v2",)),
    "unknown key": Case(("learning_rat", "learning_rate"), extra=("--config.optimizer.learning_rat=1.0",)),
    "wrong type": Case(("optimizer.epochs",), extra=("--config.optimizer.epochs=many",)),
    "truncated picture": Case((".png", "chat-"), _picture(lambda b: b[: len(b) // 2]), HERE),
    "non-image": Case((".png", "chat-"), _picture(lambda b: b"<html></html>"), HERE),
    "missing tensor": Case((NORM, "missing"), _model(lambda a: a.pop(NORM)), TUNED),
    "extra tensor": Case(
        ("model.extra", "unknown"), _model(lambda a: a.update({"model.extra": np.zeros(3, np.float32)})), TUNED
    ),
    "misshapen tensor": Case((NORM, "shape"), _model(lambda a: a.update({NORM: np.zeros(3, np.float32)})), TUNED),
    "other model type": Case(("persimmon", "config.json"), _other_type, TUNED),
    "odd text": Case(("chat-0", "mismatch", "on_mismatch"), _chats(_silent)),
    "no supervised token": Case(
        ("chat-", "no supervised token", "on_empty_group"), _chats(_silent), ("--config.data.on_mismatch=reference",)
    ),
    "workdir of another run": Case(("--workdir=run", "config."), _other_run),
    "mesh of other devices": Case(("config.mesh", "8 devices", "-1"), extra=("--config.mesh.fsdp=3",), devices=8),
    "indivisible heads": Case(
        ("config.mesh.tensor=3", "must divide", "heads"), extra=("--config.mesh.tensor=3",), devices=3
    ),
    "indivisible parameter": Case(("parameter", "not divisible by mesh axis fsdp=7", "config.mesh.fsdp"), devices=7),
    "indivisible rows": Case(
        ("config.run.rows=2", "multiple of the 4 row shards"), extra=("--config.run.rows=2",), devices=4
    ),
    "no such hub": Case(("nobody/nothing",), extra=("--config.model.path=nobody/nothing",)),
    "evaluate without benchmark": Case(
        ("config.benchmark.path",), extra=("--workdir=run", f"--config.model.path={ROOT}"), command="evaluate"
    ),
    "convert without dst": Case(("dst",), extra=("--src=model",), command="convert"),
    "prepare something": Case(("vlgard", "vlguard"), extra=("vlgard",), command="prepare"),
}


@functools.cache
def _outcomes(folder: pathlib.Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every case in a process of its own, two at a time."""

    def run(name: str) -> subprocess.CompletedProcess[str]:
        case, here = CASES[name], folder / name.replace(" ", "_")
        here.mkdir()
        _config(here)
        case.prepare(here)
        configs = {
            "train": ["--config=config.py", "--workdir=run"],
            "evaluate": [f"--config={ROOT / 'configs/eval/vlguard.py'}"],
        }
        command = [sys.executable, "-m", f"vlguard_jax.{case.command}", *configs.get(case.command, []), *case.extra]
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(here),
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "HF_HUB_OFFLINE": "1",
        }
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={case.devices}"
        return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=source.PATIENCE)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    return _outcomes(tmp_path_factory.mktemp("bad"))


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_one_clear_line_and_exit_code_2(outcomes: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    outcome = outcomes[name]
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    assert outcome.returncode == 2, outcome.stderr[-2000:]
    assert len(lines) == 1 and lines[0].startswith("error: "), outcome.stderr[-2000:]
    for word in CASES[name].words:
        assert word in lines[0], lines[0]
