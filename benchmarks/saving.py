"""What saving in the background costs a training, and how long a run takes to go on from its checkpoint.

  python benchmarks/saving.py

Fine-tunes a random model of 110M parameters in fp32 with the usual loop, on text, in updates of `--tokens` tokens.
After some updates without any, a checkpoint (parameters and both moments) is saved: what the updates beside the save
and after it take longer than the median of those before is the cost of a save, which is set against `--every` updates.
Then the run is started again: from the call to the first update, without compiling it. Prints two lines, or with --json
one JSON object.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
import statistics
import sys
import tempfile
import time
from typing import Any
from unittest import mock

from absl import flags
import numpy as np

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the lines", allow_override=True)
_EVERY = cli.define_number("every", int, 20, Range(1, 10**6), "updates between two saves")
_PLAIN = cli.define_number("plain", int, 5, Range(2, 10**4), "updates before the save that are counted, and after it")
_TOKENS = cli.define_number("tokens", int, 2048, Range(64, 2**20), "of an update, in rows of up to 512")
_LAYERS = cli.define_number("decoder_layers", int, 12, Range(1, 1024), "layers of the decoder")
_WIDTH = cli.define_number("decoder_width", int, 768, Range(64, 2**16), "width of the decoder, a multiple of 64")

COST, START = 0.03, 10.0  # bars, at 110M parameters: share of the time, seconds

Figures = dict[str, Any]


class _Enough(Exception):
    """The run has come to its first update."""


def main(positional: list[str]) -> int:
    """Make model and data, train, start again, print."""
    if positional:
        raise errors.UserError(
            "saving.py takes --every, --plain, --tokens, --decoder_layers, --decoder_width and --json"
        )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = measure(Path(folder))
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK


def measure(folder: Path) -> Figures:
    """Train in `folder` and go on; the figures."""
    import jax

    from benchmarks import input_wait
    from vlguard_jax.training import feed
    from vlguard_jax.training import loop

    flags.FLAGS["layers"].value, flags.FLAGS["width"].value = _LAYERS.value, _WIDTH.value
    flags.FLAGS["size"].value = 28
    parameters = input_wait.write_model(folder / "model")
    write_conversations(folder)
    saved, last = _PLAIN.value + 1, 2 * _PLAIN.value + 1
    loop.train(settings(folder, saved, last), folder / "run")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["step_seconds"] for line in lines]
    plain = statistics.median(seconds[1:saved])
    cost = sum(each - plain for each in seconds[saved:])
    began = time.perf_counter()
    with mock.patch.object(feed.Feed, "take", side_effect=_Enough), contextlib.suppress(_Enough):
        loop.train(settings(folder, saved, last + 1), folder / "run")
    return {
        "parameters": parameters,
        "device": jax.devices()[0].device_kind,
        "checkpoint_bytes": sum(f.stat().st_size for f in (folder / "run/checkpoints").rglob("*") if f.is_file()),
        "update_seconds": plain,
        "seconds": seconds,
        "save_seconds": cost,
        "cost": cost / (_EVERY.value * plain),
        "start_seconds": time.perf_counter() - began,
        "bars": {"cost": COST, "start_seconds": START},
    }


def settings(folder: Path, save_every: int, updates: int) -> config.TrainConfig:
    """A full fine-tuning in fp32, without a save at any other moment but the end."""
    rows = max(1, _TOKENS.value // 512)
    return config.TrainConfig(
        model=config.ModelSettings(path=str(folder / "model")),
        precision=config.PrecisionSettings("fp32", "fp32", "fp32"),
        data=config.DataSettings(
            sources={"chats": config.SourceSettings(path=str(folder / "chats.json"))},
            batch_size=rows,
            group_size=rows,
            length_multiple=min(512, _TOKENS.value),
            order="shuffle",
            cache=str(folder / "cache"),
        ),
        optimizer=config.OptimizerSettings(epochs=2.0, max_steps=updates),
        run=config.RunSettings(save_every=save_every, remat="none", tensorboard=False, export="none"),
    )


def write_conversations(folder: Path) -> None:
    """chats.json: questions with answers of some four hundred words or, of fewer tokens, as many as fit."""
    from benchmarks import input_wait

    rng = np.random.default_rng(1)
    rows, words = max(1, _TOKENS.value // 512), min(400, _TOKENS.value // 2)
    chats = []
    for i in range((2 * _PLAIN.value + 2) * rows):
        answer = " ".join(rng.choice(input_wait.WORDS, rng.integers(words // 2, words)))
        turns = [{"from": "human", "value": input_wait.QUESTION}, {"from": "gpt", "value": answer}]
        chats.append({"id": str(i), "conversations": turns})
    (folder / "chats.json").write_text(json.dumps(chats))


def table(found: Figures) -> str:
    """The figures as text."""
    size = f"{found['parameters'] / 1e6:.0f}M parameters, {found['checkpoint_bytes'] / 2**30:.2f} GiB a checkpoint"
    return (
        f"{size}: a save costs {found['save_seconds']:.2f} s, {100 * found['cost']:.2f} % of {_EVERY.value} updates of"
        f" {found['update_seconds']:.2f} s (at most {100 * COST:.0f} %)\n"
        f"from the call to the first update of a run that goes on: {found['start_seconds']:.1f} s (at most {START:.0f})"
    )


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    cli.run(main)
