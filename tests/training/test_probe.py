"""Evaluations on the way: what they measure, that the training does not notice, and what a stopped one leaves."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import signal
from typing import Any

import jax
import numpy as np
import pytest

from tests.safety import test_probes
from tests.training import probing
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import probes
from vlguard_jax.training import loop
from vlguard_jax.training import probe as probe_lib


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def _evaluated(model: pathlib.Path, folder: pathlib.Path) -> dict[tuple[str, str], str]:
    """The answers of a model's folder, by `evaluate`."""
    settings = config.EvalConfig(
        model=config.ModelSettings(str(model)),
        precision=config.EvalPrecisionSettings("fp32"),
        benchmark=config.BenchmarkSettings("vlguard_like", str(probing.benchmark())),
        decode=config.DecodeSettings(max_new_tokens=4, batch_size=8),
    )
    from_checkpoint.evaluate(settings, folder, quiet=True)
    return probing.answers(folder)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """without/ and with/: the same run, with probes after updates 0, 2, 4, 6 and without."""
    root = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        stand.use_devices(patch, 1)
        loop.train(stand.settings(run={"export": "llava"}), root / "without")
        loop.train(stand.settings(probe=probing.probe(), run={"export": "llava", "tensorboard": True}), root / "with")
    return root


def test_the_training_does_not_notice(probed: pathlib.Path) -> None:
    """Losses, gradient norms and the tuned model are the same to the bit."""
    ours, theirs = stand.metrics(probed / "with"), stand.metrics(probed / "without")
    assert ours == theirs and len(ours) == 6
    files = sorted(path.name for path in (probed / "without/model").glob("*.safetensors"))
    assert files
    for name in files:
        assert (probed / "with/model" / name).read_bytes() == (probed / "without/model" / name).read_bytes()


def test_a_probe_answers_as_the_model_does(probed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """At the start as the model that is tuned, at the end as the tuned one."""
    first = _evaluated(stand.folder() / "init", tmp_path / "init")
    last = _evaluated(probed / "with/model", tmp_path / "tuned")
    assert probing.answers(probed / "with/probe/0/tiny") == first
    assert probing.answers(probed / "with/probe/6/tiny") == last != first


def test_its_line_has_the_rates_of_its_answers(probed: pathlib.Path) -> None:
    found = probes.read(probed / "with")
    assert [probe.step for probe in found] == [0, 2, 4, 6]
    assert len({probe.weights_sha256 for probe in found}) == 4
    for probe in found:
        folder = probed / "with/probe" / str(probe.step) / "tiny"
        rows = json.loads((folder / "summary.json").read_text())
        assert tuple(rate.name for rate in probe.rates) == probing.RATES
        assert [(r.rate, r.ci_low, r.n) for r in probe.rates] == [(r["rate"], r["ci_low"], r["n"]) for r in rows]
        assert {line["weights_sha256"] for line in probing.lines(folder / "generations.jsonl")} == {
            probe.weights_sha256
        }
    assert not [path for path in (probed / "without").glob("probe*")]


def test_the_copy_of_the_weights_is_gone_after_a_probe(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    measure = probe_lib.Prober.measure

    def watched(*args, **named) -> bool:
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        went_on = measure(*args, **named)
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return went_on

    monkeypatch.setattr(probe_lib.Prober, "measure", watched)
    settings = stand.settings(probe=probing.probe(at_start=False), optimizer={"max_steps": 4})
    loop.train(settings, tmp_path)
    first, *later = held
    assert len(held) == 4 and all(abs(bytes_ - first) < 100 for bytes_ in later)  # the copy has a million


class _Killed(BaseException):
    pass


def _after(monkeypatch: pytest.MonkeyPatch, answers: int, do) -> list[str]:
    """Have `do` called after so many answers of all probes; returns the keys that were answered."""
    generate, seen = probe_lib._Stoppable.generate, []

    def counted(self, prompts):
        for answer in generate(self, prompts):
            seen.append(answer.id)
            yield answer
            if len(seen) == answers:
                do()

    monkeypatch.setattr(probe_lib._Stoppable, "generate", counted)
    return seen


def _same_files(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    assert stand.metrics(ours) == stand.metrics(theirs)
    assert probing.lines(ours / "probe.jsonl") == probing.lines(theirs / "probe.jsonl")
    for step in (0, 2, 4, 6):
        assert probing.answers(ours / f"probe/{step}/tiny") == probing.answers(theirs / f"probe/{step}/tiny")


def _kill() -> None:
    raise _Killed


def test_a_run_killed_in_a_probe_makes_it_once(
    probed: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that of update 4, while the last checkpoint is of update 2."""
    settings = stand.settings(probe=probing.probe(), run={"save_every": 2})
    with monkeypatch.context() as patch:
        _after(patch, 2 * probing.TOTAL + 5, _kill)
        with pytest.raises(_Killed):
            loop.train(settings, tmp_path)
    assert [probe.step for probe in probes.read(tmp_path)] == [0, 2]
    assert len(probing.lines(tmp_path / "probe/4/tiny/generations.jsonl")) == 5
    seen = _after(monkeypatch, 0, _kill)
    assert loop.train(settings, tmp_path).finished
    assert len(seen) == 2 * probing.TOTAL, "the probe of update 4 again, and that of 6"
    _same_files(tmp_path, probed / "with")


def test_sigterm_in_a_probe_saves_and_the_next_run_finishes_it(
    probed: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stand.settings(probe=probing.probe())
    with monkeypatch.context() as patch:
        _after(patch, 2 * probing.TOTAL + 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = loop.train(settings, tmp_path)
    assert not stopped.finished and stopped.step == 4 and (tmp_path / "checkpoints/4").is_dir()
    answered = len(probing.lines(tmp_path / "probe/4/tiny/generations.jsonl"))
    assert 3 <= answered < probing.TOTAL
    seen = _after(monkeypatch, 0, _kill)
    assert loop.train(settings, tmp_path).finished
    assert len(seen) == 2 * probing.TOTAL - answered
    _same_files(tmp_path, probed / "with")


def test_withheld_answers_are_hashes(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(
        probe=probing.probe(withhold_text=True, at_start=False, every=3), optimizer={"max_steps": 1}
    )
    loop.train(settings, tmp_path)
    (folder,) = (tmp_path / "probe").iterdir()
    found = probing.lines(folder / "tiny/generations.jsonl")
    assert folder.name == "1" and all(line["withheld"] and len(line["response"]) == 64 for line in found)


def _settings(**changes) -> config.TrainConfig:
    keep = config.BestSettings(**changes.pop("keep", {}))
    return stand.settings(probe=probing.probe(**changes), run={"keep_best": keep})


BAD = {
    "no evaluation": ({"evaluations": {}}, r"config\.probe\.every=2 and config\.probe\.evaluations is empty"),
    "a folder": ({"evaluations": {"a/b": config.ProbedSettings()}}, "'a/b' cannot be the name of an evaluation"),
    "no file": (
        {"evaluations": {"vg": config.ProbedSettings()}},
        r"config\.probe\.evaluations\.vg\.benchmark\.path is empty: name VLGuard's test\.json",
    ),
    "benchmark": (
        {"evaluations": {"vg": config.ProbedSettings(config.BenchmarkSettings("vlgard"))}},
        r"config\.probe\.evaluations\.vg\.benchmark\.name='vlgard' is unknown; did you mean 'vlguard'",
    ),
    "judge": (
        {"evaluations": {"vg": config.ProbedSettings(judges=("keyword",))}},
        r"config\.probe\.evaluations\.vg\.judges: 'keyword' is unknown",
    ),
    "best of nothing": (
        {"every": 0, "keep": {"rate": probing.RATES[0]}},
        r"config\.probe\.every=0: set after how many",
    ),
    "no such rate": (
        {"keep": {"rate": "tiny/unsafe/asr"}},
        r"config\.run\.keep_best\.rate='tiny/unsafe/asr' is measured by no evaluation.*did you mean 'tiny/unsafes/asr'",
    ),
    "no such guard": (
        {"keep": {"rate": probing.RATES[0], "guard": "tiny/asr"}},
        r"config\.run\.keep_best\.guard='tiny/asr' is measured by no evaluation",
    ),
    "a guard alone": ({"keep": {"guard": probing.RATES[2]}}, "guards nothing: set config.run.keep_best.rate"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_before_the_first_step(tmp_path: pathlib.Path, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(errors.UserError, match=message) as error:
        loop.train(_settings(**changes), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_the_best_checkpoint_is_kept_and_written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of update 2 beside the last one, of 4: as a run that ends after update 2."""
    asr = iter((9, 3, 6))
    rate = probing.RATES[0]
    monkeypatch.setattr(probe_lib.probes, "rates", lambda rows: (test_probes.rate(rate, next(asr)),))
    run = {"export": "llava", "keep_best": config.BestSettings(rate)}
    settings = stand.settings(probe=probing.probe(), run=run, optimizer={"max_steps": 4})
    loop.train(settings, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit()} == {"2", "4"}
    found = json.loads((tmp_path / "run/best.json").read_text())
    assert (found["step"], found["of"], found["rates"]) == (2, 2, {rate: 0.3})
    loop.train(stand.settings(run={"export": "llava"}, optimizer={"max_steps": 2}), tmp_path / "two")
    ours, theirs = (trees.flatten(load.load(tmp_path / name).params) for name in ("run/best", "two/model"))
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.more
def test_a_run_that_goes_on_past_its_best_leaves_no_stale_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Update 2 is the best of four, then update 6 is, which is the last: model/ is the best, and best/ was another."""
    asr, rate = iter((9, 3, 6, 1)), probing.RATES[0]
    monkeypatch.setattr(probe_lib.probes, "rates", lambda rows: (test_probes.rate(rate, next(asr)),))
    run = {"export": "llava", "keep_best": config.BestSettings(rate)}
    loop.train(stand.settings(probe=probing.probe(), run=run, optimizer={"max_steps": 4}), tmp_path)
    assert (tmp_path / "best/config.json").exists()
    loop.train(stand.settings(probe=probing.probe(), run=run), tmp_path)
    assert not (tmp_path / "best").exists() and (tmp_path / "model").is_dir()
    assert f"removed {tmp_path / 'best'}: an earlier end of this run" in capsys.readouterr().out.replace("\n", " ")
    asked = {"tiny": config.ProbedSettings(config.BenchmarkSettings("vlguard_like", str(probing.benchmark())))}
    run["keep_best"] = config.BestSettings("later/unsafes/asr")
    later = probing.probe(evaluations={"later": asked["tiny"]})
    loop.train(stand.settings(probe=later, run=run), tmp_path)
    said = capsys.readouterr().out.replace("\n", " ")
    assert "no probe after an update has later/unsafes/asr: no checkpoint is the best" in said


def test_answers_that_no_judge_reads(tmp_path: pathlib.Path) -> None:
    """A judge of right answers reads those to harmless questions alone."""
    asked = config.BenchmarkSettings("vlguard_like", str(probing.benchmark()))
    only = {"tiny": config.ProbedSettings(asked, ("exact_match_v1",))}
    changes = {"at_start": False, "evaluations": only}
    loop.train(stand.settings(probe=probing.probe(**changes), optimizer={"max_steps": 1}), tmp_path)
    (found,) = probes.read(tmp_path)
    assert [rate.name for rate in found.rates] == ["tiny/safe_safes/accuracy"]
    assert len(probing.answers(tmp_path / "probe/1/tiny")) == probing.TOTAL


@pytest.mark.parity
@pytest.mark.parametrize(
    "changes",
    [
        {"decode": config.DecodeSettings(max_new_tokens=5, batch_size=8)},
        {"judges": ("keyword_vlguard_v1", "keyword_repaired")},
        {"withhold_text": False},
    ],
)
def test_a_stopped_probe_with_changed_settings_is_made_anew(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """What was withheld cannot be judged again, and answers of other lengths do not belong together."""
    first = probing.probe(withhold_text=True, at_start=False)
    with monkeypatch.context() as patch:
        _after(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = loop.train(stand.settings(probe=first, optimizer={"max_steps": 2}), tmp_path)
    assert not stopped.finished and stopped.step == 2
    asked = config.BenchmarkSettings("vlguard_like", str(probing.benchmark()))
    if judges := changes.pop("judges", None):
        changes = {"evaluations": {"tiny": config.ProbedSettings(asked, judges)}}
    second = probing.probe(**{"withhold_text": True, "at_start": False, **changes})
    seen = _after(monkeypatch, 0, _kill)
    assert loop.train(stand.settings(probe=second, optimizer={"max_steps": 2}), tmp_path).finished
    assert len(seen) == probing.TOTAL == len(probing.answers(tmp_path / "probe/2/tiny"))


@pytest.mark.parity
def test_a_best_update_that_was_not_kept_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was measured before anybody asked for the best."""
    asr, rate = iter((9, 3, 6, 8)), probing.RATES[0]
    monkeypatch.setattr(probe_lib.probes, "rates", lambda rows: (test_probes.rate(rate, next(asr)),))
    loop.train(stand.settings(probe=probing.probe(), optimizer={"max_steps": 4}), tmp_path)
    run = {"export": "llava", "keep_best": config.BestSettings(rate)}
    assert loop.train(stand.settings(probe=probing.probe(), run=run), tmp_path).finished
    assert f"best by {rate}: update 2 (30.0 %), not kept: config.run.keep_best was set later" in capsys.readouterr().out
    assert not (tmp_path / "best").exists()
