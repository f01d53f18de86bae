"""Hostile input of `curate`: replies of a model, files of decisions, taxonomies."""

from __future__ import annotations

import json
import pathlib
import random

from tests.curating import world
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import settings
from vlguard_jax.curating import taxonomy
from vlguard_jax.curating import writing
from vlguard_jax.data import vlguard

RULES = replies.Rules(taxonomy.read(), settings.AskSettings(refusals="short", check_refusals=False))
PICTURES = 4


def _checked(found: replies.Labelled | replies.Fault) -> str:
    """A record that VLGuard's reader takes, or a fault in one line."""
    if isinstance(found, replies.Fault):
        assert found.told.isprintable() and len(found.told) < 2000
        return "fault"
    record = writing.record(found.item("id", "a.png", RULES.taxonomy.places))
    vlguard.parse(json.loads(json.dumps(record)), 0, "test.json")
    return "record"


def _outcomes() -> list[asking.Outcome]:
    seen = [scan.Seen(f"k{i}", f"{i}.png", f"p{i}", f"x{i}", 8, 8, "0" * 32, "") for i in range(PICTURES)]
    return [asking.Outcome(one, "English", RULES.check(world.reply(i)), ()) for i, one in enumerate(seen)]


def _decided(folder: pathlib.Path) -> list[str]:
    found = decisions.apply(decisions.read(folder), _outcomes(), RULES)
    return [_checked(one) for one in found.labels.values()]


def _file() -> dict[str, object]:
    rows = []
    for one in _outcomes():
        assert isinstance(one.found, replies.Labelled)
        keys = replies.SAFE if one.found.safe else replies.UNSAFE
        texts = {key: getattr(one.found, key) for key in keys}
        common = {"key": one.picture.sha256, "label": "edit", "rater": "a", "time": "2026-11-30T01:00:00.000Z"}
        rows.append({**common, "rows": str(PICTURES), **texts, "shown": one.found.sha256})
    return {"schema": 1, "sheet": "s", "rows": rows}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One of them with one thing wrong."""
    kind = rng.choice(("reply", "decisions", "taxonomy"))
    if kind == "reply":
        what, data = documents.change(rng, world.reply(rng.randrange(8)))
        text = data.decode("utf-8", "surrogateescape")
        return sandbox.Trial(f"reply: {what}", lambda: _checked(RULES.read(text)), sandbox.Anything)
    if kind == "decisions":
        what, data = documents.change(rng, _file())
        (folder / "page.json").write_bytes(data)
        return sandbox.Trial(f"decisions: {what}", lambda: _decided(folder), sandbox.Anything)
    data = bytearray(taxonomy.SHIPPED.read_bytes())
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    (folder / "taxonomy.toml").write_bytes(data)
    path = str(folder / "taxonomy.toml")
    return sandbox.Trial("taxonomy: flipped bytes", lambda: len(taxonomy.read(path).places), sandbox.Anything)
