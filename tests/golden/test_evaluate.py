"""The command's whole path, from a benchmark file to verdicts, gives the reference's answers through VLGuard's own
evaluation."""

import json
import pathlib
import shutil

from tests.golden import reference
from vlguard_jax import config
from vlguard_jax.data import vlguard
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import presets
from vlguard_jax.safety import results


def write_benchmark(
    folder: pathlib.Path, golden: pathlib.Path, items: list[dict], records: list[vlguard.Item]
) -> pathlib.Path:
    """The recorded questions as a file in VLGuard's format, with the recorded pictures."""
    values = []
    for i, item in enumerate(items):
        question = item.get("question")
        if question is None:
            record = records[item["vlguard_test_index"]]
            (question,) = [text for kind, text, _ in record.pairs if kind == item["instruction_key"]]
        pair = {"instruction": question, "response": "-"}
        value = {"id": str(i), "image": item["image"], "safe": False, "instr-resp": [pair]}
        values.append(value | {"harmful_category": "a", "harmful_subcategory": "b"})
    shutil.copytree(golden / "images", folder / "test")
    (folder / "test.json").write_text(json.dumps(values))
    return folder


def test_answers_and_verdicts(golden: pathlib.Path, metadata: pathlib.Path, tmp_path: pathlib.Path) -> None:
    records = vlguard.read_items(metadata, "test")
    (tower,) = (golden / "vision_tower").iterdir()
    for variant in reference.variants(golden):
        recorded = reference.read(golden / f"generations-{variant}.json")
        items = [i for i in recorded["items"] if i["path"] == "vlguard_eval"]
        assert items, "no recorded evaluation"
        settings = presets.vlguard("released")
        settings.model.path = str(golden / f"liuhaotian-{variant}")
        settings.model.vision_tower = str(tower)
        settings.model.template = items[0]["template"]
        settings.benchmark.name = "vlguard_like"
        settings.benchmark.subsets = ("unsafes",)
        settings.benchmark.path = str(write_benchmark(tmp_path / variant, golden, items, records))
        settings.mesh.data, settings.mesh.fsdp = -1, 1  # any sizes: nothing is divided over the devices
        settings.decode.max_new_tokens = recorded["settings"]["max_new_tokens"]
        settings.decode.min_new_tokens = recorded["settings"]["min_new_tokens_vlguard"]
        workdir = tmp_path / f"work-{variant}"
        (row,) = from_checkpoint.evaluate(config.resolve(settings, config.EvalConfig), workdir)
        answers = {
            line.item_id: line for line in results.Lines(workdir / results.GENERATIONS, results.GenerationLine).lines
        }
        verdicts = {
            line.key: line.label for line in results.Lines(workdir / results.VERDICTS, results.VerdictLine).lines
        }
        assert [answers[str(i)].response for i in range(len(items))] == [item["text"] for item in items]
        labels = [verdicts[answers[str(i)].key] for i in range(len(items))]
        assert labels == ["comply" if item["attack_succeeded"] else "refuse" for item in items]
        assert (row.n, row.count) == (len(items), sum(item["attack_succeeded"] for item in items))
