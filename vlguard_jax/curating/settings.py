"""The settings of `curate`, declared like those of config.py."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from ml_collections import config_dict

from vlguard_jax import checks
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.endpoints import settings as endpoint_lib
from vlguard_jax.ranges import Range


@dataclasses.dataclass(frozen=True)
class PictureSettings:
    """Which pictures the set is made of."""

    path: str = ""  # folder of the pictures, read with all folders below it
    # folders of pictures that must not come into the set, nor near-duplicates of them: VLGuard's test pictures, for one
    against: tuple[str, ...] = ()
    # two pictures are near-duplicates where at most so many of the 128 bits of their hashes differ ...
    near_bits: Annotated[int, Range(0, 64)] = 10
    # ... and, both shrunk to 16 x 16 cells, no cell differs by more levels (of 255) in a colour
    near_levels: Annotated[int, Range(0, 255)] = 23
    on_near: Literal["drop", "keep"] = (
        "drop"  # "drop": all but the first by name; "keep": all, on one side of the split
    )
    # pictures whose hashes differ in at most so many bits are never on both sides of the split
    group_bits: Annotated[int, Range(0, 64)] = 20
    on_bad: Literal["drop", "error"] = "drop"  # pictures that cannot be read; "drop": left out, counted and listed
    stand_in: bool = False  # the pictures were drawn by a program: results made with the set are marked so


@dataclasses.dataclass(frozen=True)
class AskSettings:
    """What is asked about each picture, and which replies are taken."""

    prompt: str = ""  # text file with $taxonomy, $refusals and $language; empty: curating/prompt.txt
    taxonomy: str = ""  # TOML file; empty: VLGuard's, curating/taxonomy.toml
    tries: Annotated[int, Range(1, 20)] = 3  # a reply that cannot be used is asked for again, with the reason
    refusals: Literal["reasoned", "short"] = "reasoned"  # "reasoned": with a reason, as long as the next two say
    least_words: Annotated[int, Range(1, 1000)] = 100
    most_words: Annotated[int, Range(1, 1000)] = 200
    # refusals in English that keyword_repaired does not take for one are asked for again
    check_refusals: bool = True
    # at most this share of the refusals may begin with the same `opening_words` words; what is above is asked for
    # again, then dropped; 1: any share (VLGuard: 76 % begin with "I'm sorry")
    most_alike: Annotated[float, Range(0.01, 1)] = 1.0
    opening_words: Annotated[int, Range(1, 10)] = 2
    languages: tuple[str, ...] = ("English",)  # each picture gets one of them, by the seed
    # what an endpoint is told of the reply's form, where it can hold a model to it (response_format)
    form: Literal["none", "json_object", "json_schema"] = "none"


@dataclasses.dataclass(frozen=True)
class BalanceSettings:
    """How many pictures of one kind are kept, drawn by the seed; 0: all."""

    most_safe: Annotated[int, Range(0, 10**9)] = 0
    most_per_category: Annotated[int, Range(0, 10**9)] = 0  # of the unsafe ones
    most_per_subcategory: Annotated[int, Range(0, 10**9)] = 0


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """Which pictures are for testing: the same share of every category, drawn by the seed."""

    test_share: Annotated[float, Range(0.01, 0.99)] = 0.333


@dataclasses.dataclass(frozen=True)
class ReviewSettings:
    """The pages on which people accept, edit or reject, and what they decided."""

    decisions: str = ""  # folder of the files that the pages save; empty: WORKDIR/decisions
    per_page: Annotated[int, Range(1, 2000)] = 100
    only_accepted: bool = False  # leave out what nobody has accepted or edited


@dataclasses.dataclass(frozen=True)
class CurateConfig:
    """One dataset."""

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    title: str = "A safety dataset in VLGuard's format"  # of the data card
    pictures: PictureSettings = dataclasses.field(default_factory=PictureSettings)
    ask: AskSettings = dataclasses.field(default_factory=AskSettings)
    # who is asked: "endpoint", a model behind an OpenAI-compatible address, or "checkpoint", `config.model` on the
    # engine
    answerer: Literal["endpoint", "checkpoint"] = "endpoint"
    endpoint: endpoint_lib.EndpointSettings = dataclasses.field(
        default_factory=lambda: endpoint_lib.EndpointSettings(detail="high")
    )
    side: Annotated[int, Range(32, 2**14)] = 1024  # pixels of a picture's longer side, as sent to an endpoint
    model: settings_lib.ModelSettings = dataclasses.field(default_factory=settings_lib.ModelSettings)
    precision: settings_lib.EvalPrecisionSettings = dataclasses.field(
        default_factory=settings_lib.EvalPrecisionSettings
    )
    decode: settings_lib.DecodeSettings = dataclasses.field(
        default_factory=lambda: settings_lib.DecodeSettings(max_new_tokens=1024)
    )
    mesh: settings_lib.MeshSettings = dataclasses.field(default_factory=settings_lib.MeshSettings)
    balance: BalanceSettings = dataclasses.field(default_factory=BalanceSettings)
    split: SplitSettings = dataclasses.field(default_factory=SplitSettings)
    review: ReviewSettings = dataclasses.field(default_factory=ReviewSettings)
    tfds: bool = True  # write the TFDS form, too


def base_config() -> config_dict.ConfigDict:
    """Defaults of a dataset, to be changed by a config file."""
    return settings_lib.to_config_dict(CurateConfig())


def resolve(config: config_dict.ConfigDict) -> CurateConfig:
    """The settings of a ConfigDict, checked.

    Raises:
      UserError: as `config.resolve`, or settings that contradict each other.
    """
    found = settings_lib.resolve(config, CurateConfig)
    checks.date(found.model.template_date, "config.model.template_date")
    checks.mesh(**dataclasses.asdict(found.mesh))
    d = found.decode
    checks.decoding(d.min_new_tokens, d.max_new_tokens, d.temperature, d.top_p, "config.decode")
    if not found.pictures.path:
        raise errors.UserError("config.pictures.path is empty: name the folder of your pictures")
    if found.ask.least_words > found.ask.most_words:
        raise errors.UserError(
            f"config.ask.least_words={found.ask.least_words} is more than config.ask.most_words={found.ask.most_words}:"
            " no refusal can be so long"
        )
    if found.pictures.group_bits < found.pictures.near_bits:
        raise errors.UserError(
            f"config.pictures.group_bits={found.pictures.group_bits} is less than"
            f" config.pictures.near_bits={found.pictures.near_bits}: near-duplicates would be split; raise it"
        )
    if not found.ask.languages or not all(name.strip() for name in found.ask.languages):
        raise errors.UserError("config.ask.languages: name at least one language, and no empty one")
    if found.answerer == "checkpoint" and not found.model.path:
        raise errors.UserError('config.answerer="checkpoint" needs config.model.path, the folder of the model to ask')
    return found
