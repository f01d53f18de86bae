"""Bytes that a step moves: over the links within a slice or node, over the network between them, and in HBM."""

from __future__ import annotations

import dataclasses

from vlguard_jax import config
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import chips
from vlguard_jax.planning import flops

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
UPDATE_BYTES = 28  # AdamW in fp32: parameter, gradient and two moments read, parameter and moments written


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis, as parallel/mesh.py builds them."""

    data: int
    fsdp: int
    tensor: int

    @property
    def row_shards(self) -> int:
        """Row shards of a batch."""
        return self.data * self.fsdp


def mesh(settings: config.MeshSettings, topology: chips.Topology) -> Mesh:
    """The mesh of a config on a topology, without devices.

    Slices are joined along `data`: where the config leaves it at 1 (or -1), it becomes their number.

    Raises:
      UserError: see `mesh.sizes` of parallel.
    """
    slices = topology.slices if topology.chip.kind == "tpu" else 1  # nodes of GPUs may be joined by any axis
    return Mesh(*mesh_lib.sizes(settings, topology.devices, slices, f"of {topology.name}"))


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of a step for one chip. links: received over the links of its slice or node. network: its share of the
    exchange between slices or nodes. update: HBM traffic of the optimizer. hbm: all HBM traffic, update included."""

    links: flops.Number
    network: flops.Number
    update: flops.Number
    hbm: flops.Number


@dataclasses.dataclass(frozen=True)
class Load:
    """What determines the bytes of a training step. tokens: computed by one row shard in a step; micro:
    micro-batches."""

    sizes: flops.Sizes
    lora: bool
    tokens: flops.Number
    micro: int
    compute_bytes: int
    params_bytes: int


def training(
    text: configs.TextConfig, load: Load, shape: Mesh, topology: chips.Topology, remat: flops.Remat
) -> Traffic:
    """A training step: parameters gathered for forward and backward, gradients scattered, summed over `data`,
    activations over `tensor`."""
    s, b = load.sizes, load.compute_bytes
    whole = (s.text + s.projector + s.adapters) / shape.tensor
    trained = (s.projector + (s.adapters if load.lora else s.text)) / shape.tensor
    # gathered twice, scattered once; each device receives all but its own part
    moved = (2 * whole + trained) * b * load.micro
    kept_inside = shape.data % topology.domains == 0
    links, network = moved * (shape.fsdp - 1) / shape.fsdp, 0.0
    if not kept_inside and topology.domains > 1:
        network += moved * (topology.domains - 1) / topology.domains / (topology.devices / topology.domains)
    shard = trained * b / shape.fsdp
    across = topology.domains if kept_inside else 1
    inside = shape.data // across
    links += 2 * shard * (inside - 1) / inside
    network += 2 * shard / inside * (across - 1) / across
    sums = 4 + (2 if remat.again else 0)  # all-reduces of a layer's activations
    links += sums * s.layers * load.tokens * text.width * b * 2 * (shape.tensor - 1) / shape.tensor
    update = trained * UPDATE_BYTES / 4 * load.params_bytes / shape.fsdp
    weights = (3 * whole + 2 * trained) * b * load.micro
    seen = flops.per_token(text, flops.POLICIES["none"].kept) / shape.tensor
    # written and read, forward and twice backward
    activations = load.tokens * s.layers * seen * b * (6 + (2 if remat.again else 0))
    per_chip = topology.chip.devices
    return Traffic(links * per_chip, network * per_chip, update * per_chip, (update + weights + activations) * per_chip)
