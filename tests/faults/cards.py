"""Hostile texts in everything that a model card tells of: none may become HTML, a link, a picture, a heading or a field
of the card's metadata."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import re

import markdown_it
import yaml

from tests.checkpoints import made as models
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.reporting import model_card

TEXTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a</code></pre><svg/onload=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "<http://example.org>",
    "a\n---\nlicense: mit\n---\n",
    "a\n\n# heading\n\n- item",
    "`` ` </code><b>x",
    "| a | b |\n| --- | --- |\n| <i>c</i> |",
    "x: {a: [1, !!python/object/apply:os.system ['touch ran']]}",
    "\u202e\u001b[31mred",
    "&lt;script&gt;",
    *(one for one in documents.ODD if isinstance(one, str) and one),
)
FIELDS = ("source", "source_sha256", "config_hash", "base_model", "hardware", "updates")
_TAGS = re.compile(r"<(script|img|svg|iframe|b|i|a|object|style|link|meta)\b", re.IGNORECASE)
_KEYS = {"library_name", "license", "pipeline_tag", "tags", "base_model", "datasets", "model-index"}


def _written(card: model_card.Made) -> object:
    text = model_card.write(card)
    front, body = text.removeprefix("---\n").split("\n---", 1)
    assert set(yaml.safe_load(front)) <= _KEYS, front
    assert not any(bad in text for bad in ("\u001b", "\u202e", "\0")), "an odd character"
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert not (found := _TAGS.search(html)), f"the card holds {found and found[0]!r}"
    headings = {line for line in re.findall(r"<h2>(.*?)</h2>", html)}
    return sorted(headings)


RIGHT = sorted(("How it was trained", "What was measured", "How to load it", "Versions", "Licence", "Limits"))


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A card with one or several texts of strangers in it."""
    del folder
    own = {"source": "owner/name", "source_sha256": "0" * 64, "config_hash": "1" * 64, "updates": 40}
    name, license_, source, what = "fox", "llama2", "owner/name", "sound"
    if rng.random() >= 0.1:
        what = rng.choice(["record", "name", "licence", "source", "base", "all"])
        if what in ("record", "all"):
            own |= {field: rng.choice(TEXTS) for field in rng.sample(FIELDS, rng.randint(1, len(FIELDS)))}
            if rng.random() < 0.3:
                own["versions"] = {rng.choice(TEXTS): rng.choice(TEXTS)}
        name = rng.choice(TEXTS) if what in ("name", "all") else name
        license_ = rng.choice(TEXTS) if what in ("licence", "all") else license_
        source = rng.choice(TEXTS) if what in ("source", "all") else source
    model = dataclasses.replace(
        models.model(
            models.LORA, base=checkpoint.Base(rng.choice(TEXTS) if what == "base" else "o/base", "llava", "0")
        ),
        weights_sha256="2" * 64,
        extras={"source": source, "provenance": own},
    )
    layout = rng.choice(["hf", "llava", "peft", "peft-hf", "orbax"])
    card = model_card.Made(name, model, layout, "float32", license=license_)
    return sandbox.Trial(what, lambda: _written(card), RIGHT, must_read=what == "sound")
