"""The command `verify` as far as it goes without a model."""

from __future__ import annotations

import pathlib
import sys

import pytest

from vlguard_jax import errors
from vlguard_jax.verifying import compare
from vlguard_jax.verifying import hugging_face
from vlguard_jax.verifying import show


def test_without_torch_the_way_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(errors.UserError, match=r"PyTorch, which is not installed here .*compare here with --golden"):
        hugging_face.make("owner/name", tmp_path / "golden")
    assert not (tmp_path / "golden").exists()


def test_what_differs_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show.show(
        [
            compare.Stage("prompt", "0 prompts", "", "", None, "no chat template"),
            compare.Stage("pixels", "3 pictures", "0", "0.0001", True),
            compare.Stage("logits", "9 places", "0.2", "0.0001", False, "prompt text, place 3: off by 0.2"),
        ]
    )
    said = capsys.readouterr().out
    assert "not compared" in said and "DIFFERS" in said and "holds" in said
    assert "logits: prompt text, place 3: off by 0.2" in said and "prompt: no chat template" in said
