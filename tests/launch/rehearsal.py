"""One of launch/experiments from its rendered commands to the table beside the paper's, at tiny size.

  VLGUARD_GOLDEN=DIR VLGUARD_METADATA=DIR python -m tests.launch.rehearsal table2 OUT

Every cell of the sweep runs, with the tiny golden checkpoint in place of every model, stand-ins of the benchmarks (the
first four questions of each subset), drawn pictures and a few made-up conversations. Nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from PIL import Image
from safetensors import numpy as safetensors

from launch import jobs as jobs_lib
from launch import spec as spec_lib
from launch import texts
from tests import source

EXPERIMENTS = source.ROOT / "launch" / "experiments"
SEEDS = (0, 1)
PROJECTOR = "llava-v1.5-mlp2x-336px-pretrain-vicuna-{size}-v1.5"
SOURCES = ("vlguard", "llava_mix", "alpaca", "text_safety")
TRAIN: Mapping[str, texts.Value] = {
    **{f"precision.{name}": "fp32" for name in ("compute", "params", "frozen")},
    **{"data.batch_size": 8, "data.group_size": 4, "data.length_multiple": 64, "data.read_threads": 1},
    **{"optimizer.max_steps": 2, "optimizer.learning_rate": 1e-3, "run.rows": 0, "run.tensorboard": False},
}
EVALUATE: Mapping[str, texts.Value] = {
    **{"benchmark.limit": 4, "decode.max_new_tokens": 4, "decode.batch_size": 4, "precision.compute": "fp32"},
}
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


def read(name: str, bucket: pathlib.Path, tower: pathlib.Path) -> spec_lib.Spec:
    """The experiment's launch file for SLURM, with few seeds and little to do in each step."""
    spec = spec_lib.read(EXPERIMENTS / f"{name}.toml")
    steps = []
    for step in spec.steps:
        given = dict(step.overrides)
        vision = {} if ":{preset}" in step.config else {"model.vision_tower": str(tower)}
        if step.run == "train":
            named = [one for one in SOURCES if f"data.sources.{one}.path" in given]
            few = {f"data.sources.{one}.count": 8 for one in named}
            own = {"data.sources.llava_mix.expect": 0} if "llava_mix" in named else {}
            overrides = {**given, **TRAIN, **few, **own, **vision}
            overrides["data.cache"] = str(bucket / "index")
        else:
            overrides = {**given, **EVALUATE, **vision}
        steps.append(dataclasses.replace(step, overrides=overrides))
    arms = {
        key: dataclasses.replace(arm, sweep={axis: _fewer(axis, values) for axis, values in arm.sweep.items()})
        for key, arm in spec.arms.items()
    }
    sweep = {axis: _fewer(axis, values) for axis, values in spec.sweep.items()}
    place = {"bucket": str(bucket), "checkout": str(source.ROOT), "accelerator": "h100:1", "when": ()}
    return dataclasses.replace(spec, steps=tuple(steps), arms=arms, sweep=sweep, spot=False, **place)


def _fewer(axis: str, values: tuple[texts.Value, ...]) -> tuple[texts.Value, ...]:
    return tuple(value for value in values if value in SEEDS) if axis == "seed" else values


def fill(bucket: pathlib.Path, golden: pathlib.Path, metadata: pathlib.Path) -> pathlib.Path:
    """Write what the launch files expect in the bucket; returns the vision tower."""
    tiny = golden / "liuhaotian-gqa"
    (tower,) = (golden / "vision_tower").iterdir()
    models = bucket / "models"
    for size in ("7b", "13b"):
        tuned = [f"-{kind}{lora}" for kind in ("Posthoc", "Mixed", "Clean") for lora in ("", "-lora")]
        for name in ("", "-lora", *tuned):
            _copy(tiny, models / f"llava-v1.5-{size}{name}", tower)
        _language(tiny, models / f"vicuna-{size}-v1.5")
        (models / PROJECTOR.format(size=size)).mkdir()
        shutil.copy(tiny / "mm_projector.bin", models / PROJECTOR.format(size=size))
    _language(tiny, models / "Llama-2-7b-chat-hf", CHAT)
    for name in ("advbench", "xstest", "figstep"):
        _run("vlguard_jax.prepare", name, "--stand_in", f"--out={bucket / 'benchmarks' / name}")
    _run("vlguard_jax.prepare", "vlguard", f"--metadata={metadata}", f"--out={bucket / 'vlguard'}", "--stand_in_images")
    _conversations(bucket)
    return tower


def _copy(model: pathlib.Path, to: pathlib.Path, tower: pathlib.Path) -> None:
    shutil.copytree(model, to, copy_function=shutil.copyfile)
    _change(to / "config.json", lambda values: values | {"mm_vision_tower": str(tower)})


def _language(model: pathlib.Path, to: pathlib.Path, chat: str = "") -> None:
    """The decoder of a LLaVA folder as a Llama folder."""
    to.mkdir(parents=True)
    arrays = {k: v for path in model.glob("*.safetensors") for k, v in safetensors.load_file(path).items()}
    safetensors.save_file({k: v for k, v in arrays.items() if "mm_projector" not in k}, to / "model.safetensors")
    for name in ("config.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(model / name, to / name)
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    _change(to / "config.json", lambda values: {k: v for k, v in values.items() if "mm_" not in k} | plain)
    if chat:
        _change(to / "tokenizer_config.json", lambda values: values | {"chat_template": chat})


def _change(path: pathlib.Path, change: Callable[[dict], dict]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _conversations(bucket: pathlib.Path) -> None:
    images = bucket / "llava" / "images"
    images.mkdir(parents=True)
    records = []
    for i in range(16):
        Image.new("RGB", (40, 30), (16 * i, 90, 120)).save(images / f"{i}.png")
        turns = [("human", f"<image>\nWhat colour is it, the {i}th?"), ("gpt", "It is a plain colour.")]
        records.append(
            {"id": f"c{i}", "image": f"{i}.png", "conversations": [{"from": who, "value": v} for who, v in turns]}
        )
    (bucket / "llava" / "llava_v1_5_mix665k.json").write_text(json.dumps(records))
    (bucket / "llava" / "clean_ids.txt").write_text("c3\nc5\n")
    plain = [{"instruction": f"Name fruit number {i}.", "input": "", "output": "An apple."} for i in range(16)]
    for name in ("alpaca_data.json", "text_safety.json"):
        (bucket / name).write_text(json.dumps(plain))


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=source.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def run(name: str, bucket: pathlib.Path, golden: pathlib.Path, metadata: pathlib.Path) -> str:
    """Every job of the experiment, then gather.sh; returns the table beside the paper's."""
    spec = read(name, bucket, fill(bucket, golden, metadata))
    launch = jobs_lib.render(spec, "slurm")
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(bucket / "compiled")}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for job in launch.jobs:
        begun = time.monotonic()
        commands = [argument for command in job.commands for argument in ("--then", *command)]
        done = subprocess.run(
            [sys.executable, "launch/steps.py", *commands],
            cwd=source.ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{job.name}: {done.stderr[-3000:]}")
        print(f"{job.name}: {len(job.commands)} commands, {time.monotonic() - begun:.0f} s", flush=True)
    (bucket / "gather.sh").write_text(launch.files["gather.sh"])
    (bucket / "launch").symlink_to(source.ROOT / "launch")  # the tables are written where gather.sh is started
    environment["PYTHONPATH"] = str(source.ROOT)
    done = subprocess.run(
        ["bash", str(bucket / "gather.sh")], cwd=bucket, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"gather.sh: {done.stderr[-3000:]}")
    return (bucket / f"{spec.name}-paper.md").read_text()


if __name__ == "__main__":
    folders = [pathlib.Path(os.environ[variable]) for variable in ("VLGUARD_GOLDEN", "VLGUARD_METADATA")]
    print(run(sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), *folders))
