"""Whether a probe fits beside the training, by hand."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.training import probing
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.generation import memory
from vlguard_jax.training import loop
from vlguard_jax.training import probe_memory
from vlguard_jax.training import setup

GIB = 2**30

LONGEST, NEW, SLOTS = 40, 4, 8


def _settings(reuse: float = 0.0, **changes) -> config.TrainConfig:
    decode = config.DecodeSettings(max_new_tokens=NEW, batch_size=SLOTS, reuse_gib=reuse)
    return stand.settings(probe=probing.probe(decode=decode), **changes)


def _sizes() -> tuple[int, int, int, int]:
    """(all numbers, those of the decoder's layers, trained ones, of keys and values for a token)."""
    model = load.load(stand.folder() / "init")
    flat = {path: value.size for path, value in trees.flatten(model.params).items()}
    layers = sum(size for path, size in flat.items() if path.startswith("text.layers"))
    trained = sum(size for path, size in flat.items() if not path.startswith("vision."))
    text = model.config.text
    return sum(flat.values()), layers, trained, 2 * text.num_layers * text.num_kv_heads * text.head_width


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_what_is_needed(monkeypatch: pytest.MonkeyPatch, compute: str) -> None:
    """Weights, two moments and the tower stay in fp32; the layers are copied, in bf16 everything is."""
    settings = _settings(precision={"compute": compute})
    program = setup.build_program(settings, setup.load_model(settings), 6)
    all_, layers, trained, token = _sizes()
    width = 4 if compute == "fp32" else 2
    copy = layers * 4 if compute == "fp32" else all_ * 2
    # a prompt of 40 tokens can take 256 places: it is padded twice, as prefix and rest, and the sum again
    cache = SLOTS * token * width * (256 + NEW)
    needed = 4 * all_ + 8 * trained + copy + cache
    whole = needed / (1 - memory.KEPT)
    monkeypatch.setattr(memory, "limit", lambda mesh: int(whole * 1.001))
    probe_memory.check(settings, program, LONGEST)
    monkeypatch.setattr(memory, "limit", lambda mesh: int(whole * 0.999))
    with pytest.raises(
        errors.UserError, match=r"config\.probe\.decode\.batch_size=8: a probe takes .*; set it to 7 or"
    ):
        probe_memory.check(settings, program, LONGEST)
    probe_memory.check(settings, program, 0)  # there are no probes


def test_a_training_is_refused_before_its_first_step(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda mesh: 2**22)
    with pytest.raises(errors.UserError, match=r"or set config\.probe\.every=0 and evaluate the tuned") as error:
        loop.train(_settings(reuse=1.0), tmp_path)
    assert re.search(r"1\.0 of kept prefixes \(config\.probe\.decode\.reuse_gib\)", str(error.value))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
