"""Tries a folder's chat template in a process of its own, where its time and memory are limited."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import templates

_CLOCK = 300  # seconds, for a process that waits for ever


@functools.lru_cache(maxsize=16)
def check(template: jinja_template.JinjaTemplate) -> None:
    """Render a few small conversations with `template`.

    Raises:
      UserError: it takes too long or too much memory for one of them, or fails for a single question.
    """
    order = json.dumps({"template": dataclasses.asdict(template), "seconds": limits.TEMPLATE_SECONDS}).encode()
    command = [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(command, input=order, capture_output=True, timeout=_CLOCK, env=environment)
    except subprocess.TimeoutExpired:
        raise errors.UserError(f"{template.where} does not come to an end where it is tried") from None
    if ended.returncode > 0:
        raise RuntimeError(f"{' '.join(command)}: {ended.stderr.decode(errors='replace')[-2000:]}")
    if ended.returncode < 0:
        late = ended.returncode == -signal.SIGXCPU
        name = signal.Signals(-ended.returncode).name
        why = f"takes more than {limits.TEMPLATE_SECONDS} seconds" if late else f"ends its process by {name}"
        raise errors.UserError(f"{template.where} {why} for a small conversation: take another template")
    if fault := json.loads(ended.stdout):
        raise errors.UserError(fault)


def run(order: bytes) -> str:
    """Try the template that `order` describes, in this process; returns why it is refused, or ""."""
    found = json.loads(order)
    given = found["template"]
    given["special"] = tuple(map(tuple, given["special"]))
    template = jinja_template.JinjaTemplate(**given)
    jinja_template.transformers_utils()
    _limit(found["seconds"])
    try:
        template.prompt("What is this?", int(template.pictures))
        for turns, n_images in _conversations(template.pictures):
            with contextlib.suppress(jinja_template.RefusedError):  # told where a record needs it
                template.render(turns, n_images)
    except errors.UserError as e:
        return str(e)
    return ""


def _conversations(pictures: bool) -> Iterator[tuple[list[types.Turn], int]]:
    """Turns and their number of pictures."""
    system, answer = types.Turn("system", "Be brief."), types.Turn("gpt", "A cat.")
    for first, rounds, shown in itertools.product(([], [system]), (1, 2, 8), {False, pictures}):
        tag = f"{templates.IMAGE_TAG}\n" * shown
        questions = [types.Turn("human", f"{tag if not i else ''}What is this?") for i in range(rounds)]
        yield [*first, *itertools.chain.from_iterable((question, answer) for question in questions)], int(shown)


def _limit(seconds: int) -> None:
    """From here on so many seconds of one core, and little more memory than is taken now."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    size = pathlib.Path("/proc/self/statm")
    if size.is_file():  # Linux; elsewhere the limit is not kept anyway
        most = int(size.read_text().split()[0]) * resource.getpagesize() + limits.TEMPLATE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    print(json.dumps(run(sys.stdin.buffer.read())))
