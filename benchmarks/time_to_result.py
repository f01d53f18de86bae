"""From a Hugging Face folder to a table: wall-clock time by phase, with an empty and then a filled compilation cache.

  python benchmarks/time_to_result.py
  python benchmarks/time_to_result.py --model llava-1.5-7b-hf \\
      --train_config configs/train/llava_v15_7b_posthoc_lora.py \\
      --train data.sources.vlguard.path=data/vlguard --eval_config configs/eval/vlguard.py:released \\
      --evaluate benchmark.path=data/vlguard

Convert, train, evaluate and report are started one after another as separate processes, as by hand. Without
--model all of it runs on a tiny random model with harmless stand-in conversations and prompts, offline. Prints one
table, or with --json one JSON object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_MODEL = flags.DEFINE_string("model", "", "folder of a model in Hugging Face's layout; empty: the tiny stand-in")
_TRAIN_CONFIG = flags.DEFINE_string("train_config", "", "config file of the training, with --model")
_TRAIN = flags.DEFINE_multi_string(
    "train", [], "NAME=VALUE: a setting of the training, for example run.rows=4; repeatable"
)
_EVAL_CONFIG = flags.DEFINE_string("eval_config", "", "config file of the evaluation, with --model")
_EVALUATE = flags.DEFINE_multi_string("evaluate", [], "NAME=VALUE: a setting of the evaluation; repeatable")
_WARM = flags.DEFINE_boolean("warm", True, "a second time, with the compilation cache of the first")
_FOLDER = flags.DEFINE_string(
    "folder", "", "an empty folder for all that is written; empty: a temporary one, removed at the end"
)

ROOT = pathlib.Path(__file__).parents[1]
STAGES = ("convert", "train", "evaluate", "report")
PHASES = ("start", "load", "data", "compile", "steps", "answers", "report", "save", "other", "exit")
STAND_IN = """from vlguard_jax import config as settings_lib


def get_config():
    config = settings_lib.base_train_config()
    config.precision.compute = config.precision.params = config.precision.frozen = "fp32"
    config.data.sources = {"standin": settings_lib.source(format="llava", path="DATA")}
    config.data.batch_size, config.data.group_size, config.data.length_multiple = 8, 8, 32
    config.data.shapes = 1
    config.optimizer.epochs, config.optimizer.learning_rate = 2.0, 1e-3
    return config
"""

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is timed."""

    model: str
    train_config: str
    train: tuple[str, ...]
    eval_config: str
    evaluate: tuple[str, ...]


def main(positional: list[str]) -> int:
    """Run everything once or twice, print."""
    if positional:
        raise errors.UserError("time_to_result.py takes --model, --train_config, --eval_config and more; see --help")
    if bool(_MODEL.value) != bool(_TRAIN_CONFIG.value) or bool(_MODEL.value) != bool(_EVAL_CONFIG.value):
        raise errors.UserError(
            "--model, --train_config and --eval_config go together; without them a tiny stand-in is timed"
        )
    with contextlib.ExitStack() as stack, contextlib.redirect_stdout(sys.stderr):
        folder = pathlib.Path(_FOLDER.value or stack.enter_context(tempfile.TemporaryDirectory()))
        if folder.exists() and any(folder.iterdir()):
            raise errors.UserError(
                f"--folder={folder} is not empty; name an empty one, since old results would be resumed"
            )
        found = measure(folder)
    print(
        json.dumps(found, allow_nan=False)
        if _JSON.value
        else "\n".join(table(name, run) for name, run in found["runs"].items())
    )
    return errors.EXIT_OK


def measure(folder: pathlib.Path) -> Figures:
    """{runs: {"cold" and "warm": {stage: {phase: seconds}, ...}}}."""
    if _MODEL.value:
        task = Task(_MODEL.value, _TRAIN_CONFIG.value, tuple(_TRAIN.value), _EVAL_CONFIG.value, tuple(_EVALUATE.value))
    else:
        task = stand_in(folder / "stand_in", tuple(_TRAIN.value), tuple(_EVALUATE.value))
    names = ("cold", "warm") if _WARM.value else ("cold",)
    runs = {name: whole_way(task, folder / name, folder / "programs") for name in names}
    return {"model": _MODEL.value or "stand-in", "runs": runs}


def whole_way(task: Task, folder: pathlib.Path, cache: pathlib.Path) -> Figures:
    """All four processes, with the compiled programs kept in `cache`."""
    folder.mkdir(parents=True)
    model = folder / "run" / "model"
    training = [f"--config.{x}" for x in task.train]
    evaluation = [f"--config.{x}" for x in task.evaluate]
    commands = {
        "convert": [f"--src={task.model}", f"--dst={folder / 'model'}", "--to=llava"],
        "train": [
            f"--config={task.train_config}",
            f"--workdir={folder / 'run'}",
            f"--config.model.path={folder / 'model'}",
            *training,
        ],
        "evaluate": [
            f"--config={task.eval_config}",
            f"--workdir={folder / 'answers'}",
            f"--config.model.path={model}",
            *evaluation,
        ],
        "report": [str(folder), f"--out={folder / 'report.html'}", f"--markdown={folder / 'table.md'}"],
    }
    began = time.time()
    stages = {name: stage(name, commands[name], folder, cache) for name in STAGES}
    return {"seconds": time.time() - began, "stages": stages, "table": (folder / "table.md").read_text()}


def stage(name: str, arguments: list[str], folder: pathlib.Path, cache: pathlib.Path) -> Figures:
    """Run one process; {seconds, phases, programs}.

    Raises:
      UserError: it failed; with its last line.
    """
    from benchmarks import phases

    figures = folder / f"{name}.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    began = time.time()
    environment[phases.STARTED] = repr(began)
    command = [sys.executable, str(ROOT / "benchmarks/phases.py"), str(figures), f"vlguard_jax.{name}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    ended = time.time()
    (folder / f"{name}.log").write_text(done.stdout)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise errors.UserError(f"{name} ended with exit code {done.returncode}: {last}")
    found = json.loads(figures.read_text())
    seconds = {**found["seconds"], "exit": ended - found["ended"]}
    print(f"{name}: {ended - began:.1f} s", flush=True)
    return {
        "seconds": ended - began,
        "phases": {phase: seconds[phase] for phase in PHASES if phase in seconds},
        "programs": found["programs"],
    }


def stand_in(folder: pathlib.Path, train: tuple[str, ...], evaluate: tuple[str, ...]) -> Task:
    """A tiny random model as a Hugging Face folder, 32 conversations and 8 harmless prompts."""
    from benchmarks import train_cases

    words = ("cup", "tree", "boat", "lamp", "road", "hill", "door", "bird")
    talks = [
        {
            "id": str(i),
            "conversations": [
                {"from": "human", "value": f"Say a word that goes with {words[i % 8]}."},
                {"from": "gpt", "value": f"{words[(i * 3 + 1) % 8]} and {words[(i * 5 + 2) % 8]}"},
            ],
        }
        for i in range(32)
    ]
    folder.mkdir(parents=True)
    sentences = [turn["value"] for talk in talks for turn in talk["conversations"]]
    train_cases.write_model(train_cases.SIZES["tiny"].model, folder / "model", sentences)
    prompts = [{"id": str(i), "prompt": f"What is a {word}?", "safe": True} for i, word in enumerate(words)]
    for name, value in (("data", talks), ("prompts", prompts)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "train.py").write_text(STAND_IN.replace('"DATA"', repr(str(folder / "data.json"))))
    asked = (
        "decode.max_new_tokens=16",
        f"benchmark.path={folder / 'prompts.json'}",
        "benchmark.subsets=('text_safe',)",
        *evaluate,
    )
    return Task(str(folder / "model"), str(folder / "train.py"), train, str(ROOT / "configs/eval/prompts.py"), asked)


def table(name: str, run: Figures) -> str:
    """The seconds of one pass as text."""
    from rich import console as rich_console
    from rich import table as rich_table

    shown = rich_table.Table(title=f"{name} compilation cache: {run['seconds']:.1f} s from folder to table")
    shown.add_column("seconds")
    used = [phase for phase in PHASES if any(phase in found["phases"] for found in run["stages"].values())]
    for heading in (*used, "all", "programs"):
        shown.add_column(heading, justify="right")
    for stage_name, found in run["stages"].items():
        cells = [f"{found['phases'][phase]:.2f}" if phase in found["phases"] else "" for phase in used]
        shown.add_row(stage_name, *cells, f"{found['seconds']:.2f}", str(found["programs"]))
    sums = [sum(found["phases"].get(phase, 0.0) for found in run["stages"].values()) for phase in used]
    shown.add_row("all", *(f"{x:.2f}" for x in sums), f"{run['seconds']:.2f}", "")
    console = rich_console.Console(width=132)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip("\n")


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    cli.run(main, doc=__doc__)
