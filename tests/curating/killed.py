"""Kills `curate` from outside, `kill -9` at ten moments, and compares the dataset with that of an uninterrupted run.

  python -m tests.curating.killed

300 drawn pictures, a scripted model behind a real HTTP server. The same command is started again after each kill, in
the same working directory; each moment is one that the files there show. Exit code 0 only if every kill hit its moment,
the dataset is the same, and no reply that was kept was asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from tests import source
from tests.curating import model as model_lib
from tests.curating import world as world_lib
from vlguard_jax.data.tfds import reader

PLAIN, EACH, TRIES = 200, 12, 3
DELAY = 0.01  # seconds of a reply
POLL = 0.002  # seconds

Moment = Callable[[pathlib.Path], bool]


def _lines(name: str, least: int) -> Moment:
    def reached(workdir: pathlib.Path) -> bool:
        path = workdir / name
        return path.exists() and path.read_bytes().count(b"\n") >= least

    return reached


def _there(pattern: str) -> Moment:
    return lambda workdir: workdir.is_dir() and any(True for _ in workdir.glob(pattern))


# In the order in which a run comes by them.
MOMENTS: dict[str, Moment] = {
    "at the start": _there(".vlguard_jax.lock"),
    "reading pictures": _lines("pictures.jsonl", 64),
    "first replies": _lines("replies.jsonl", 10),
    "more replies": _lines("replies.jsonl", 80),
    "half of the replies": _lines("replies.jsonl", 140),
    "most of the replies": _lines("replies.jsonl", 200),
    "asking again": _lines("replies.jsonl", 245),
    "writing pages": _there(".review.*.partial"),
    "copying pictures": _there(".dataset.*.partial/train"),
    "writing TFDS records": _there(".dataset.*.partial/.tfds.*.partial"),
}


def command(world: world_lib.World, url: str, workdir: pathlib.Path) -> list[str]:
    """The command line of a run."""
    prices = [f"--config.endpoint.{name}={value}" for name, value in model_lib.PRICES.items()]
    return [
        *(sys.executable, "-m", "vlguard_jax.curate", f"--config={source.ROOT / 'configs/curate/vlguard.py'}"),
        *(f"--workdir={workdir}", f"--config.pictures.path={world.folder}", "--config.pictures.stand_in"),
        *(f"--config.pictures.against=('{world.against}',)", f"--config.ask.tries={TRIES}"),
        *(f"--config.endpoint.base_url={url}", "--config.endpoint.model=seer", *prices),
    ]


def run(arguments: list[str], workdir: pathlib.Path, moment: Moment | None = None) -> bool:
    """Run the command, and kill it when the moment has come; whether it was killed.

    Raises:
      RuntimeError: it ended by itself with another exit code than 0.
    """
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(arguments, cwd=source.ROOT, stdout=said, stderr=subprocess.STDOUT)
        while running.poll() is None:
            if moment is not None and moment(workdir):
                os.kill(running.pid, signal.SIGKILL)
                running.wait()
                return True
            time.sleep(POLL)
        if running.returncode:
            said.seek(0)
            raise RuntimeError(f"exit code {running.returncode}: {said.read().decode(errors='replace')[-4000:]}")
    return False


def left(workdir: pathlib.Path) -> dict[str, object]:
    """What a run leaves, by path: all but what tells when something was asked. Of TFDS records what is in them: the
    order of fields in a serialized one is not the same in every process."""
    own = {"replies.jsonl", "pictures.jsonl", "config.json"}
    found: dict[str, object] = {}
    for path in sorted(path for path in workdir.rglob("*") if path.is_file()):
        name = str(path.relative_to(workdir))
        if name not in own and not name.startswith("endpoint/") and ".array_record" not in name:
            found[name] = path.read_bytes()
    for split in ("train", "test"):
        prepared = reader.open_prepared(workdir / "dataset", split)
        items = [dataclasses.replace(item, origin="") for item in prepared.items()]
        found[f"TFDS records of {split}"] = [(item, prepared.read(item.image)) for item in items]
    return found


def unread(workdir: pathlib.Path) -> int:
    """Calls that were on their way when a run was killed."""
    lines = [json.loads(line) for line in (workdir / "endpoint" / "calls.jsonl").read_text().splitlines()]
    sent = sum(line["event"] == "sent" for line in lines)
    return sent - (len(lines) - sent)


def main() -> int:
    """Kill, resume, compare."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vlguard_jax-killed-") as name:
        top = pathlib.Path(name)
        world = world_lib.build(top, PLAIN, EACH, TRIES)
        model = model_lib.Model(world, DELAY)
        with model_lib.serving(model):
            run(command(world, model.url, top / "whole"), top / "whole")
            asked = dict(model.asked)
            model.asked.clear()
            arguments = command(world, model.url, top / "killed")
            for moment, reached in MOMENTS.items():
                hit = run(arguments, top / "killed", reached)
                wrong += [] if hit else [f"not killed {moment}: it had ended"]
                print(f"killed {moment}: {sum(model.asked.values())} calls so far", flush=True)
            run(arguments, top / "killed")
        again = sum(model.asked.values()) - len(model.asked)
        lost = unread(top / "killed")
        wrong += [] if set(model.asked) == set(asked) else ["other questions were asked"]
        wrong += [] if again <= lost else [f"{again} calls repeated, {lost} were on their way at a kill"]
        ours, theirs = left(top / "killed"), left(top / "whole")
        wrong += [f"{path} differs" for path in sorted(ours.keys() | theirs) if ours.get(path) != theirs.get(path)]
    print(*wrong[:20], sep="\n", end="\n" if wrong else "")
    print(
        f"curate: {len(MOMENTS)} kills, {len(ours)} files and splits the same, {len(asked)} questions, {again} asked"
        f" again of {lost} on their way at a kill"
        if not wrong
        else f"curate: {len(wrong)} differences"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
