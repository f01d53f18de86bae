"""How much of a training step the devices wait for their input.

  python benchmarks/input_wait.py

Fine-tunes a random model of 110M parameters for a few steps with the usual loop, on conversations with one JPEG file of
640 x 480 each, which are read, decoded and resized to 336 pixels while the previous step is computed. The tower is
small, so that less time hides the reading than with the real one. The first step, which compiles, does not count.
Prints a table, or with --json one JSON object.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
import sys
import tempfile
from typing import Any

from absl import flags
import numpy as np
from PIL import Image

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_STEPS = cli.define_number("steps", int, 4, Range(2, 10**6), "updates, of which the first does not count")
_BATCH = cli.define_number("batch", int, 8, Range(1, 2**16), "conversations a step")
_LAYERS = cli.define_number("layers", int, 12, Range(1, 1024), "layers of the decoder")
_WIDTH = cli.define_number("width", int, 768, Range(64, 2**16), "width of the decoder, a multiple of 64")
_SIZE = cli.define_number("size", int, 336, Range(14, 4096), "side of the model's pictures, a multiple of 14")
_THREADS = cli.define_number("threads", int, 4, Range(0, 1024), "config.data.read_threads")
_WORKERS = cli.define_number("workers", int, 0, Range(0, 1024), "config.data.read_workers")

BAR = 0.02  # of a step, at 110M parameters
VOCABULARY = 16_000
QUESTION = "what does the sign show ?"
WORDS = (
    "the",
    "sign",
    "shows",
    "a",
    "red",
    "circle",
    "above",
    "two",
    "small",
    "letters",
    "and",
    "an",
    "arrow",
    "to",
    "station",
    ".",
)

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Make model and data, train, print."""
    if positional:
        raise errors.UserError(
            "input_wait.py takes --steps, --batch, --layers, --width, --size, --threads, --workers and --json;"
            " see --help"
        )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = measure(Path(folder))
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK


def measure(folder: Path) -> Figures:
    """Train in `folder`; figures of every step and of all but the first."""
    import jax

    from vlguard_jax.training import loop

    parameters = write_model(folder / "model")
    write_conversations(folder, _BATCH.value * _STEPS.value)
    loop.train(settings(folder), folder / "run")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    counted = lines[1:]
    seconds = sum(line["step_seconds"] for line in counted)
    return {
        "parameters": parameters,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "read_threads": _THREADS.value,
        "read_workers": _WORKERS.value,
        "bar": BAR,
        "input_wait": sum(line["input_wait"] * line["step_seconds"] for line in counted) / seconds,
        "pictures_per_second": _BATCH.value * len(counted) / seconds,
        "steps": [{name: line[name] for name in ("step", "step_seconds", "tokens", "input_wait")} for line in lines],
    }


def settings(folder: Path) -> config.TrainConfig:
    """One epoch of the written conversations, with full fine-tuning in fp32."""
    source = config.SourceSettings(path=str(folder / "chats.json"), images=str(folder / "pictures"))
    return config.TrainConfig(
        model=config.ModelSettings(path=str(folder / "model")),
        precision=config.PrecisionSettings("fp32", "fp32", "fp32"),
        data=config.DataSettings(
            sources={"chats": source},
            batch_size=_BATCH.value,
            group_size=_BATCH.value,
            read_threads=_THREADS.value,
            read_workers=_WORKERS.value,
            cache=str(folder / "cache"),
        ),
        optimizer=config.OptimizerSettings(epochs=1.0),
        run=config.RunSettings(rows=min(2, _BATCH.value), remat="none", tensorboard=False, export="none"),
    )


def write_model(folder: Path) -> int:
    """A random LLaVA folder; returns the decoder's parameters."""
    from benchmarks import vocabulary
    from vlguard_jax import trees
    from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
    from vlguard_jax.checkpoints import layouts
    from vlguard_jax.checkpoints import save
    from vlguard_jax.families.blocks import configs
    from vlguard_jax.families.llava import config as llava_config
    from vlguard_jax.quickstart import model as quickstart_model

    width = _WIDTH.value
    vision = configs.VisionConfig(
        image_size=_SIZE.value,
        patch_size=14,
        width=64,
        num_layers=2,
        num_heads=2,
        mlp_width=128,
        norm_eps=1e-5,
        activation="quick_gelu",
    )
    text = configs.TextConfig(
        vocab_size=VOCABULARY,
        width=width,
        num_layers=_LAYERS.value,
        num_heads=width // 64,
        num_kv_heads=width // 64,
        head_width=64,
        mlp_width=width * 8 // 3,
        norm_eps=1e-5,
        rope_theta=10000.0,
    )
    sizes = llava_config.LlavaConfig(text=text, vision=vision, projector="mlp2x_gelu")
    rng = np.random.default_rng(0)
    shapes = layouts.tree_shapes(sizes)
    params = trees.unflatten(
        {path: (0.02 * rng.standard_normal(shape)).astype(np.float32) for path, shape in shapes.items()}
    )
    with tempfile.TemporaryDirectory() as tokenizer:
        quickstart_model.train_tokenizer(
            Path(tokenizer), [QUESTION + " " + " ".join(rng.permutation(WORDS)) for _ in range(200)]
        )
        vocabulary.fill(Path(tokenizer), VOCABULARY)
        sha256 = checkpoint_lib.fingerprint(params)
        save.save_llava(
            checkpoint_lib.Checkpoint(sizes, params, tokenizer_folder=Path(tokenizer), weights_sha256=sha256), folder
        )
    return sum(int(np.prod(shape)) for path, shape in shapes.items() if path.startswith("text."))


def write_conversations(folder: Path, count: int) -> None:
    """chats.json and pictures/: a picture, a short question and an answer of some dozen words each."""
    rng = np.random.default_rng(1)
    (folder / "pictures").mkdir(parents=True)
    chats = []
    for i in range(count):
        name = f"{i}.jpg"
        photograph(rng).save(folder / "pictures" / name, quality=90)
        answer = " ".join(rng.choice(WORDS, rng.integers(20, 60)))
        turns = [{"from": "human", "value": "<image>\n" + QUESTION}, {"from": "gpt", "value": answer}]
        chats.append({"id": str(i), "image": name, "conversations": turns})
    (folder / "chats.json").write_text(json.dumps(chats))


def photograph(rng: np.random.Generator) -> Image.Image:
    """Coloured blots with sensor noise: about as many bytes, and as slow to decode, as a photograph."""
    blots = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(blots) + rng.normal(0, 6, (480, 640, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def table(found: Figures) -> str:
    """The figures as text."""
    from rich import console as rich_console
    from rich import table as rich_table

    shown = rich_table.Table(
        title=f"{found['parameters'] / 1e6:.0f}M parameters, {_SIZE.value} px, {found['devices']} x {found['device']}"
    )
    for heading in ("step", "seconds", "tokens", "waiting for input"):
        shown.add_column(heading, justify="right")
    for line in found["steps"]:
        waited = f"{100 * line['input_wait']:.2f} %" + ("" if line["step"] > 1 else " (not counted)")
        shown.add_row(str(line["step"]), f"{line['step_seconds']:.2f}", f"{line['tokens']:,.0f}", waited)
    console = rich_console.Console(width=100)
    with console.capture() as captured:
        console.print(shown)
    verdict = (
        f"waiting for input: {100 * found['input_wait']:.2f} % of the time (at most {100 * BAR:.0f} % at 110M"
        " parameters)"
    )
    return f"{captured.get()}{verdict}; {found['pictures_per_second']:.2f} pictures/s, {found['read_threads']} threads"


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    cli.run(main)
