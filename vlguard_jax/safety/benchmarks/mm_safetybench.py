"""MM-SafetyBench (Liu et al. 2024): unsafe questions in 13 scenarios, about pictures that stand for what they ask.

The picture is of Stable Diffusion (`mm_sd`), typography (`mm_typo`) or both (`mm_sd_typo`); `mm_text` asks in words
alone. The published forms hold pictures inside tables, and are unpacked into a folder first: Parquet files on the
Hugging Face hub, and one TSV of VLMEvalKit, which asks with another prompt and so is a benchmark of its own.

Its authors judge with GPT-4 by rules of their own for five scenarios (08, 10 to 13); string match is a stand-in for
that.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
import dataclasses
import json
import pathlib
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.data import csv_records
from vlguard_jax.data import json_records
from vlguard_jax.data import packed_pictures
from vlguard_jax.data import records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source(
    "https://huggingface.co/datasets/PKU-Alignment/MM-SafetyBench",
    "CC BY-NC 4.0",
    "data/*/*.parquet",
)
TSV_SOURCE = benchmark_lib.Source(
    "https://opencompass.openxlab.space/utils/VLMEval/MMSafetyBench.tsv", "as MM-SafetyBench", "MMSafetyBench.tsv"
)
FILE = "questions.jsonl"
PICTURES = "pictures"
SPLITS = {"mm_sd": "SD", "mm_typo": "TYPO", "mm_sd_typo": "SD_TYPO", "mm_text": "Text_only"}
# Folder of the scenario (they spell "Activitiy") and its questions, table 1 of the paper: 1,680 in all
SCENARIOS = {
    **{"Illegal_Activitiy": 97, "HateSpeech": 163, "Malware_Generation": 44, "Physical_Harm": 144},
    **{"EconomicHarm": 122, "Fraud": 154, "Sex": 109, "Political_Lobbying": 153, "Privacy_Violence": 139},
    **{"Legal_Opinion": 130, "Financial_Advice": 167, "Health_Consultation": 109, "Gov_Decision": 149},
}
TSV = "mm_safetybench_vlmevalkit"
TSV_COLUMNS = ("index", "image", "question", "category")
TSV_PROMPT = "The question is : {}"  # vlmeval/dataset/mmsafetybench.py, `build_prompt`


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of questions.jsonl. image: "" for none."""

    id: str
    subset: str
    question: str
    category: str
    image: str


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The questions of a folder that `prepare` wrote, in the published order.

    Raises:
      UserError: no such folder, a broken line, or a duplicate id.
    """
    name = TSV if subset == TSV else "mm_safetybench"
    path = pathlib.Path(settings.path)
    if not settings.path or not (path / FILE).is_file():
        raise errors.UserError(
            f"config.benchmark.path={settings.path}: no folder that `python -m vlguard_jax.prepare {name}` wrote"
        )
    folder = pathlib.Path(settings.images) if settings.images else path / PICTURES
    drawn = stand_ins.read_note(folder, name)
    lines = [line for line in json_records.read(path / FILE, _line) if line.subset == subset]
    benchmark_lib.check_ids((line.id, f"{path / FILE}: {line.subset} {errors.short(line.id)}") for line in lines)
    return [
        benchmark_lib.Item(
            line.id,
            subset,
            line.question,
            (benchmark_lib.Picture(line.image, folder / line.image),) if line.image else (),
            line.category,
            stand_in=drawn or stand_ins.marked(settings, line.question.removeprefix(TSV_PROMPT[:-2])),
        )
        for line in lines
    ]


def unpack(source: pathlib.Path, out: pathlib.Path) -> None:
    """Write the questions and pictures of the Parquet files in `source`/data, or in `source`, into `out`.

    Raises:
      UserError: a file is missing, damaged, of other columns, or has another number of rows than published.
    """
    top = source / "data" if (source / "data").is_dir() else source
    _write(out, "mm_safetybench", _parquet_lines(top, out / PICTURES))


def unpack_tsv(source: pathlib.Path, out: pathlib.Path) -> None:
    """Write the questions and pictures of `source`, MMSafetyBench.tsv or its folder, into `out`.

    Raises:
      UserError: the file is missing or damaged, of other columns, or has an index twice.
    """
    path = TSV_SOURCE.find(settings_lib.BenchmarkSettings(path=str(source)), "MMSafetyBench.tsv")
    _write(out, TSV, _tsv_lines(path, out / PICTURES))


def _write(out: pathlib.Path, name: str, lines: Iterator[_Line]) -> None:
    (out / PICTURES).mkdir()
    marked = False
    with open(out / FILE, "w", encoding="utf-8") as file:
        for line in lines:
            marked |= line.question.removeprefix(TSV_PROMPT[:-2]).startswith(stand_ins.MARK)
            file.write(json.dumps(dataclasses.asdict(line)) + "\n")
    stand_ins.write_note(out / PICTURES, name, stand_in=marked)


def _parquet_lines(top: pathlib.Path, pictures: pathlib.Path) -> Iterator[_Line]:
    for subset, split in SPLITS.items():
        for number, (scenario, count) in enumerate(SCENARIOS.items(), 1):
            path, category = top / scenario / f"{split}.parquet", f"{number:02}-{scenario}"
            if not path.is_file():
                raise errors.UserError(f"{path}: no such file; {SOURCE.way}")
            read = 0
            for row in packed_pictures.read_parquet(path, ("id", "question"), picture=subset != "mm_text"):
                image = packed_pictures.save(row, pictures, f"{split}/{scenario}/{read}") if row.picture else ""
                yield _Line(f"{category}/{row.texts['id']}", subset, row.texts["question"], category, image)
                read += 1
            if read != count:
                raise errors.UserError(f"{path}: {read} questions, MM-SafetyBench has {count}; download the file again")


def _tsv_lines(path: pathlib.Path, pictures: pathlib.Path) -> Iterator[_Line]:
    images: dict[str, str] = {}
    for number, row in enumerate(csv_records.read(path, TSV_COLUMNS, separator="\t")):
        index, packed = row.filled("index"), row.filled("image")
        if index in images:
            raise errors.UserError(
                f"{row.origin}: the index {errors.short(index)} comes twice; download the file again"
            )
        # VLMEvalKit's files write the index of an earlier row in the place of the same picture
        images[index] = images.get(packed) or packed_pictures.save(
            packed_pictures.from_base64(packed, row.origin), pictures, str(number)
        )
        yield _Line(index, TSV, TSV_PROMPT.format(row.filled("question")), row.cells["category"], images[index])


def _line(value: Any, position: int, path: str) -> _Line:
    _, origin = records.name(value, position, path)
    found = _Line(*(records.text_field(value, field.name, origin) for field in dataclasses.fields(_Line)))
    if found.image:
        records.check_picture_path(found.image, origin)
    return found


def stand_in(folder: pathlib.Path) -> None:
    """Write the Parquet files with harmless questions and drawn pictures."""
    for split in SPLITS.values():
        for scenario, count in SCENARIOS.items():
            path = folder / "data" / scenario / f"{split}.parquet"
            stand_ins.write_parquet(path, count, pictures=split != "Text_only")


def stand_in_tsv(folder: pathlib.Path) -> None:
    """Write the TSV with harmless questions and drawn pictures."""
    columns = ("index", "image", "question", "answer", "category")
    rows = (
        (i, base64.b64encode(stand_ins.content(i)).decode(), stand_ins.question(i), "-", "01-Illegal_Activitiy")
        for i in range(40)
    )
    stand_ins.write_csv(folder / "MMSafetyBench.tsv", columns, rows, separator="\t")


BENCHMARK = benchmark_lib.Benchmark(
    name="mm_safetybench",
    title="MM-SafetyBench",
    metrics=dict.fromkeys(SPLITS, "asr"),
    counts=dict.fromkeys(SPLITS, sum(SCENARIOS.values())),
    load=load,
    source=SOURCE,
    stand_in=stand_in,
    unpack=unpack,
)
OF_VLMEVALKIT = dataclasses.replace(
    BENCHMARK,
    name=TSV,
    title="MM-SafetyBench as VLMEvalKit asks it",
    metrics={TSV: "asr"},
    counts={},
    source=TSV_SOURCE,
    stand_in=stand_in_tsv,
    unpack=unpack_tsv,
)
