"""The whole quickstart on a very small world: every file is there, and a run that was stopped again and again ends with
the same bytes."""

from __future__ import annotations

import html
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import pytest

from tests import source
from tests.quickstart import run_small
from tests.quickstart import stand
from vlguard_jax import errors
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import claims
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import story
from vlguard_jax.quickstart import world
from vlguard_jax.safety import summary

RESULTS = ("summary.json", "probes.json", "claims.json")
PICTURES = [
    ("unsafes", "asr"),
    ("safe_unsafes", "asr"),
    ("safe_safes", "refusal_rate"),
    ("safe_safes", "accuracy"),
]
TEXTS = [("text_safe", "refusal_rate"), ("text_unsafe", "asr"), ("text_suffix", "asr")]


def run(folder: Path, *moments: str) -> str:
    """Tell the story in processes of its own; what they printed. They share compiled programs, however small."""
    environment = dict(os.environ, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    del environment["XLA_FLAGS"]  # one device
    command = [sys.executable, "-m", "tests.quickstart.run_small", str(folder), *moments]
    done = subprocess.run(
        command, cwd=source.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A story that nothing interrupted."""
    folder = tmp_path_factory.mktemp("quickstart") / "told"
    run(folder)
    return folder


@pytest.mark.parity
def test_summary_holds_the_six_subsets_of_each_arm(told: Path) -> None:
    rows = summary.read(told / summary.NAME, summary.Row)
    expected = [
        (arm.name, *measured) for arm in run_small.ARMS for measured in ([*PICTURES, *TEXTS] if arm.pictures else TEXTS)
    ]
    assert [(r.model, r.subset, r.metric) for r in rows] == expected
    for row in rows:
        assert row.n == (stand.SMALL.prompts if row.subset.startswith("text") else stand.SMALL.test)
        assert 0 <= row.ci_low <= row.rate <= row.ci_high <= 1 and not row.stand_in and row.n_invalid == 0
        assert row.preset == "quickstart" and (row.vs_baseline is None) == (row.model in ("llm", "base"))
    assert len({row.weights_sha256 for row in rows}) == len(run_small.ARMS)


@pytest.mark.parity
def test_probes_and_claims(told: Path) -> None:
    with_pictures = [arm.name for arm in run_small.ARMS if arm.pictures]
    expected = [
        (name, probe.name, subset) for name in with_pictures for probe in arms.PROBES for subset in probe.subsets
    ]
    probes = summary.read(told / claims.PROBES, claims.ProbeRow)
    assert [(r.model, r.probe, r.subset) for r in probes] == expected
    assert {r.image_mode for r in probes if r.probe == "blanked"} == {"white"}
    assert claims.read(told) == claims.check(told, summary.read(told / summary.NAME, summary.Row), probes)
    assert {claim.text.split(",")[0].split(" ")[0] for claim in claims.read(told)} == {"llm", "base", "posthoc"}


@pytest.mark.parity
def test_report_shows_table_claims_and_seed(told: Path) -> None:
    page = html.unescape((told / "report.html").read_text().replace("<wbr>", ""))
    assert story.TITLE in page and story.honesty(run_small.SEED, "test") in page
    for arm in run_small.ARMS:
        assert arm.name in page
    for claim in claims.read(told):
        assert claim.text in page


@pytest.mark.parity
def test_stopped_at_many_moments_it_ends_with_the_same_bytes(told: Path, tmp_path: Path) -> None:
    """Killed while it draws, trains, saves, exports and asks; interrupted between arms; told to leave while it
    trains."""
    printed = run(tmp_path / "stopped", *run_small.MOMENTS)
    assert re.findall(r"resumed after update (\d+)", printed)[0] == "3"  # from the save before the one it was killed in
    # what was finished is not done again
    assert sorted(re.findall(r"wrote \S+/(\w+)/model ", printed)) == ["base", "llm", "posthoc"]
    for name in RESULTS:
        assert (tmp_path / "stopped" / name).read_bytes() == (told / name).read_bytes(), name
    left = [path.name for path in (tmp_path / "stopped").iterdir()]
    assert not [name for name in left if name.startswith(".")] and sorted(left) == sorted(
        path.name for path in told.iterdir()
    )


def test_a_folder_belongs_to_one_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world, "write", lambda folder, *_: folder.mkdir())  # the first result
    monkeypatch.setattr(model, "write", stop)
    asked: dict[str, Any] = {"items": "test", "arms": arms.ARMS, "sizes": stand.SMALL}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            story.tell(tmp_path, 1000, **asked)
    with pytest.raises(errors.UserError, match=r"config\.seed is 1001 here and 1000 there"):
        story.tell(tmp_path, 1001, **asked)
    for name, other in (("items", "tuning"), ("arms", arms.ARMS[:1]), ("sizes", stand.MEDIUM)):
        with pytest.raises(errors.UserError, match=rf"config\.{name}"):
            story.tell(tmp_path, 1000, **(asked | {name: other}))


def test_page_says_how_settings_were_chosen() -> None:
    """Whatever was looked at while they were chosen is no result, and the page says so."""
    assert story.honesty(2, "test") != story.honesty(1000, "test")
    for seed, items in ((1000, "test"), (1000, "tuning"), (2, "tuning")):
        assert "no figure of this page is a result" in story.honesty(seed, items)
    assert "no figure of this page is a result" not in story.honesty(2, "test")
