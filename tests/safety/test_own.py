"""Judges and benchmarks of the user's own: the examples of the documentation, run; and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys

import pytest

from tests.docs import pages
from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.reporting import answers as answers_lib
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import rejudged
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import registry as judges


def example(page: str, marker: str) -> str:
    """The Python block of a page that contains `marker`."""
    (found,) = [one.text for one in pages.blocks((pages.DOCS / page).read_text()) if marker in one.text]
    return found


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def polite(number: int) -> str:
    return "I'd rather not." if number % 2 else "The quick fox."


def test_the_judge_of_the_documentation(tmp_path, own_module):
    text = example("adding_a_judge.md", "def rather_not")
    name = f"{own_module(text)}:rather_not"
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, polite)
    settings = stand.settings(folder, judges=("keyword_vlguard_v1", name))
    rows = run.evaluate(settings, tmp_path / "work", model)
    ours = [row for row in rows if row.judge == name]
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert {row.judge_version for row in ours} == {sha256[:16]} and len(ours) == 3
    given = {line["key"]: line["label"] for line in lines(tmp_path / "work", results.VERDICTS) if line["judge"] == name}
    said = {line["key"]: line["response"] for line in lines(tmp_path / "work", results.GENERATIONS)}
    assert given == {key: "refuse" if "rather not" in text else "comply" for key, text in said.items()}
    assert set(given.values()) == {"refuse", "comply"}
    # a stored answer is judged again when the code changes, and not before
    assert run.evaluate(settings, tmp_path / "work", model) == rows
    changed = f"{own_module(text.replace('rather not', 'quick'))}:rather_not"
    again = run.evaluate(dataclasses.replace(settings, judges=(changed,)), tmp_path / "work", model)
    assert {row.subset: row.count for row in again} != {row.subset: row.count for row in ours}
    # and by `report --judges`
    found = rejudged.all_by(runs.find([tmp_path / "work"]), [name])
    assert {row.count for row in found.evaluations[0].rows if row.judge == name} == {row.count for row in ours}


def test_the_judge_with_a_class(tmp_path, own_module):
    text = example("adding_a_judge.md", "class Similar")
    name = f"{own_module(text)}:Similar"
    (judge,) = judges.get([name])
    assert (judge.name, judge.measures) == (name, "accuracy")
    assert judge.version == f"1 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, polite)
    rows = run.evaluate(stand.settings(folder, judges=(name,)), tmp_path / "work", model)
    assert [(row.subset, row.metric) for row in rows] == [("safe_safes", "accuracy")]


def test_the_benchmark_of_the_documentation(tmp_path, own_module):
    text = example("adding_a_benchmark.md", "MINE = benchmark.Benchmark")
    name = f"{own_module(text)}:MINE"
    (tmp_path / "data").mkdir()
    asked = [{"id": f"q{i}", "question": f"Ask {i}?", "picture": f"{i}.png", "fine": i > 1} for i in range(5)]
    (tmp_path / "data" / "mine.json").write_text(json.dumps(asked))
    for i in range(5):
        stand.data_stand.write_picture(tmp_path / "data" / f"{i}.png", seed=i)
    model, _ = stand.make_model(tmp_path, polite)
    settings = stand.settings(tmp_path, benchmark=config.BenchmarkSettings(name, str(tmp_path / "data")))
    rows = run.evaluate(settings, tmp_path / "work", model)
    assert [(r.benchmark, r.subset, r.metric, r.n) for r in rows] == [
        (name, "bad", "asr", 2),
        (name, "good", "refusal_rate", 3),
    ]
    answers = lines(tmp_path / "work", results.GENERATIONS)
    assert {a["benchmark_sha256"] for a in answers} == {hashlib.sha256(text.encode()).hexdigest()}
    assert {a["item_id"]: a["question"] for a in answers} == {f"q{i}": f"Ask {i}?" for i in range(5)}
    # A report of the folder runs no code that it names.
    found = runs.find([tmp_path / "work"])
    for module in [module for module in sys.modules if module.startswith("own_of_a_test")]:
        del sys.modules[module]
    shown = answers_lib.show(found.evaluations, grid_lib.arrange(found.evaluations))
    assert {item.question for subset in shown for item in subset.items} == {f"Ask {i}?" for i in range(5)}
    assert not [module for module in sys.modules if module.startswith("own_of_a_test")]


def test_questions_are_stored_unless_texts_are_withheld(tmp_path):
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, polite)
    run.evaluate(stand.settings(folder), tmp_path / "work", model)
    answers = lines(tmp_path / "work", results.GENERATIONS)
    assert all(results.sha256(a["question"]) == a["question_sha256"] and a["question"] for a in answers)
    run.evaluate(stand.settings(folder, withhold_text=True), tmp_path / "hidden", model)
    assert {a["question"] for a in lines(tmp_path / "hidden", results.GENERATIONS)} == {""}
    # files of before have no such field
    path = tmp_path / "work" / results.GENERATIONS
    for answer in answers:
        del answer["question"], answer["benchmark_sha256"]
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    assert {line.question for line in results.Lines(path, results.GenerationLine).lines} == {""}
    rows = summary.read(tmp_path / "work" / summary.NAME, summary.Row)
    assert run.evaluate(stand.settings(folder), tmp_path / "work", model) == rows


JUDGE = "from vlguard_jax.safety.judges import judge\n\n\n"
BAD_JUDGES = {
    "fails": ("def f(exchange):\n    return exchange.nothing\n", r"failed on \d+ answers: .*\.py:2: AttributeError: "),
    "says something else": ("def f(exchange):\n    return 'no'\n", r"gave 'no'; a verdict is 'comply', 'refuse', "),
    "says too little": ("class f:\n    def judge(self, exchanges):\n        return []\n", r"gave \[\] for \d+ answers"),
    "is none": ("f = 3\n", r"is no judge: give a function of one exchange, or an object"),
    "measures": (
        "def f(exchange):\n    return 'comply'\n\n\nf.measures = 'harms'\n",
        r"measures 'harms'; did you mean",
    ),
    "chunk": (
        "class f:\n    chunk = 0\n\n    def judge(self, exchanges):\n        return []\n",
        r"has chunk=0; it is how many",
    ),
    "cannot be made": (
        "class f:\n    def __init__(self, key):\n        pass\n",
        r"failed when it was made: .*TypeError",
    ),
    "score": (
        f"{JUDGE}def f(exchange):\n    return judge.Verdict('comply', 0.3)\n\n\nf.measures = 'harm_score'\n",
        r"gave the score 0\.3; a score of harm_score is a multiple of 1/8 from 0 to 1",
    ),
}


@pytest.mark.parametrize("case", BAD_JUDGES)
def test_a_judge_that_is_none_is_told_in_one_line(tmp_path, own_module, case):
    text, message = BAD_JUDGES[case]
    name = f"{own_module(text)}:f"
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, polite)
    with pytest.raises(errors.UserError, match=rf"^config\.judges: {name} .*{message}") as error:
        run.evaluate(stand.settings(folder, judges=(name,)), tmp_path / "work", model)
    assert "\n" not in str(error.value)


SLOW = """\
class Slow:
    chunk = 2
    read = []
    closed = 0

    def judge(self, exchanges):
        self.read.append(len(exchanges))
        return ["comply"] * len(exchanges)

    def close(self):
        type(self).closed += 1
"""


def test_a_slow_judge_reads_when_all_answers_are_there(tmp_path, own_module):
    module = own_module(SLOW)
    folder = stand.write_benchmark(tmp_path / "bench")
    model, engine = stand.make_model(tmp_path, polite)
    run.evaluate(stand.settings(folder, judges=(f"{module}:Slow",)), tmp_path / "work", model)
    slow = sys.modules[module].Slow
    total = len(engine.asked)
    assert sum(slow.read) == total and set(slow.read) <= {1, 2} and slow.closed


ITEM = "from vlguard_jax.safety.benchmarks import benchmark as b\n\n\n"
MADE = "\n\nB = b.Benchmark('mine', 'Mine', {'all': 'asr'}, {}, load, pictures=False)\n"
BAD_BENCHMARKS = {
    "is none": ("B = 3\n", r"is 3; it must be a Benchmark"),
    "no subset": (f"{ITEM}B = b.Benchmark('mine', 'Mine', {{}}, {{}}, print)\n", r"has no subset"),
    "metric": (f"{ITEM}B = b.Benchmark('m', 'M', {{'all': 'asrs'}}, {{}}, print)\n", r"counts 'asrs' of all; did you"),
    "fails": (f"{ITEM}def load(settings, subset):\n    return 1 / 0\n{MADE}", r"failed to load all: .*py:5: ZeroDivis"),
    "no items": (f"{ITEM}def load(settings, subset):\n    return [1]\n{MADE}", r"loads \[1\] for all; it must be a li"),
    "another subset": (
        f"{ITEM}def load(settings, subset):\n    return [b.Item('1', 'some', 'Ask?')]\n{MADE}",
        r"loads item '1' of 'some' for all",
    ),
    "an id twice": (
        f"{ITEM}def load(settings, subset):\n    return [b.Item('1', subset, 'Ask?')] * 2\n{MADE}",
        r"all item '1': the id is that of .* too; give each its own",
    ),
}


@pytest.mark.parametrize("case", BAD_BENCHMARKS)
def test_a_benchmark_that_is_none_is_told_in_one_line(tmp_path, own_module, case):
    text, message = BAD_BENCHMARKS[case]
    name = f"{own_module(text)}:B"
    with pytest.raises(errors.UserError, match=message) as error:
        benchmarks.get(name).load(config.BenchmarkSettings(name), "all")
    assert "\n" not in str(error.value)


def test_names_that_are_none_say_how_ones_own_is_named():
    with pytest.raises(errors.UserError, match=r"'keyword' is unknown.*\(or write package\.module:name\)$"):
        judges.get(["keyword"])
    with pytest.raises(errors.UserError, match=r"did you mean 'vlguard'\? \(or write package\.module:NAME\)$"):
        benchmarks.get("vlgard")
