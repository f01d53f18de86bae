"""What the commands of a page find in their folder, in place of models, data and services that nobody has here.

Everything is harmless and tiny. All pages use the same capital words for the same things (MODEL, VLGUARD_DIR, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import json
import pathlib
import shutil
import string
from typing import Any

import numpy as np
from PIL import Image

from tests.curating import world as curating
from tests.data import stand as data_stand
from tests.endpoints import server as server_lib
from tests.reporting import stand as reporting_stand
from tests.training import stand as training_stand
from vlguard_jax import trees
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama
from vlguard_jax.quickstart import language
from vlguard_jax.quickstart import model as quickstart
from vlguard_jax.reporting import preferred
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results

Flags = Mapping[str, tuple[str, ...]]
# A training of one update, an evaluation of two questions a subset. What a page gives itself stays.
FEW = ("--config.benchmark.limit=2", "--config.decode.max_new_tokens=4", "--config.decode.batch_size=4")
FLAGS: Flags = {
    "train": (
        *(f"--config.precision.{name}=fp32" for name in ("compute", "params", "frozen")),
        *("--config.data.batch_size=4", "--config.data.group_size=4", "--config.data.length_multiple=64"),
        *("--config.optimizer.max_steps=1", "--config.data.read_threads=1", "--config.run.tensorboard=False"),
    ),
    "evaluate": FEW,
    "ask": ("--config.decode.max_new_tokens=4",),
    "plan": ("--estimate",),
}
UNSAFE = 4  # records of each kind in VLGUARD_DIR


@dataclasses.dataclass(frozen=True)
class Page:
    """What one page needs besides what all have.

    models: folders, or ids on the hub, in whose place a tiny LLaVA stands. answered: runs that were evaluated.
    more: makes other files. flags: a command's, where the page does not give them; they come before those in FLAGS.
    always: in place of the page's own, where it names what nobody has; "{url}" is the address of a service that answers
    like a judge or a labeller.
    """

    models: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    more: Callable[[pathlib.Path], object] = lambda folder: None
    flags: Flags = dataclasses.field(default_factory=dict)
    always: Flags = dataclasses.field(default_factory=dict)


def _own(folder: pathlib.Path) -> None:
    """Pictures that the records of own_data.md and adding_a_benchmark.md name."""
    for name in ("FOLDER/test/7.jpg", "FOLDER/test/8.jpg", "FOLDER/7.jpg", "FOLDER/8.jpg"):
        data_stand.write_picture(folder / name)
    for name in ("7", "8"):
        data_stand.write_picture(folder / "PICTURES" / "kitchen" / f"{name}.jpg", seed=int(name))


def _adapters(folder: pathlib.Path) -> None:
    """BASE, and ADAPTERS on it."""
    model = load.load(shutil.copytree(folder / "MODEL", folder / "BASE"))
    lora, flat = configs.LoraConfig(2, 4.0, 0.0, ("q_proj",)), trees.flatten(model.params)
    for path, shape in layouts.tree_shapes(model.config, lora).items():
        flat.setdefault(path, np.ones(shape, np.float32))
    made = dataclasses.replace(model, params=trees.unflatten(flat), lora=lora)
    save_adapters.save_peft(made, folder / "ADAPTERS")


def _judge(folder: pathlib.Path) -> None:
    """JUDGE_DIR: a language model, which says nothing that a judge says."""
    model = load.load(folder / "MODEL")
    text = llama.LlamaConfig(model.config.text)
    only = {"text": model.params["text"]}
    save.save_hf(dataclasses.replace(model, config=text, params=only, extras={}), folder / "JUDGE_DIR")


def _asked(folder: pathlib.Path) -> None:
    _adapters(folder)
    _judge(folder)


def _curated(folder: pathlib.Path) -> None:
    """PICTURES like no others."""
    shutil.rmtree(folder / "PICTURES")
    (folder / "PICTURES").mkdir()
    for number in range(6):
        curating.draw(number).save(folder / "PICTURES" / f"{number}.png")


def _labelled(folder: pathlib.Path) -> None:
    """What three people have saved: a label of every answer, and which of two answers is better, at random."""
    rng = np.random.default_rng(0)
    base, posthoc = (runs.find([folder / run]).evaluations for run in BOTH)
    lines = [line for one in (*base, *posthoc) for line in one.answers]
    pairs = preferred.pairs(posthoc, base)
    (folder / "better").mkdir()
    for name in ("anna", "bea", "carl"):
        labels = {line.key: "refuse" if line.response == reporting_stand.NO else "comply" for line in lines}
        hashes = {line.key: results.sha256(line.response) for line in lines}
        _label_file(folder / f"labels-{name}.csv", labels, hashes, "refusal")
        better = {pair.key: str(rng.choice(["first", "second", "even"])) for pair in pairs}
        _label_file(
            folder / "better" / f"labels-{name}.csv", better, {pair.key: pair.digest for pair in pairs}, "better"
        )


def _label_file(path: pathlib.Path, labels: Mapping[str, str], hashes: Mapping[str, str], asks: str) -> None:
    name = path.stem.removeprefix("labels-")
    rows = [f"{key},{label},{name},{len(labels)},{asks},{hashes[key]}\n" for key, label in labels.items()]
    path.write_text("".join(["key,label,rater,rows,asks,response_sha256\n", *rows]))


BOTH = ("runs/base", "runs/posthoc")
WIN_RATE = "--config.remote_judges.win_rate.endpoint.base_url={url}"
PAGES: Mapping[str, Page] = {
    "adding_a_benchmark.md": Page(more=_own),
    "asking.md": Page((*(f"{run}/model" for run in BOTH), "ys-zong/llava-v1.5-7b-Posthoc"), more=_asked),
    "curating.md": Page(more=_curated, always={"curate": ("--config.endpoint.base_url={url}",)}),
    "index.md": Page(flags={"train": ("--config.data.sources.vlguard.expect=0",)}),
    "judges.md": Page(always={"evaluate": (WIN_RATE,)}),
    "labelling.md": Page(answered=BOTH, more=_labelled),
    "own_data.md": Page(
        more=_own,
        flags={"train": ("--config.validation.seed=3",)},
        always={"train": ("--config.validation.share=0.5",)},
    ),
}


def material(folder: pathlib.Path) -> pathlib.Path:
    """Write what every page finds: MODEL, VLGUARD_DIR, PICTURES, MINE.json, photo.png and question.txt."""
    _model(folder)
    _vlguard(folder / "VLGUARD_DIR")
    chats = training_stand.folder()
    shutil.copytree(chats / "pictures", folder / "PICTURES")
    shutil.copy(chats / "chats.json", folder / "MINE.json")
    Image.new("RGB", (40, 30), "red").save(folder / "photo.png")
    (folder / "question.txt").write_text("what is the shape ?\n")
    return folder


def _model(folder: pathlib.Path) -> None:
    """The quickstart's model untrained, with a tokenizer that reads any text."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    quickstart.train_tokenizer(
        tokenizer, [*language.sentences(), *string.digits, *string.ascii_letters, *string.punctuation]
    )
    vision = quickstart.sizes(quickstart.vocabulary_size(tokenizer)).vision
    save.save_llava(quickstart.build(tokenizer, 0, training_stand.random_tower(vision, 0)), folder / "MODEL")
    shutil.rmtree(tokenizer)


def _vlguard(folder: pathlib.Path) -> None:
    """VLGuard's form: test.json and train.json, the pictures in `test` and `train`, and prompts.json."""
    reporting_stand.write_benchmark(folder, UNSAFE)
    shutil.copytree(folder / "test", folder / "train")
    shutil.copy(folder / "test.json", folder / "train.json")


def fill(folder: pathlib.Path, made: pathlib.Path, page: Page) -> None:
    """Lay out a page's folder. made: by `material`."""
    shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)
    for name in page.models:
        shutil.copytree(made / "MODEL", folder / name)
    for name in page.answered:
        run = folder / name
        rule = reporting_stand.answers_all if "base" in name or "before" in name else reporting_stand.refuses_harm
        reporting_stand.evaluate(run, folder / "VLGUARD_DIR", run.name, rule)
    page.more(folder)


def flags(page: Page, url: str) -> tuple[Flags, Flags]:
    """The flags of each command on a page: where it does not give them itself, and always. url: of the service."""
    given = {name: (*page.flags.get(name, ()), *FLAGS.get(name, ())) for name in {*page.flags, *FLAGS}}
    return given, {name: tuple(flag.replace("{url}", url) for flag in always) for name, always in page.always.items()}


def reply(body: dict[str, Any], before: int) -> server_lib.Answer:
    """Of the service: of a single picture what `curate` asks for, of all else that the first answer is better."""
    content = body["messages"][-1]["content"]
    pictures = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    if len(pictures) == 1 and "safe_question" in server_lib.last_text(body):
        number = int(hashlib.sha256(json.dumps(pictures).encode()).hexdigest(), 16) % 1000
        return server_lib.Answer(json.dumps(curating.reply(number)))
    return server_lib.Answer("m")
