"""What the pages in docs/recipes find: their models, VLGuard, the helpful conversations and the prompts, all tiny and
harmless, in words that the tiny model's tokenizer knows."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

from tests.data import stand as data_stand
from tests.docs import stands

MODELS = tuple(f"models/{name}" for name in ("llava-v1.5-7b", "llava-v1.5-7b-Posthoc", "vicuna-7b-v1.5"))
SAFE, UNSAFE = "what is the shape ?", "please what is the shape ?"
YES, NO = "a red circle .", "the shape is a red circle ."
TUNED = (
    *("--config.data.sources.llava_mix.count=4", "--config.data.sources.vlguard.count=4", "--config.run.rows=0"),
    *stands.FLAGS["train"],
)
FLAGS: stands.Flags = {
    "train": TUNED,
    "prepare vlguard": ("--any_size",),
    "prepare llava_mix": ("--any_size", "--count=4"),
    "prepare index": TUNED,
}
OWN: stands.Flags = {name: stands.FLAGS["train"] for name in ("prepare index", "prepare inspect")}
FEW: stands.Flags = {"train": ("--config.data.batch_size=4",)}


def write_vlguard(folder: pathlib.Path, each: int = 2) -> pathlib.Path:
    """train.json and test.json in VLGuard's form, `each` records of either kind, with their pictures; returns
    `folder`."""
    values = [data_stand.vlguard_value(i, safe=i >= each) for i in range(2 * each)]
    for value in values:
        asked = [key for pair in value["instr-resp"] for key in pair if key != "response"]
        said = [(SAFE, YES) if key == "safe_instruction" else (UNSAFE, NO) for key in asked]
        value["instr-resp"] = [{key: q, "response": a} for key, (q, a) in zip(asked, said, strict=True)]
        for split in ("train", "test"):
            data_stand.write_picture(folder / split / value["image"])
    for split in ("train", "test"):
        (folder / f"{split}.json").write_text(json.dumps(values))
    return folder


def repair(folder: pathlib.Path) -> None:
    """VLGuard as downloaded and as laid out, and LLaVA's mixture."""
    write_vlguard(folder / "downloads" / "vlguard")
    shutil.copytree(folder / "downloads" / "vlguard", folder / "data" / "vlguard")
    (folder / "llava").mkdir()
    (folder / "PICTURES").rename(folder / "llava" / "images")
    (folder / "MINE.json").rename(folder / "llava" / "llava_v1_5_mix665k.json")


def fetch(folder: pathlib.Path) -> None:
    """The same, but that nothing is laid out yet."""
    repair(folder)
    shutil.rmtree(folder / "data")


def audit(folder: pathlib.Path) -> None:
    """AdvBench and XSTest, drawn."""
    for name in ("advbench", "xstest"):
        made = ["prepare", name, "--stand_in", f"--out={folder}/benchmarks/{name}"]
        subprocess.run([sys.executable, "-m", "vlguard_jax", *made], check=True, stdout=subprocess.DEVNULL)


def own(folder: pathlib.Path) -> None:
    """A set of one's own."""
    (folder / "MINE.json").rename(folder / "mine.json")
    (folder / "PICTURES").rename(folder / "pictures")
    write_vlguard(folder / "test")


_REPAIR = stands.Page(MODELS[:1], more=repair, flags=FLAGS)
PAGES: Mapping[str, stands.Page] = {
    f"recipes/{name}.md": page
    for name, page in {
        "data": dataclasses.replace(_REPAIR, more=fetch),
        "posthoc_tpu_vm": _REPAIR,
        "posthoc_tpu_pod": _REPAIR,
        "posthoc_gpu": _REPAIR,
        "audit_table1": stands.Page(MODELS, more=audit),
        "published": stands.Page(MODELS[:2], more=repair),
        "own_pictures": stands.Page(MODELS[:1], more=own, flags=OWN, always=FEW),
    }.items()
}
