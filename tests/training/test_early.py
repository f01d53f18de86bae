"""What a config names is checked before the first source is read."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import re
from typing import Any

import pytest

from tests.training import probing
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import mixtures
from vlguard_jax.training import loop


def source(**changes: str) -> config.SourceSettings:
    root = stand.folder()
    return config.SourceSettings(**{"path": str(root / "chats.json"), "images": str(root / "pictures")} | changes)


def probes(judge: str = "keyword_repaired", **benchmark: str) -> dict[str, Any]:
    one = config.ProbedSettings(config.BenchmarkSettings(**benchmark), (judge,))
    return {"probe": {"every": 1, "evaluations": {"b": one}}}


CASES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "the last source": (
        lambda: {"data": {"sources": {"a": source(), "b": source(path="nowhere.json")}}},
        "nowhere.json: no such file (config.data.sources.b.path)",
    ),
    "what is held out": (
        lambda: {"validation": {"every": 1, "sources": {"b": source(path="nowhere.json")}}},
        "nowhere.json: no such file (config.validation.sources.b.path)",
    ),
    "the loss": (lambda: {"loss": "cros_entropy"}, "did you mean 'cross_entropy'?"),
    "what a probe asks": (lambda: probes(path="nowhere"), "config.probe.evaluations.b: nowhere: no such file"),
    "a probe's judge": (
        lambda: probes("keyword", name="vlguard_like", path=str(probing.benchmark())),
        "config.probe.evaluations.b.judges: 'keyword' is unknown",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_read_before(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    make, message = CASES[case]
    changes = make()

    def read(*_: object) -> None:
        raise AssertionError("a source was read")

    monkeypatch.setattr(mixtures, "build", read)
    with pytest.raises(errors.UserError, match=re.escape(message)) as error:
        loop.train(stand.settings(**changes), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
