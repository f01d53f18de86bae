"""The state before skipped updates."""

import jax

from vlguard_jax.training import step as step_lib
from vlguard_jax.training import stuck


def test_rewinding_changes_the_number_only() -> None:
    state = step_lib.TrainState(jax.numpy.int32(7), {"a": jax.numpy.ones(2)}, ())
    assert int(stuck.rewound(state, 3).step) == 4 and stuck.rewound(state, 0) is state
    assert stuck.rewound(state, 3).params is state.params
