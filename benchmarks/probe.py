"""Whether a probe in the midst of a training costs what `plan` says, on this machine.

  python benchmarks/probe.py

Fine-tunes a random model of 110M parameters for a few steps with the usual loop, and lets it answer questions about
pictures and text on the way. `plan` knows no CPU: it is given one whose rates, of products and of reading memory, are
measured here first, apart from the engine. Answers have the length that the plan takes for a mean one, as a random
model does not end them by itself. The first probe compiles and does not count. Everything is also counted in processor
seconds, divided by the cores: on a machine that others use, these are what it would take alone. Prints a table, or with
--json one JSON object.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
from pathlib import Path
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

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_QUESTIONS = cli.define_number("questions", int, 24, Range(1, 10**6), "of each kind, with pictures and without")
_NEW = cli.define_number("new", int, 32, Range(1, 128), "tokens of an answer")
_SLOTS = cli.define_number("slots", int, 8, Range(1, 1024), "answers at a time")
_UPDATES = cli.define_number("updates", int, 3, Range(1, 10**6), "updates, with a probe after each")

BAR = 0.25
SECONDS = 2.0  # of each measurement of the machine
BATCH = 2  # conversations of an update
CORES = os.cpu_count() or 1

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Make model and questions, plan, train, print."""
    if positional:
        raise errors.UserError("probe.py takes --questions, --new, --slots, --updates and --json; see --help")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = measure(Path(folder))
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK


def measure(folder: Path) -> Figures:
    """Plan and train in `folder`; seconds of a probe, planned and taken."""
    from benchmarks import generate_run
    from benchmarks import input_wait
    from vlguard_jax.planning import chips
    from vlguard_jax.planning import run as planning
    from vlguard_jax.training import loop
    from vlguard_jax.training import probe as probe_lib

    parameters = input_wait.write_model(folder / "model")
    input_wait.write_conversations(folder, BATCH * _UPDATES.value)
    write_questions(folder)
    chosen = settings(folder, input_wait.settings(folder))
    chip, rates = this_machine()
    planned = planning.planner(chosen)(chosen, chips.Topology(chip, (1,)))
    assert planned.probes is not None
    clocks: list[generate_run.Clock] = []
    measure_one = probe_lib.Prober.measure

    def clocked(*given: Any) -> bool:
        with generate_run.Clock() as clock:
            went_on = measure_one(*given)
        clocks.append(clock)
        return went_on

    with mock.patch.object(probe_lib.Prober, "measure", clocked):
        loop.train(chosen, folder / "run")
    taken, cpu = ([getattr(clock, name) for clock in clocks[1:]] for name in ("seconds", "cpu"))
    answers = [
        json.loads(line) for line in (folder / "run/probe/1/pictures/generations.jsonl").read_text().splitlines()
    ]
    alone = [seconds / CORES for seconds in cpu]
    return {
        "parameters": parameters,
        "questions": planned.probes.questions,
        "new": _NEW.value,
        "slots": _SLOTS.value,
        "mean_new": float(np.mean([answer["n_new_tokens"] for answer in answers])),
        "planned_seconds": planned.probes.seconds,
        "seconds": taken,
        "seconds_alone": alone,
        "planned_over_alone": planned.probes.seconds / float(np.mean(alone)),
        "bar": BAR,
        **rates,
    }


def settings(folder: Path, training: config.TrainConfig) -> config.TrainConfig:
    """The training of input_wait.py, with probes after each update."""
    asked = {
        "pictures": config.BenchmarkSettings("vlguard_like", str(folder), subsets=("unsafes",), limit=_QUESTIONS.value),
        "text": config.BenchmarkSettings(
            "prompts", str(folder / "prompts.json"), subsets=("text_safe",), limit=_QUESTIONS.value
        ),
    }
    probe = config.ProbeSettings(
        every=1,
        evaluations={name: config.ProbedSettings(one) for name, one in asked.items()},
        decode=config.DecodeSettings(max_new_tokens=_NEW.value, min_new_tokens=_NEW.value, batch_size=_SLOTS.value),
    )
    data = dataclasses.replace(training.data, batch_size=BATCH, group_size=BATCH)
    return dataclasses.replace(training, data=data, probe=probe)


def write_questions(folder: Path) -> None:
    """test.json with a picture for each question, as VLGuard's, and prompts.json."""
    from benchmarks import input_wait

    rng = np.random.default_rng(2)
    (folder / "test").mkdir()
    records = []
    for i in range(_QUESTIONS.value):
        name = f"q{i}.jpg"
        input_wait.photograph(rng).save(folder / "test" / name, quality=90)
        answers = [{"instruction": f"{input_wait.QUESTION} {i}", "response": "a red circle ."}]
        records.append(
            {
                "id": f"q{i}",
                "image": name,
                "safe": False,
                "harmful_category": "none",
                "harmful_subcategory": "none",
                "instr-resp": answers,
            }
        )
    (folder / "test.json").write_text(json.dumps(records))
    prompts = [{"id": f"t{i}", "prompt": f"{input_wait.QUESTION} {i}", "safe": True} for i in range(_QUESTIONS.value)]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def this_machine() -> tuple[Any, Figures]:
    """This machine as one of plan's chips, so that the plan expects the rates that are measured here."""
    from vlguard_jax.planning import chips
    from vlguard_jax.planning import roofline
    from vlguard_jax.planning import work

    products, reading = rate_of_products(), rate_of_reading()
    known = chips.known()["a100"]
    chip = dataclasses.replace(known, name="here", kind="cpu", peak_tflops=1.0, source="measured")
    share, stream = roofline.constants().of(chip), work.assumptions()["evaluation"]["stream"]
    chip = dataclasses.replace(chip, peak_tflops=products / share / 1e12, hbm_gbps=reading / stream / 1e9)
    return chip, {"gflops": products / 1e9, "gbps": reading / 1e9}


def rate_of_products() -> float:
    """Operations a second, of 512 rows with matrices of the decoder's size in fp32."""
    import jax
    import jax.numpy as jnp

    rows, matrix = jnp.ones((512, 768)), jnp.ones((768, 2048))
    product = jax.jit(lambda x, w: jnp.dot(x, w, precision="highest"))
    return 2 * 512 * 768 * 2048 / _alone(lambda: product(rows, matrix).block_until_ready())


def rate_of_reading() -> float:
    """Bytes a second, of a product of one row with matrices that are larger than the caches."""
    import jax
    import jax.numpy as jnp

    row, matrices = jnp.ones((1, 768)), [jnp.ones((768, 2048)) for _ in range(48)]
    product = jax.jit(lambda x, all_: [jnp.dot(x, w, precision="highest") for w in all_])
    return 48 * 768 * 2048 * 4 / _alone(lambda: jax.block_until_ready(product(row, matrices)))


def _alone(work: Callable[[], Any]) -> float:
    """The seconds of some work, by the processor time of many runs after one that does not count."""
    work()
    count, until, began = 0, time.perf_counter() + SECONDS, time.process_time()
    while not count or time.perf_counter() < until:
        work()
        count += 1
    return (time.process_time() - began) / count / CORES


def table(found: Figures) -> str:
    """The figures as text."""
    taken, alone = (", ".join(f"{one:.1f}" for one in found[name]) for name in ("seconds", "seconds_alone"))
    return (
        f"{found['parameters'] / 1e6:.0f}M parameters, {found['questions']} answers of {found['new']} tokens,"
        f" {found['slots']} at a time; this machine: {found['gflops']:.0f} GFLOP/s, {found['gbps']:.1f} GB/s\n"
        f"a probe: planned {found['planned_seconds']:.1f} s, took {taken} s, by processor time {alone} s; planned / by"
        f" processor time {found['planned_over_alone']:.2f} (within {1 - BAR:.2f} to {1 + BAR:.2f})"
    )


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    cli.run(main)
