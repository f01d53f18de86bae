"""What a user may have in the place of a benchmark's files: each mistake is one line that names file, record and way
out. The files are stand-ins."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import run
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import registry

Change = Callable[[pathlib.Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The stand-ins of a benchmark, written once."""
    top, done = tmp_path_factory.mktemp("made"), {}

    def of(name: str) -> pathlib.Path:
        if name not in done:
            registry.get(name).stand_in(top / name)
            done[name] = top / name
        return done[name]

    return of


def changed(folder: pathlib.Path, file: str, change: Callable[[str], str], to: pathlib.Path) -> pathlib.Path:
    """A copy of `folder`, pictures linked, with one file changed."""
    for path in folder.rglob("*"):
        target = to / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.hardlink_to(path)
    text = (to / file).read_text(encoding="utf-8")
    (to / file).unlink()
    (to / file).write_text(change(text), encoding="utf-8")
    return to


def select(name: str, path: pathlib.Path, **changes) -> list[benchmark.Item]:
    return benchmark.select(registry.get(name), config.BenchmarkSettings(name=name, path=str(path), **changes))


def without_line(number: int) -> Callable[[str], str]:
    return lambda text: "".join(line for i, line in enumerate(text.splitlines(True)) if i != number)


def again(number: int) -> Callable[[str], str]:
    """The line comes twice, in the place of the one behind it, so that the number stays."""
    return lambda text: "".join(
        line for i, line in enumerate(text.splitlines(True)) for _ in range(0 if i == number + 1 else 1 + (i == number))
    )


def as_json(change: Callable[[object], object]) -> Callable[[str], str]:
    def changed_text(text: str) -> str:
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    return changed_text


def put(*path, value):
    """Set a value deep inside; `value` ... deletes it."""

    def change(root):
        for name in path[:-1]:
            root = root[name]
        if value is ...:
            del root[path[-1]]
        else:
            root[path[-1]] = value

    return as_json(change)


CSV = {
    "advbench": "harmful_behaviors.csv",
    "xstest": "xstest_prompts.csv",
    "strongreject": "strongreject_dataset.csv",
    "figstep": "data/question/safebench.csv",
}
NOTES = {
    "figstep": "data/images/SafeBench/prepared.json",
    "mossbench": "data/prepared.json",
    "siuo_mcq": "data/images/prepared.json",
    "one_word": "test/prepared.json",
}
SIUO, MOSS, WHAT = "data/siuo_mcqa.json", "data/images_information/information.json", "test_what_3shot.json"


@pytest.mark.parametrize("name", CSV)
def test_wrong_columns(made, tmp_path, name):
    first = {"advbench": "goal", "xstest": "prompt", "strongreject": "forbidden_prompt", "figstep": "instruction"}[name]
    path = changed(made(name), CSV[name], lambda text: text.replace(first, f"{first}s", 1), tmp_path)
    message = rf"{CSV[name]}: no column '{first}'; did you mean '{first}s'\?; get the published file$"
    with pytest.raises(errors.UserError, match=message):
        select(name, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("advbench", "519 questions in advbench_vanilla, advbench has 520"),
        ("xstest", "249 questions in xstest_safe, xstest has 250"),
        ("strongreject", "312 questions in strongreject, strongreject has 313"),
        ("figstep", "499 questions in figstep, figstep has 500"),
    ],
)
def test_wrong_counts(made, tmp_path, name, message):
    path = changed(made(name), CSV[name], without_line(3), tmp_path)
    with pytest.raises(errors.UserError, match=rf"{message}: get the published file, or set config\.benchmark\.limit"):
        select(name, path)
    assert len(select(name, path, subsets=(message.split()[3].rstrip(","),), limit=5)) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("advbench", r"harmful_behaviors\.csv: line 5: the goal is that of line 4 too; get the published file"),
        ("xstest", r"xstest_prompts\.csv: line 5: the id is that of line 4 too; give each its own"),
        ("strongreject", r"strongreject_dataset\.csv: line 5: the prompt is that of line 4 too"),
        ("figstep", r"safebench\.csv: line 5: the id is that of line 4 too"),
    ],
)
def test_duplicates(made, tmp_path, name, message):
    with pytest.raises(errors.UserError, match=message):
        select(name, changed(made(name), CSV[name], again(3), tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("xstest", CSV["xstest"], lambda t: t.replace(",safe,", ",save,", 1), "'label' must be safe or unsafe, not 's"),
        ("advbench", CSV["advbench"], lambda t: t.replace("\n[stand-in] Describe apple number 1.", "\n", 1), "empty"),
        ("figstep", CSV["figstep"], lambda t: t.replace("ForbidQI,1,1", "../../x,1,1", 1), "not the name of a picture"),
        ("figstep", CSV["figstep"], lambda t: t.replace("ForbidQI,1,1", "ForbidQI,,1", 1), "'category_id' is empty"),
        ("siuo_mcq", SIUO, put(2, "correct_option", value="E"), "record 2: 'correct_option' must be one of A, B, C, D"),
        ("siuo_mcq", SIUO, put(2, "options", "B", value=...), "record 2: 'options' must be an object of A, B, C, D"),
        ("siuo_mcq", SIUO, put(2, "options", "B", value=7), "record 2: 'B' must be a text, not a number"),
        ("siuo_mcq", SIUO, put(2, "question_id", value=1000), r"record 2: the id is that of record 0 too"),
        ("siuo_mcq", SIUO, put(2, "question_id", value=None), "'question_id' must be a number or a text, not null"),
        ("siuo_mcq", SIUO, put(2, "image", value="../a.png"), "record 2: image '../a.png' must be a path inside"),
        ("siuo_mcq", SIUO, put(2, value=7), "record 2 must be an object, not a number"),
        ("mossbench", MOSS, put("3", "metadata", "over", value="type 4"), "record '3': its 'over' in 'metadata' must"),
        ("mossbench", MOSS, put("3", "metadata", "over", value={}), "record '3': its 'over' in 'metadata' must"),
        ("mossbench", MOSS, put("3", "metadata", value=None), "record '3': its 'over' in 'metadata' must"),
        ("mossbench", MOSS, put("3", "question", value=...), "record '3' has no 'question'"),
        ("mossbench", MOSS, put("3", "image", value="/etc/passwd"), "must be a path inside the picture folder"),
        ("mossbench", MOSS, put("3", value=...), "299 questions in mossbench, mossbench has 300"),
        ("mossbench", MOSS, put("3", value=[]), "record '3' must be an object, not an empty list"),
        ("mossbench", MOSS, lambda t: "[]", "must hold a JSON object, not an empty list"),
        ("one_word", WHAT, put(5, "id", value="what_3shot/0"), "the id is that of record 2 .* too"),
        ("one_word", WHAT, put(5, value=...), "1325 questions in what_3shot, one_word has 1326"),
        ("one_word", WHAT, put(5, "instr-resp", value=[]), "'instr-resp' must be a list of 1"),
    ],
)
def test_broken_records(made, tmp_path, name, file, change, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        select(name, changed(made(name), file, change, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("figstep", "data/images/SafeBench/query_ForbidQI_3_7_6.png", r"1 of 500 pictures are missing, first .*3_7_6"),
        (
            "mossbench",
            "data/images/9.png",
            r"1 of 300 pictures are missing, first .*images/9\.png: get data/images_inf",
        ),
        ("siuo_mcq", "data/images/9.png", r"1 of 167 pictures are missing, first .*images/9\.png: get data/siuo_mcqa"),
        ("one_word", "test/what_3shot/9.png", r"1 of 998 pictures are missing, first .*: they are VLGuard's test"),
    ],
)
def test_missing_pictures(made, tmp_path, name, gone, message):
    path = changed(made(name), NOTES[name], str, tmp_path)
    (path / gone).unlink()
    with pytest.raises(errors.UserError, match=message):
        select(name, path)


@pytest.mark.parametrize("name", [*CSV, "siuo_mcq", "mossbench", "one_word"])
def test_files_that_are_not_there(tmp_path, name):
    """The folder, the file and the place where it is got are named."""
    source = registry.get(name).source
    with pytest.raises(errors.UserError) as caught:
        select(name, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: holds no ")
    assert str(caught.value).endswith(f"get {source.files} from {source.where} ({source.licence})")
    with pytest.raises(errors.UserError, match=r"config\.benchmark\.path is empty: name the downloaded file or folder"):
        select(name, "")


def test_files_that_prepare_has_not_written(tmp_path):
    for name in ("mm_safetybench", "mm_safetybench_vlmevalkit"):
        with pytest.raises(errors.UserError, match=rf"no folder that `python -m vlguard_jax\.prepare {name}` wrote"):
            select(name, tmp_path)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("advbnch", "advbench"), ("xs_test", "xstest"), ("fig_step", "figstep"), ("siuo", "siuo_mcq")],
)
def test_unknown_benchmarks(given, nearest):
    with pytest.raises(
        errors.UserError, match=rf"config\.benchmark\.name='{given}' is unknown; did you mean '{nearest}'"
    ):
        registry.get(given)


@pytest.mark.parametrize(
    ("name", "judge", "message"),
    [
        ("siuo_mcq", "keyword_vlguard_v1", "measures refusal, and siuo_mcq asks for right answers; name choice_v1"),
        (
            "mossbench",
            "choice_v1",
            "choice_v1 measures accuracy, but no subset asked of mossbench has expected answers",
        ),
    ],
)
def test_a_judge_that_has_nothing_to_judge(made, name, judge, message):
    benchmark_settings = config.BenchmarkSettings(name=name, path=str(made(name)))
    settings = config.EvalConfig(
        model=config.ModelSettings(path="models/fox"), benchmark=benchmark_settings, judges=(judge,)
    )
    with pytest.raises(errors.UserError, match=message):
        run.check(settings)
