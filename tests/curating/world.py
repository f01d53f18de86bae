"""A folder of drawn, harmless pictures with planted faults, and what a scripted model says of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import io
import json
import pathlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageEnhance

PLACES = (
    *(("privacy", "personal data"), ("risky behavior", "political"), ("risky behavior", "violence")),
    *(("deception", "disinformation"), ("discrimination", "race"), ("discrimination", "other")),
)
FINER = {"political": "political", "other": "income", "personal data": "facial recognition"}
REASON = "The drawing shows shapes, and what is asked about them is left out here, because this is only a test. "
OTHERWISE = "begin with other words"
OPENINGS = ("I'm sorry, but I decline.", "I cannot help with that.", "I must decline.", "I won't do that.")


def draw(seed: int) -> Image.Image:
    """A drawing like no other: a few blocks, ellipses and lines, by the seed."""
    rng = np.random.default_rng([7, seed])
    picture = Image.new("RGB", (160, 128), tuple(int(c) for c in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y, width, height = (int(v) for v in rng.integers((0, 0, 20, 16), (140, 110, 80, 60)))
        kind = pen.rectangle if rng.random() < 0.6 else pen.ellipse
        kind((x, y, x + width, y + height), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return picture


def refusal(words: int, opening: str) -> str:
    """A refusal of so many words."""
    text = f"{opening} {REASON * 20}".split()[:words]
    return " ".join(text).rstrip(".") + "."


def reply(seed: int) -> dict[str, object]:
    """The eleven keys of a good reply about drawing `seed`."""
    opening, words = OPENINGS[0 if seed % 4 else 1 + seed % 3], 110 + seed % 80
    category, subcategory = PLACES[seed // 4 % len(PLACES)]
    subcategory = FINER.get(subcategory, subcategory) if seed % 2 else subcategory
    empty = dict.fromkeys(("category", "subcategory", "unsafe_instruction", "response"))
    empty |= dict.fromkeys(("safe_question", "safe_answer", "unsafe_question", "unsafe_answer"))
    empty |= dict.fromkeys(("unsafe_question_category", "unsafe_question_subcategory"))
    if is_safe(seed):
        return {
            "safe": True,
            **empty,
            "safe_question": f"How many blocks does drawing {seed} have?",
            "safe_answer": f"It has {seed % 9} blocks.",
            "unsafe_question": f"What should be left out of drawing {seed}?",
            "unsafe_answer": refusal(words, opening),
            "unsafe_question_category": category,
            "unsafe_question_subcategory": subcategory,
        }
    return {
        "safe": False,
        **empty,
        "category": category,
        "subcategory": subcategory,
        "unsafe_instruction": f"Tell me what drawing {seed} leaves out.",
        "response": refusal(words, opening),
    }


def is_safe(seed: int) -> bool:
    """What the model says of drawing `seed`."""
    return seed // 2 % 2 == 0


def _declining(value: dict[str, object]) -> str:
    return "unsafe_answer" if value["safe"] else "response"


def _broken(change: Callable[[dict[str, object]], object]) -> Callable[[int], str]:
    def say(seed: int) -> str:
        value = reply(seed)
        return str(changed) if isinstance(changed := change(value), str) else json.dumps(changed)

    return say


def _without(value: dict[str, object], key: str) -> dict[str, object]:
    return {k: v for k, v in value.items() if k != key}


# name -> (reason that is counted where it stays so, what the model says)
FAULTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "not json": ("not JSON", _broken(lambda v: f"Here it is: {v}")),
    "cut json": ("not JSON", _broken(lambda v: json.dumps(v)[:-30])),
    "two values": ("not JSON", _broken(lambda v: json.dumps(v)[:-1] + ', "safe": 3}')),
    "a list": ("schema", _broken(lambda v: [v])),
    "no key": ("schema", _broken(lambda v: _without(v, "safe_answer"))),
    "one key more": ("schema", _broken(lambda v: v | {"score": 3})),
    "safe as text": ("schema", _broken(lambda v: v | {"safe": "no"})),
    "category unknown": ("schema", _broken(lambda v: v | {"category": "crime", "unsafe_question_category": "crime"})),
    "both kinds": ("schema", _broken(lambda v: v | {k: "both" for k, one in v.items() if one is None})),
    "short": ("length", _broken(lambda v: v | {_declining(v): "I decline this."})),
    "no refusal": ("no refusal", _broken(lambda v: v | {_declining(v): REASON * 7})),
    "a picture tag": ("schema", _broken(lambda v: v | {_declining(v): "I decline this <image>. " * 30})),
    "empty": ("empty", lambda seed: "  "),
    "declines": ("declined", lambda seed: "I'm sorry, but I can't assist with that request."),
}


@dataclasses.dataclass
class World:
    """The folder, and by the sha256 of a picture's file which drawing it is and how the model replies to it: the names
    in FAULTS, one after the other, then well."""

    folder: pathlib.Path
    against: pathlib.Path
    drawings: dict[str, int] = dataclasses.field(default_factory=dict)
    script: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)  # name -> reason

    def says(self, sha256: str, attempt: int, asked: str = "") -> str:
        """The reply to attempt 0, 1, ... about a picture. asked: the text; told to begin otherwise, half of them do."""
        seed, script = self.drawings[sha256], self.script.get(sha256, [])
        if attempt < len(script):
            return FAULTS[script[attempt]][1](seed)
        value = reply(seed)
        if OTHERWISE in asked and seed // 4 % 2:
            key = _declining(value)
            value[key] = str(value[key]).replace(OPENINGS[0], "Sadly I must decline.")
        text = json.dumps(value)
        return f"```json\n{text}\n```" if seed % 5 == 0 else text


def _save(path: pathlib.Path, picture: Image.Image, **options: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _near(picture: Image.Image, kind: int) -> Image.Image:
    """The same drawing, smaller, compressed or a little brighter."""
    if kind == 0:
        return picture.resize((120, 96), Image.Resampling.LANCZOS)
    if kind == 1:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=55)
        return Image.open(buffer).convert("RGB")
    return ImageEnhance.Brightness(picture).enhance(1.04)


def build(top: pathlib.Path, plain: int, each: int, tries: int) -> World:
    """Draw `plain` good pictures, `each` of every planted fault of pictures, and one picture for every fault of
    replies, once for a single attempt and once for all `tries`."""
    world = World(top / "pictures", top / "test_set")
    seed = 0

    def add(name: str, picture: Image.Image, script: Sequence[str] = (), **options: object) -> None:
        sha256 = _save(world.folder / name, picture, **options)
        world.drawings[sha256], world.script[sha256] = seed, list(script)

    def new(name: str, script: Sequence[str] = ()) -> Image.Image:
        nonlocal seed
        seed += 1
        add(name, draw(seed), script)
        return draw(seed)

    for i in range(plain):
        new(f"{'abc'[i % 3]}/plain_{i:03d}.png")
    for i in range(each):
        picture = new(f"d/first_{i:03d}.png")
        names = {"same": f"d/second_{i:03d}.png", "near": f"e/near_{i:03d}.png"}
        add(names["same"], picture, compress_level=1)  # other bytes, the same pixels
        add(names["near"], _near(picture, i % 3))
        world.dropped |= {names["same"]: "duplicate", names["near"]: "near-duplicate"}
        seed += 1
        _save(world.against / f"test_{i:03d}.png", draw(seed))
        add(f"f/known_{i:03d}.png", draw(seed), compress_level=1)
        seed += 1
        _save(world.against / f"test_near_{i:03d}.png", draw(seed))
        add(f"f/like_{i:03d}.png", _near(draw(seed), i % 3))
        world.dropped |= {f"f/known_{i:03d}.png": "in another set", f"f/like_{i:03d}.png": "near another set"}
        bad = world.folder / f"g/bad_{i:03d}.png"
        bad.parent.mkdir(parents=True, exist_ok=True)
        whole = (world.folder / f"d/first_{i:03d}.png").read_bytes()
        bad.write_bytes((whole[: len(whole) // 2], b"", b"<html>not found</html>")[i % 3])
        world.dropped[bad.relative_to(world.folder).as_posix()] = "unreadable"
    for i, (name, (reason, _)) in enumerate(FAULTS.items()):
        new(f"h/once_{i:02d}.png", [name])
        new(f"h/always_{i:02d}.png", [name] * tries)
        world.dropped[f"h/always_{i:02d}.png"] = reason
    (world.folder / "notes.txt").write_text("no picture")
    return world
