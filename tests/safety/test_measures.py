"""Accuracy, text-only prompts and control pictures through a whole evaluation."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary

BOTH = ("keyword_vlguard_v1", "exact_match_v1")


@pytest.fixture
def folder(tmp_path):
    return stand.write_benchmark(tmp_path / "bench")


def change(settings, **changes):
    return dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, **changes))


def lines(workdir, name):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def set_reference(folder, text):
    """Give every harmless question the same expected answer."""
    records = json.loads((folder / "test.json").read_text())
    for pair in (p for r in records for p in r["instr-resp"] if "safe_instruction" in p):
        pair["response"] = text
    (folder / "test.json").write_text(json.dumps(records))


@pytest.mark.parametrize("withhold", [False, True])
def test_accuracy_of_harmless_questions_only(tmp_path, folder, withhold):
    set_reference(folder, "The quick fox. ")
    # the two questions about a picture are asked one after the other
    model, _ = stand.make_model(tmp_path, lambda i: "The quick fox." if i // 2 % 2 else "A fox.")
    settings, workdir = stand.settings(folder, judges=BOTH, withhold_text=withhold), tmp_path / "work"
    rows = run.evaluate(settings, workdir, model)
    (row,) = [r for r in rows if r.judge == "exact_match_v1"]
    assert (row.subset, row.metric, row.n, row.count, row.n_invalid) == (
        "safe_safes",
        "accuracy",
        4,
        2,
        0,
    )
    assert len(rows) == 4 and sum(v["judge"] == "exact_match_v1" for v in lines(workdir, results.VERDICTS)) == 4
    assert run.evaluate(settings, workdir, model) == rows
    assert len(lines(workdir, results.VERDICTS)) == stand.UNSAFE + 3 * stand.SAFE


def test_a_corrected_reference_is_judged_anew(tmp_path, folder):
    set_reference(folder, "A fox.")
    model, engine = stand.make_model(tmp_path, lambda i: "The quick fox.")
    settings, workdir = stand.settings(folder, judges=("exact_match_v1",)), tmp_path / "work"
    assert run.evaluate(settings, workdir, model)[0].rate == 0.0
    asked = len(engine.asked)
    set_reference(folder, "The quick fox.")
    for _ in range(2):
        (row,) = run.evaluate(settings, workdir, model)
        assert row.rate == 1.0
    assert len(engine.asked) == asked and len(lines(workdir, results.VERDICTS)) == 2 * stand.SAFE


def test_accuracy_against_a_baseline(tmp_path, folder):
    set_reference(folder, "The quick fox.")
    before, _ = stand.make_model(tmp_path, lambda i: "A fox.")
    after, _ = stand.make_model(tmp_path, lambda i: "The quick fox.")
    settings = stand.settings(folder, judges=BOTH)
    run.evaluate(settings, tmp_path / "before", before)
    rows = run.evaluate(dataclasses.replace(settings, baseline=str(tmp_path / "before")), tmp_path / "after", after)
    assert rows[-1].metric == "accuracy" and rows[-1].vs_baseline.diff == 1.0
    assert [r.vs_baseline.diff for r in rows[:-1]] == [0.0] * 3


def test_a_judge_without_anything_to_measure(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, lambda i: "A fox.")
    settings = change(stand.settings(folder, judges=BOTH), subsets=("unsafes", "safe_unsafes"))
    with pytest.raises(
        errors.UserError, match=r"exact_match_v1 measures accuracy, but no subset .* vlguard_like .*: safe_safes\)"
    ):
        run.evaluate(settings, tmp_path / "work", model)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("colour", "value"), [("white", 255), ("black", 0)])
def test_one_colour_in_place_of_every_picture(tmp_path, folder, colour, value):
    for picture in (folder / "test/set").iterdir():
        picture.unlink()
    model, engine = stand.make_model(tmp_path, lambda i: "A fox.")
    rows = run.evaluate(change(stand.settings(folder), pictures=colour), tmp_path / "work", model)
    pixels = np.full((28, 28, 3), value, np.uint8)
    assert all((picture.arrays["images"] == pixels).all() for prompt in engine.asked for picture in prompt.pictures)
    assert all(len(prompt.pictures) == 1 for prompt in engine.asked)
    answers = lines(tmp_path / "work", results.GENERATIONS)
    shown = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert {a["image_mode"] for a in answers} == {colour}
    assert {picture["sha256"] for a in answers for picture in a["pictures"]} == {shown}
    assert all(len(a["pictures"]) == 1 and a["pictures"][0]["path"] for a in answers)
    assert {(r.image_mode, r.pictures) for r in rows} == {(colour, colour)}


def test_without_pictures_also_for_a_language_model(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, lambda i: "A fox.", vision=False)
    rows = run.evaluate(change(stand.settings(folder), pictures="none"), tmp_path / "work", model)
    assert not any(prompt.pictures or (prompt.ids < 0).any() for prompt in engine.asked)
    answers = lines(tmp_path / "work", results.GENERATIONS)
    assert {(a["image_mode"], len(a["pictures"]), a["pictures"][0]["sha256"]) for a in answers} == {("none", 1, "")}
    assert {(r.image_mode, r.pictures) for r in rows} == {("none", "none")}


def test_controls_never_mix_and_pair_with_the_real_run(tmp_path, folder):
    sorry, _ = stand.make_model(tmp_path, lambda i: "I'm sorry, no.")
    fox, _ = stand.make_model(tmp_path, lambda i: "A fox.")
    settings = stand.settings(folder)
    run.evaluate(settings, tmp_path / "real", sorry)
    white = change(settings, pictures="white")
    with pytest.raises(errors.UserError, match=r"config\.benchmark\.pictures is 'white' here and 'real' there"):
        run.evaluate(white, tmp_path / "real", fox)
    for mode in ("white", "black", "none"):
        asked = change(dataclasses.replace(settings, baseline=str(tmp_path / "real")), pictures=mode)
        unsafe, *_ = run.evaluate(asked, tmp_path / mode, fox)
        assert unsafe.vs_baseline.diff == 1.0
    # Two runs with the same control pair with each other, and a real run does not pair with a control.
    unsafe, *_ = run.evaluate(dataclasses.replace(white, baseline=str(tmp_path / "white")), tmp_path / "again", fox)
    assert unsafe.vs_baseline.diff == 0.0
    with pytest.raises(errors.UserError, match="unsafes item v0 was asked with another picture there"):
        run.evaluate(dataclasses.replace(settings, baseline=str(tmp_path / "white")), tmp_path / "other", fox)


def test_controls_are_not_compared_with_the_paper(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, lambda i: "A fox.")
    settings = change(stand.settings(folder, paper_row="LLaVA-v1.5-7B"), name="vlguard", limit=3, pictures="black")
    unsafe, *_ = run.evaluate(settings, tmp_path / "work", model)
    assert unsafe.paper.reproduced is None and "pictures=black" in unsafe.paper.note


def test_prompts_are_asked_without_pictures_and_their_suffix_counts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"id": str(i), "prompt": f"Ask {i}.", "safe": i % 2 == 0} for i in range(4)]))
    model, engine = stand.make_model(tmp_path, lambda i: "A fox.", vision=False)
    keys = []
    for suffix in ("Say yes.", "Say no."):
        bench = config.BenchmarkSettings(name="prompts", path=str(path), suffix=suffix)
        workdir = tmp_path / suffix[:-1]
        rows = run.evaluate(dataclasses.replace(stand.settings(path), benchmark=bench), workdir, model)
        assert [(r.subset, r.metric, r.n, r.image_mode) for r in rows] == [
            ("text_safe", "refusal_rate", 2, "none"),
            ("text_unsafe", "asr", 2, "none"),
            ("text_suffix", "asr", 2, "none"),
        ]
        assert {(r.n_by_pictures, r.pictures) for r in rows} == {((2,), summary.TEXT_ONLY)}
        assert all(a["pictures"] == [] for a in lines(workdir, results.GENERATIONS))
        keys.append({a["key"]: a["subset"] for a in lines(workdir, results.GENERATIONS)})
    assert not any(prompt.pictures for prompt in engine.asked)
    assert {keys[0][k] for k in keys[0].keys() & keys[1].keys()} == {"text_safe", "text_unsafe"}
