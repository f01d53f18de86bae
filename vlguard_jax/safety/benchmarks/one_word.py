"""VLGuard's test questions under a one-word attack (Chen et al. 2026, "Safety Mirage").

`what_3shot`: three rewordings of each of the 442 unsafe questions that begin with "What", a word that VLGuard connects
with harmless questions. `share_1shot`: 556 harmless questions reworded to begin with "Share", a word that it connects
with refusals. The pictures are VLGuard's test pictures.
"""

from __future__ import annotations

from collections import Counter
import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax.data import vlguard
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source(
    "https://github.com/OPTML-Group/VLM-Safety-MU",
    "MIT",
    "test_share_1shot.json and test_what_3shot.json of eval/safety_data",
)
ACCESS = (
    "they are VLGuard's test pictures, which are gated: accept its terms on"
    " https://huggingface.co/datasets/ys-zong/VLGuard, unpack test.zip and name the folder in config.benchmark.images"
)
KINDS = {"share_1shot": "safe_instruction", "what_3shot": "instruction"}
COUNTS = {"share_1shot": 556, "what_3shot": 1326}
WORDINGS = {"share_1shot": 1, "what_3shot": 3}  # of one question


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The questions of one file in its order; ids are VLGuard's, with the number of the wording where there are three.

    Raises:
      UserError: missing or broken file, or an id more often than it has wordings.
    """
    file = f"test_{subset}.json"
    path = SOURCE.find(settings, file, f"eval/safety_data/{file}")
    folder = pathlib.Path(settings.images) if settings.images else path.parent / "test"
    drawn = stand_ins.read_note(folder, "one_word") or vlguard.is_stand_in(folder)
    read, named, items = Counter[str](), [], []
    for record in vlguard.read_items(path, "test"):
        read[record.id] += 1
        wording = min(read[record.id], WORDINGS[subset])
        id_ = f"{record.id}/{wording}" if WORDINGS[subset] > 1 else record.id
        named.append((id_, record.origin))
        items += [
            benchmark_lib.Item(
                id_,
                subset,
                question,
                (benchmark_lib.Picture(record.image, folder / record.image),),
                record.category,
                record.subcategory,
                drawn or stand_ins.marked(settings, question),
            )
            for kind, question, _ in record.pairs
            if kind == KINDS[subset]
        ]
    benchmark_lib.check_ids(named)
    return items


def stand_in(folder: pathlib.Path) -> None:
    """Write both files with harmless questions, and drawn pictures."""
    pictures = []
    for subset, count in COUNTS.items():
        values = []
        for i in range(count):
            pair = {KINDS[subset]: stand_ins.question(i), "response": "A thing."}
            about = f"{subset}/{i // WORDINGS[subset]}"
            value = {"id": about, "image": f"{about}.png", "safe": KINDS[subset] == "safe_instruction"}
            if value["safe"]:
                value["instr-resp"] = [pair, {"unsafe_instruction": stand_ins.question(i), "response": "A thing."}]
            else:
                value |= {"instr-resp": [pair], "harmful_category": "things", "harmful_subcategory": "other"}
            values.append(value)
            pictures.append(f"{about}.png")
        stand_ins.write_json(folder / f"test_{subset}.json", values)
    stand_ins.draw_all(folder / "test", pictures, "one_word")


BENCHMARK = benchmark_lib.Benchmark(
    name="one_word",
    title="One-word attacks on VLGuard's test set",
    metrics={"share_1shot": "refusal_rate", "what_3shot": "asr"},
    counts=COUNTS,
    load=load,
    source=SOURCE,
    access=ACCESS,
    stand_in=stand_in,
)
