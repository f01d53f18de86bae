"""Stand-ins of every benchmark: the published numbers and layout, marked in every item, and nothing else's."""

from __future__ import annotations

import json
import pathlib

from PIL import Image
from PIL import ImageOps
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.preparing import benchmark_files
from vlguard_jax.preparing import commands
from vlguard_jax.safety import asr
from vlguard_jax.safety import paper
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import figstep
from vlguard_jax.safety.benchmarks import registry
from vlguard_jax.safety.benchmarks import stand_ins
from vlguard_jax.safety.judges import registry as judges

PUBLISHED = {
    "advbench": {"advbench_vanilla": 520, "advbench_suffix": 520, "advbench_suffix_start": 520},
    "xstest": {"xstest_safe": 250, "xstest_unsafe": 200},
    "figstep": {"figstep": 500},
    "figstep_tiny": {"figstep_tiny": 50},
    "figstep_rendered": {"figstep_rendered": 500},
    "strongreject": {"strongreject": 313},
    "strongreject_small": {"strongreject_small": 60},
    "alpaca_eval": {"alpaca_300": 300},
    "one_word": {"share_1shot": 556, "what_3shot": 1326},
    "mossbench": {"mossbench": 300},
    "siuo_mcq": {"siuo_mcq": 167},
    "mm_safetybench": {"mm_sd": 1680, "mm_typo": 1680, "mm_sd_typo": 1680, "mm_text": 1680},
    "mm_safetybench_vlmevalkit": {},
}


def test_every_published_benchmark_can_be_prepared():
    with_files = {name for name, found in registry.BENCHMARKS.items() if found.source and "vlguard" not in name}
    assert with_files == set(PUBLISHED) == set(commands.BENCHMARKS)
    for name, counts in PUBLISHED.items():
        found = registry.get(name)
        assert dict(found.counts) == counts and set(counts) <= set(found.metrics)
        assert found.title and found.source.licence and found.source.where.startswith("https://")


def test_the_papers_columns_have_the_papers_sizes():
    declared = {}
    for found in registry.BENCHMARKS.values():
        declared |= {column: found.counts[subset] for subset, column in found.columns.items()}
    assert declared == paper.SIZES


LARGE = ("figstep_rendered", "mm_safetybench")  # thousands of pictures


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.parity] * (name in LARGE)) for name in PUBLISHED]
)
def test_stand_ins(name, tmp_path, capsys):
    """Written, counted, decoded and marked; the published benchmark is asked with nothing of them unmarked."""
    benchmark_files.run(name, "", "", str(tmp_path / "made"), True)
    told = capsys.readouterr().out
    assert "Questions or pictures are stand-ins: results made with them are marked stand_in" in told
    found = registry.get(name)
    items = benchmark.select(found, config.BenchmarkSettings(name=name, path=str(tmp_path / "made")))
    assert len(items) == sum(PUBLISHED[name].values()) or not PUBLISHED[name]
    assert all(item.stand_in for item in items)
    assert any(item.pictures for item in items) == found.pictures
    assert len({(item.subset, item.id) for item in items}) == len(items)
    for judge in judges.get(["keyword_vlguard_v1", "choice_v1"]):
        measured = asr.metrics(judge, found, items)
        assert bool(measured) == ((judge.measures == "accuracy") == ("accuracy" in found.metrics.values()))


def test_marks_without_their_folder(tmp_path):
    """The table alone, or the pictures alone, still say that they are stand-ins."""
    registry.get("figstep").stand_in(tmp_path / "made")
    folder = tmp_path / "made" / "data"
    note = folder / "images" / "SafeBench" / stand_ins.NOTE
    settings = config.BenchmarkSettings(name="figstep", path=str(tmp_path / "made"))
    text = note.read_text()
    note.unlink()
    assert all(item.stand_in for item in benchmark.select(registry.get("figstep"), settings))
    note.write_text(text)
    file = folder / "question" / "safebench.csv"
    file.write_text(file.read_text().replace(stand_ins.MARK, "How"))
    assert all(item.stand_in for item in benchmark.select(registry.get("figstep"), settings))
    note.unlink()
    assert not any(item.stand_in for item in benchmark.select(registry.get("figstep"), settings))


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"benchmark": "mossbench", "stand_in": True}, "these pictures were made for 'mossbench', not for figstep"),
        ({"benchmark": "figstep", "stand_in": 1}, "these pictures were made for"),
        ([], "must hold a JSON object"),
    ],
)
def test_a_wrong_note(tmp_path, note, message):
    (tmp_path / stand_ins.NOTE).write_text(json.dumps(note))
    with pytest.raises(errors.UserError, match=message):
        stand_ins.read_note(tmp_path, "figstep")


def test_pictures_of_stand_ins_are_harmless_and_differ(tmp_path: pathlib.Path) -> None:
    stand_ins.draw_all(tmp_path, ["a/1.png", "a/2.png", "a/1.png"], "figstep")
    assert len({path.read_bytes() for path in tmp_path.glob("a/*.png")}) == 2
    assert stand_ins.question(0) != stand_ins.question(10) and stand_ins.question(0).startswith(stand_ins.MARK)


def test_drawn_texts_are_whole(tmp_path: pathlib.Path) -> None:
    """Short and long ones: their ink ends above the last lines of the picture, and each has another picture."""
    texts = ["Ways to water.", "Steps to paint an old wooden fence in three colours.", " ".join(["unbelievably"] * 14)]
    rows = [("ForbidQI", 1, i, "Topic", "-", text) for i, text in enumerate(texts)]
    stand_ins.write_csv(tmp_path / "in" / "data" / "question" / "safebench.csv", figstep.COLUMNS, rows)
    (tmp_path / "out").mkdir()
    figstep.render(tmp_path / "in", tmp_path / "out")
    folder = tmp_path / "out" / "data" / "images" / "SafeBench"
    inks = []
    for i in range(3):
        with Image.open(folder / f"query_ForbidQI_1_{i}_6.png") as picture:
            assert picture.size == (760, 760)  # as published
            inks.append(ImageOps.invert(picture.convert("L")).getbbox())
    assert all(left >= 10 and top >= 10 and right <= 760 and bottom <= 760 for left, top, right, bottom in inks)
    assert len(set(inks)) == 3
    rows[0] = (*rows[0][:5], "a " * 4000)
    stand_ins.write_csv(tmp_path / "in" / "data" / "question" / "safebench.csv", figstep.COLUMNS, rows)
    (tmp_path / "other").mkdir()
    with pytest.raises(errors.UserError, match=r"safebench\.csv: line 2: 'instruction' is too long for a picture"):
        figstep.render(tmp_path / "in", tmp_path / "other")
