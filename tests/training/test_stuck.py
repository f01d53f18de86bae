"""The state before skipped updates."""

import pathlib
from typing import Any

import jax
import pytest

from tests.training import stand
from vlguard_jax.training import spikes
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import stuck


def test_rewinding_changes_the_number_only() -> None:
    state = step_lib.TrainState(jax.numpy.int32(7), {"a": jax.numpy.ones(2)}, ())
    assert int(stuck.rewound(state, 3).step) == 4 and stuck.rewound(state, 0) is state
    assert stuck.rewound(state, 3).params is state.params


@pytest.mark.parametrize(
    ("saved", "said"),
    [(3, "the last good state is run/checkpoints/3"), (0, "no update before it was good")],
)
def test_no_checkpoint_is_named_that_is_not_there(monkeypatch: pytest.MonkeyPatch, saved: int, said: str) -> None:
    monkeypatch.setattr(spikes, "held", lambda data, update: [("chats", "chat-1")])
    data: Any = None
    message = str(stuck.problem(stand.settings(), data, pathlib.Path("run"), 10 + saved, saved))
    assert said in message and ("checkpoints/" in message) == (saved > 0)
