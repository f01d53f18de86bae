"""The checks with which `train` and `evaluate` start, for an absent slice: on a mesh without devices."""

from __future__ import annotations

from jax.sharding import AbstractMesh

from vlguard_jax import config
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import traffic
from vlguard_jax.safety import paper
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import registry as judges
from vlguard_jax.training import losses
from vlguard_jax.training import probe


def check(settings: config.TrainConfig | config.EvalConfig, model: family.Config, topology: chips.Topology) -> None:
    """Refuse what a run on the topology would refuse.

    Raises:
      UserError: the mesh does not fit the topology or the model; no such template, loss or attention there, judge,
        benchmark or row.
    """
    shape = traffic.mesh(settings.mesh, topology)
    mesh = AbstractMesh((shape.data, shape.fsdp, shape.tensor), mesh_lib.AXES)
    rules.check_heads(model.text, mesh)
    choice.check_name(settings.model.template)
    table.image_mode(model, settings.model.image_mode)
    if isinstance(settings, config.TrainConfig):
        attention.backend(settings.run.attention, topology.chip.kind, settings.precision.compute)
        losses.get(settings.loss)
        probe.check_names(settings)
        rules.shardings(model, estimate.lora_of(settings), mesh)
    else:
        judges.of(settings)
        benchmarks.get(settings.benchmark.name)
        if settings.paper_row:
            paper.check_row(settings.paper_row)
        rules.shardings(model, None, mesh)
