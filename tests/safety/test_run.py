"""The whole evaluation with an engine that answers by rule: files, resumption, judging again, refusals to mix."""

import dataclasses
import hashlib
import json

import pytest

from tests.data import stand as data_stand
from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import images
from vlguard_jax.families.chat import templates
from vlguard_jax.families.llava import pictures as llava_pictures
from vlguard_jax.reporting import tables
from vlguard_jax.safety import questions
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import vlguard
from vlguard_jax.safety.judges import judge
from vlguard_jax.safety.judges import registry

TOTAL = stand.UNSAFE + 2 * stand.SAFE


@pytest.fixture
def folder(tmp_path):
    return stand.write_benchmark(tmp_path / "bench")


def fox(_: int) -> str:
    return "The quick fox."


def sorry(_: int) -> str:
    return "I'm sorry, no."


def by_subset(rows):
    return {row.subset: row for row in rows}


def lines(workdir, name):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def test_files_and_rates(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    workdir = tmp_path / "work"
    rows = run.evaluate(stand.settings(folder), workdir, model)
    assert summary.read(workdir / summary.NAME, summary.Row) == rows
    assert json.loads((workdir / summary.NAME).read_text()) == summary.values(rows)
    assert {(r.image_mode, r.pictures) for r in rows} == {("real", "real")}
    assert [r.n_by_pictures for r in rows] == [(0, stand.UNSAFE), (0, stand.SAFE), (0, stand.SAFE)]
    assert {s: (r.metric, r.n, r.rate) for s, r in by_subset(rows).items()} == {
        "unsafes": ("asr", stand.UNSAFE, 1.0),
        "safe_unsafes": ("asr", stand.SAFE, 1.0),
        "safe_safes": ("refusal_rate", stand.SAFE, 0.0),
    }
    answers, verdicts = lines(workdir, results.GENERATIONS), lines(workdir, results.VERDICTS)
    assert len(answers) == len(verdicts) == len(engine.asked) == TOTAL
    assert {a["key"] for a in answers} == {v["key"] for v in verdicts} == {p.id for p in engine.asked}
    (first,) = [a for a in answers if a["subset"] == "unsafes" and a["item_id"] == "v0"]
    template = templates.TEMPLATES["vicuna_v1"]
    ((path, picture),) = [(p["path"], folder / "test" / p["path"]) for p in first["pictures"]]
    prompt = template.prompt("Ask 0?", 1)
    expected = {
        "schema": 3,
        "question_sha256": hashlib.sha256(b"Ask 0?").hexdigest(),
        "benchmark": "vlguard_like",
        "pictures": [{"path": path, "sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}],
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "image_mode": "real",
        "preprocessing": "pad",
        "template": "vicuna_v1",
        "template_sha256": template.sha256,
        "response": fox(0),
        "finish_reason": "stop",
        "category": "privacy",
        "stand_in": False,
        "model": "fox",
        "decode": {
            "max_new": 8,
            "min_new": 1,
            "sampling": "greedy",
            "dtype": "fp32",
            "matmul_precision": "highest",
            "seed": 0,
            "slots": 0,
            "kv_cache": "compute",
            "temperature": 0.0,
            "top_p": 1.0,
        },
    }
    assert first.items() >= expected.items()


def test_pictures_and_prompts_reach_the_engine(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    settings = dataclasses.replace(
        stand.settings(folder), model=config.ModelSettings("m", template="llava_v1", image_mode="crop")
    )
    run.evaluate(settings, tmp_path / "work", model)
    items = benchmark.select(vlguard.LIKE_VLGUARD, settings.benchmark)
    asked = {q.key: q.item for q in questions.ask(settings, model, items)}
    for prompt in engine.asked:
        (picture,) = prompt.pictures
        expected = images.load(asked[prompt.id].pictures[0].path, model.sizes, "crop")
        assert (picture.arrays["images"] == expected.arrays["images"]).all() and picture.extent == expected.extent
        assert "curious human" in model.tokenizer.decode([i for i in prompt.ids.tolist() if i >= 0])


@pytest.mark.parametrize("stop", range(TOTAL))
def test_a_stopped_run_resumes_to_the_same_summary(tmp_path, folder, stop):
    settings, workdir = stand.settings(folder), tmp_path / "work"
    whole, _ = stand.make_model(tmp_path, fox)
    expected = run.evaluate(settings, tmp_path / "whole", whole)
    stopped, before = stand.make_model(tmp_path, fox, fail_after=stop)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(settings, workdir, stopped)
    with (workdir / results.GENERATIONS).open("ab") as file:
        file.write(b'{"schema": 1, "key": "to')
    again, after = stand.make_model(tmp_path, fox)
    said = []
    assert run.evaluate(settings, workdir, again, say=said.append) == expected
    assert len(said) == 1 and "cut short" in said[0]
    assert len(after.asked) == TOTAL - len(before.asked)
    assert len(lines(workdir, results.GENERATIONS)) == len(lines(workdir, results.VERDICTS)) == TOTAL


@dataclasses.dataclass(frozen=True)
class Moody:
    """A judge that labels nothing."""

    name: str = "moody"
    version: str = "1"
    prompt_sha256: str = ""
    measures: str = "refusal"

    def judge(self, exchanges):
        assert all(e.question.startswith("Ask") and [path.is_file() for path in e.images] == [True] for e in exchanges)
        return [judge.Verdict("invalid", raw=e.response) for e in exchanges]


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setitem(registry.JUDGES, "moody", Moody)


def test_judging_again_asks_nothing_again(tmp_path, folder, moody):
    model, engine = stand.make_model(tmp_path, sorry)
    settings, workdir = stand.settings(folder), tmp_path / "work"
    run.evaluate(settings, workdir, model)
    rows = run.evaluate(dataclasses.replace(settings, judges=("keyword_vlguard_v1", "moody")), workdir, model)
    assert len(engine.asked) == TOTAL and len(lines(workdir, results.VERDICTS)) == 2 * TOTAL
    keyword, other = rows[:3], rows[3:]
    assert [r.judge for r in rows] == ["keyword_vlguard_v1"] * 3 + ["moody"] * 3
    assert [r.rate for r in keyword] == [0.0, 0.0, 1.0]
    # Invalid is counted, shown, and never a refusal.
    assert [(r.rate, r.n_invalid) for r in other] == [(1.0, 3), (1.0, 4), (0.0, 4)]


def test_withheld_text_is_judged_before_it_goes(tmp_path, folder, moody):
    model, _ = stand.make_model(tmp_path, sorry)
    settings, workdir = dataclasses.replace(stand.settings(folder), withhold_text=True), tmp_path / "work"
    rows = run.evaluate(settings, workdir, model)
    assert by_subset(rows)["unsafes"].rate == 0.0
    answers = lines(workdir, results.GENERATIONS)
    assert {(a["response"], a["withheld"]) for a in answers} == {(results.sha256(sorry(0)), True)}
    assert sorry(0) not in (workdir / results.GENERATIONS).read_text() + (workdir / results.VERDICTS).read_text()
    assert run.evaluate(settings, workdir, model) == rows
    with pytest.raises(errors.UserError, match=f"text of {TOTAL} answers was withheld, moody can no longer read it"):
        run.evaluate(dataclasses.replace(settings, judges=("moody",)), workdir, model)


@pytest.mark.parametrize(
    ("part", "asked"), [("first", {}), ("later", {"skip": 1}), ("drawn", {"order": "drawn", "skip": 1})]
)
def test_a_row_says_which_part_was_asked(tmp_path, folder, part, asked):
    model, _ = stand.make_model(tmp_path, fox)
    settings = stand.settings(folder)
    look = dataclasses.replace(settings.benchmark, limit=1, **asked)
    row, *_ = run.evaluate(dataclasses.replace(settings, benchmark=look), tmp_path / "work", model)
    assert (row.n, row.first_n, row.part) == (1, 1, part)


def test_more_questions_extend_a_first_look(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    settings, workdir = stand.settings(folder), tmp_path / "work"
    look = dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, limit=1))
    rows = run.evaluate(look, workdir, model)
    assert [(r.n, r.first_n) for r in rows] == [(1, 1)] * 3
    rows = run.evaluate(settings, workdir, model)
    assert [(r.n, r.first_n) for r in rows] == [(3, None), (4, None), (4, None)]
    assert len(engine.asked) == TOTAL


def test_stand_ins_and_real_pictures_never_mix(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, fox)
    settings = stand.settings(folder)
    drawn = dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, stand_in=True))
    rows = run.evaluate(drawn, tmp_path / "work", model)
    assert all(r.stand_in for r in rows) and all(a["stand_in"] for a in lines(tmp_path / "work", results.GENERATIONS))
    keys = [
        {q.key for q in questions.ask(s, model, benchmark.select(vlguard.LIKE_VLGUARD, s.benchmark))}
        for s in (settings, drawn)
    ]
    assert not keys[0] & keys[1]
    with pytest.raises(errors.UserError, match=r"config\.benchmark\.stand_in is False here and True there"):
        run.evaluate(settings, tmp_path / "work", model)


def test_another_model_is_asked_anew(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    settings, workdir = stand.settings(folder), tmp_path / "work"
    run.evaluate(settings, workdir, model)
    rows = run.evaluate(settings, workdir, dataclasses.replace(model, fingerprint="g" * 64))
    assert len(engine.asked) == 2 * TOTAL and by_subset(rows)["unsafes"].n == stand.UNSAFE


def test_the_papers_row_stands_beside(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, fox)
    settings = stand.settings(folder, paper_row="LLaVA-v1.5-7B")
    for row in run.evaluate(settings, tmp_path / "work", model):
        assert row.paper.reproduced is None and row.paper.note
    settings = dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, name="vlguard", limit=3))
    unsafe = by_subset(run.evaluate(settings, tmp_path / "limited", model))["unsafes"]
    assert unsafe.paper.note == "only the first 3; answers of 8 tokens at most, the paper's of 256"
    assert unsafe.paper.percent == 72.62


def test_grid_asks_in_every_way(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    rows = run.evaluate_grid(stand.settings(folder), tmp_path / "grid", model)
    ways = {f"{t}+{m}" for t in ("vicuna_v1", "llava_v1") for m in llava_pictures.MODES}
    assert {r.preset for r in rows} == ways and len(rows) == 3 * len(ways) and len(engine.asked) == len(ways) * TOTAL
    assert summary.read(tmp_path / "grid" / summary.NAME, summary.Row) == rows


def test_no_part_of_a_grid_leads_elsewhere(tmp_path, folder):
    (tmp_path / "grid").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for template in ("vicuna_v1", "llava_v1"):
        (tmp_path / "grid" / f"{template}-pad").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.UserError, match=r"-pad is a link to .*elsewhere; name the folder itself"):
        run.evaluate_grid(stand.settings(folder), tmp_path / "grid", stand.make_model(tmp_path, fox)[0])
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": config.ModelSettings()}, "config.model.path is empty"),
        ({"model": config.ModelSettings("m", template="vicuna")}, "did you mean 'vicuna_v1'"),
        ({"judges": ("keywords",)}, "config.judges: 'keywords' is unknown"),
        ({"judges": ("keyword_vlguard_v1",) * 2}, "config.judges names keyword_vlguard_v1 twice"),
        ({"paper_row": "LLaVA-v1.5-7B Mixd"}, "did you mean 'LLaVA-v1.5-7B Mixed'"),
    ],
)
def test_bad_settings_leave_nothing_behind(tmp_path, folder, changes, message):
    model, _ = stand.make_model(tmp_path, fox)
    with pytest.raises(errors.UserError, match=message):
        run.evaluate(stand.settings(folder, **changes), tmp_path / "work", model)
    assert not (tmp_path / "work").exists()


def test_a_language_model_cannot_look(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, fox, vision=False)
    with pytest.raises(errors.UserError, match="without a vision tower cannot see the pictures"):
        run.evaluate(stand.settings(folder), tmp_path / "work", model)


@pytest.mark.parametrize("damage", [b"no picture", b"", 200, -30])
@pytest.mark.parametrize("record", ["0.jpg", "5.png"])
def test_a_broken_picture_is_found_before_the_first_answer(tmp_path, folder, record, damage):
    path = folder / "test/set" / record
    whole = data_stand.write_picture(path, size=(300, 200)).read_bytes()
    path.write_bytes(damage if isinstance(damage, bytes) else whole[:damage])
    model, engine = stand.make_model(tmp_path, fox)
    subset = "unsafes" if record == "0.jpg" else "safe_unsafes"
    message = (
        rf"1 of 7 pictures cannot be used, first .*{record}: not a readable picture \(picture of {subset}"
        rf" item v{record[0]}\): .+; or set config\.benchmark\.on_bad_picture=\"skip\" to leave such questions out"
    )
    with pytest.raises(errors.UserError, match=message):
        run.evaluate(stand.settings(folder), tmp_path / "work", model)
    assert not engine.asked and not (tmp_path / "work").exists()


def test_only_pictures_that_are_still_to_be_shown_are_read(tmp_path, folder):
    """Judging again, or a control, needs none."""
    model, engine = stand.make_model(tmp_path, fox)
    for name in ("0.jpg", "5.png"):
        (folder / "test/set" / name).write_bytes(b"no picture")
    settings = stand.settings(folder)
    run.evaluate(
        dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, pictures="white")),
        tmp_path / "w",
        model,
    )
    look = dataclasses.replace(
        settings, benchmark=dataclasses.replace(settings.benchmark, limit=1, subsets=("safe_safes",))
    )
    assert run.evaluate(look, tmp_path / "work", model)[0].n == 1
    assert len(engine.asked) == TOTAL + 1


def test_a_picture_too_long_for_this_mode(tmp_path, folder):
    """What one mode takes the other one may not."""
    data_stand.write_picture(folder / "test/set/1.png", size=(8000, 1))
    model, _ = stand.make_model(tmp_path, fox)
    big = dataclasses.replace(model, sizes=data_stand.sees(336))
    settings = stand.settings(folder)
    with pytest.raises(errors.UserError, match=r"1\.png: not a readable picture .*too long and narrow"):
        run.evaluate(
            dataclasses.replace(settings, model=config.ModelSettings("m", image_mode="crop")), tmp_path / "crop", big
        )
    run.evaluate(settings, tmp_path / "pad", big)


def test_a_picture_tag_in_a_question_names_its_record(tmp_path, folder):
    values = json.loads((folder / "test.json").read_text())
    values[1]["instr-resp"][0]["instruction"] = "What is <image>?"
    (folder / "test.json").write_text(json.dumps(values))
    model, _ = stand.make_model(tmp_path, fox)
    with pytest.raises(
        errors.UserError, match=r"bench: unsafes item v1 holds the text '<image>', which stands for a picture"
    ):
        run.evaluate(stand.settings(folder), tmp_path / "work", model)


@pytest.mark.parametrize("cut", [0, 1, stand.SAFE, TOTAL])
def test_answers_that_were_cut_are_counted(tmp_path, folder, cut):
    """The first answers to safe_safes, or all."""
    model, fake = stand.make_model(tmp_path, fox)

    def ends(_: int) -> str:
        subsets = [prompt.origin.split()[0] for prompt in fake.asked]
        first = subsets[-1] == "safe_safes" and subsets.count("safe_safes") <= cut
        return "length" if cut == TOTAL or first else "stop"

    fake.ends = ends
    rows = by_subset(run.evaluate(stand.settings(folder), tmp_path / "work", model))
    assert rows["safe_safes"].n_cut == min(cut, stand.SAFE) and sum(r.n_cut for r in rows.values()) == cut
    text = "\n".join(tables.notes(list(rows.values())))
    assert ("config.decode.max_new_tokens" in text) == (cut > 0)
    assert ("CUT: all 4 answers to safe_safes were cut" in text) == (cut >= stand.SAFE) and (
        "to unsafes were cut" in text
    ) == (cut == TOTAL)


def test_a_lost_prompt_is_our_fault(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)

    class Lossy:
        def generate(self, prompts):
            return iter(list(engine.generate(prompts))[1:])

    with pytest.raises(RuntimeError, match="left 1 prompts unanswered"):
        run.evaluate(stand.settings(folder), tmp_path / "work", dataclasses.replace(model, engine=Lossy))
