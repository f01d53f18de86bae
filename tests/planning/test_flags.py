"""The table of compiler flags: complete, readable, and every flag known to the compilers that are installed."""

from __future__ import annotations

import pytest

from launch import check_flags
from launch import machines
from vlguard_jax import errors
from vlguard_jax.planning import flags


def test_every_chip_and_group_is_used():
    """No group without a chip, no chip of the launch files without an entry, no source left out."""
    used = {group.name for chip in flags.chips() for group in flags.for_chip(chip, slices=2, offload=True)}
    assert used == set(flags.groups())
    assert set(flags.chips()) == {*machines.table()["tpu"], *machines.table()["gpu"]}
    for group in flags.groups().values():
        assert group.variable in flags.VARIABLES and group.what and group.source
        assert all(flag.startswith("--xla_") and "=" in flag and " " not in flag for flag in group.flags)


def test_one_spelling_of_a_flag():
    """A flag that several groups set, they set alike."""
    for chip in flags.chips():
        for value in flags.environment(chip, slices=2, offload=True).values():
            names = [flag.split("=")[0] for flag in value.split()]
            assert len(names) == len(set(names)), chip


def test_environment_adds_slices_and_offload():
    one = flags.environment("v6e")["LIBTPU_INIT_ARGS"].split()
    more = flags.environment("v6e", slices=2)["LIBTPU_INIT_ARGS"].split()
    host = flags.environment("v6e", offload=True)["LIBTPU_INIT_ARGS"].split()
    assert set(more) - set(one) == set(flags.groups()["data_parallel_overlap"].flags)
    assert set(host) - set(one) == set(flags.groups()["host_offload"].flags)
    assert set(flags.environment("h100")) == {
        "XLA_FLAGS",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "NCCL_NVLS_ENABLE",
    }
    assert flags.environment("v4") == {}


def test_unknown_chip_names_the_nearest():
    with pytest.raises(errors.UserError, match="did you mean 'v5e'"):
        flags.environment("v5ee")


@pytest.mark.parametrize("variable", flags.VARIABLES)
def test_the_installed_compiler_knows_every_flag(variable):
    """A process with all of them starts; with a published spelling that was refused it does not, so this can fail."""
    if not check_flags.compiler(variable):
        pytest.skip(f"{variable}: its compiler is not installed (pip install 'jax[tpu]')")
    assert check_flags.refused(variable, list(flags.all_flags(variable))) == []
    assert not check_flags.starts(variable, ["--xla_no_such_flag_of_any_compiler=true"])


def test_what_was_checked_is_recorded():
    assert {entry["variable"] for entry in flags.checked()} == set(flags.VARIABLES)
    for entry in flags.checked():
        assert entry["compiler"] and entry["date"].year >= 2026
        assert not set(entry["refused"]) & set(flags.all_flags(entry["variable"]))
