"""Settings of a training's conversations, in sections of `TrainConfig`; part of config.py."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Literal

from vlguard_jax.ranges import Range


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One source of conversations."""

    # "vlguard": train.json, converted with seed 0; "alpaca": text only; "tfds": VLGuard, prepared
    format: Literal["llava", "vlguard", "alpaca", "tfds"] = "llava"
    # A JSON list, or one JSON object per line, whatever the file's name; for "vlguard" also the folder of train.json;
    # for "tfds" the prepared version's folder
    path: str = ""
    images: str = ""  # picture folder or zip file; a zip file counts as unpacked in its place
    count: Annotated[int, Range(0, 10**9)] = 0  # a seeded sample of this many conversations; 0: all
    sample_seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    # how often an epoch sees each conversation; 0.5: a seeded half of them
    weight: Annotated[float, Range(1e-6, 1000)] = 1.0
    include_ids: str = ""  # text file of the sample ids to take, one per line
    exclude_ids: str = ""  # text file of the sample ids to leave out, one per line
    leave_out: tuple[str, ...] = ()  # categories or subcategories to leave out
    leak_free: bool = False  # "vlguard" and "tfds": leave out records whose picture is also in test.json
    expect: Annotated[int, Range(0, 10**9)] = 0  # conversations that the file must have; 0: any number
    stand_in: bool = False  # the pictures were drawn by `prepare --stand_in_images`


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The training data and its order. See data/plan.py."""

    sources: Mapping[str, SourceSettings] = dataclasses.field(default_factory=dict)
    # conversations are truncated here, before and after image expansion; 0: the model family's length (LLaVA: 2048)
    max_len: Annotated[int, Range(0, 2**20)] = 0
    # "pad": one conversation per row; "pack": several; steps, loss and gradients are the same
    mode: Literal["pad", "pack"] = "pad"
    length_multiple: Annotated[int, Range(1, 2**16)] = 128  # row lengths are multiples of this
    max_row_len: Annotated[int, Range(1, 2**20)] = 8192  # mode "pack": no row is longer, unless a conversation is
    # batch shapes of the run, each compiled once; 0: 4 in mode "pad"; in "pack" 1, one more if the order groups
    # modalities, and one more where pictures take slots by their size
    shapes: Annotated[int, Range(0, 64)] = 0
    # balance lengths over windows of this many steps; changes the order of samples; 0: off
    deal_window: Annotated[int, Range(0, 10**6)] = 0
    # "modality_length": the reference's sampler
    order: Literal["modality_length", "shuffle", "sequential", "replay"] = "modality_length"
    replay: str = ""  # JSON list of sample positions for order "replay"
    batch_size: Annotated[int, Range(1, 2**20)] = 128  # conversations per optimizer step
    # conversations per micro-batch of the reference recipe (`micro_batch` normalisation)
    group_size: Annotated[int, Range(1, 2**20)] = 16
    normalization: Literal["micro_batch", "tokens", "sample"] = "micro_batch"
    end_of_epoch: Literal["reference", "short"] = "reference"  # "reference": refilled from the start
    # "ignore": dropped, counted, listed; "reference": kept, no label
    on_mismatch: Literal["error", "ignore", "reference"] = "error"
    # malformed records and bad pictures; "skip": dropped, counted, listed
    on_bad_record: Literal["error", "skip"] = "error"
    # check before the first step; "header": opened; "decode": read whole
    check_pictures: Literal["exists", "header", "decode"] = "header"
    on_empty_group: Literal["error", "zero"] = "error"
    read_threads: Annotated[int, Range(0, 1024)] = 4
    read_workers: Annotated[int, Range(0, 1024)] = 0  # processes that read; 0: threads of this one
    prefetch_mib: Annotated[int, Range(0, 2**20)] = 1024  # memory for steps read ahead, at least one
    cache: str = ""  # folder of the sample index; empty: $VLGUARD_CACHE, or vlguard_jax in $XDG_CACHE_HOME or ~/.cache


@dataclasses.dataclass(frozen=True)
class ValidationSettings:
    """Loss on conversations that are not trained on, held out of config.data.sources or of files of their own: see
    training/validation.py."""

    every: Annotated[int, Range(0, 10**9)] = 0  # updates from one to the next; 0: none
    at_start: bool = True  # also before the first update
    at_end: bool = True  # also after the last one
    # share of the sources' conversations that are held out, and so not trained on; those about one picture together
    share: Annotated[float, Range(0, 0.5)] = 0.0
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # chooses them
    # conversations in place of a share; config.data says how they are read
    sources: Mapping[str, SourceSettings] = dataclasses.field(default_factory=dict)
