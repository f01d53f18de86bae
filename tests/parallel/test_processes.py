"""How a process learns that there are others."""

import pytest

from vlguard_jax import errors
from vlguard_jax.parallel import processes

PLAIN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, processes.Start("one", 1)),
        (PLAIN, processes.Start("plain", 4, 3, "10.0.0.1:1234")),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "0"}, processes.Start("tpu", 4)),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}, processes.Start("tpu", 4)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, processes.Start("one", 1)),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}, processes.Start("slurm", 8)),
        ({"SLURM_NTASKS": "8"}, processes.Start("one", 1)),  # inside sbatch, not started by srun
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, processes.Start("one", 1)),
    ],
)
def test_detected(environment, expected):
    assert processes.detect(environment) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES set, but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 must be from 0 to JAX_NUM_PROCESSES - 1 = 3"),
        ({"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES='four' must be a whole number"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(errors.UserError, match=message):
        processes.detect(PLAIN | change)


def test_first_difference_is_named():
    ours, theirs = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}}
    assert processes._first_difference(ours, theirs) == ("b.d", 3, 4)
