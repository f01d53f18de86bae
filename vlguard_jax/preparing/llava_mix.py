"""`prepare llava_mix` and `prepare clean`: a reproducible seeded sample of LLaVA's visual-instruction mixture, and its
clean form.

Source: haotian-liu/LLaVA (llava_v1_5_mix665k.json), ys-zong/VLGuard (llava_v1_5_mix_clean.json) and the paper, section
3.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import json
import pathlib
import random

from rich import table

from vlguard_jax import errors
from vlguard_jax import files as files_lib
from vlguard_jax import terminal
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import pictures
from vlguard_jax.data import records

PUBLISHED = 665_298  # conversations in llava_v1_5_mix665k.json
FLAGGED = 247  # of them flagged by Llama-Guard; the clean form has the others


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was drawn. by_folder: pictures needed per top folder. absent: number missing in the picture folder, None if
    no folder was named."""

    conversations: int
    pictures: int
    by_folder: dict[str, int]
    absent: int | None
    files: tuple[pathlib.Path, ...]


def run_draw(mix: str, out: str, images: str, count: int, seed: int, any_size: bool) -> None:
    """Draw the helpful sample of a post-hoc run into `out` and tell what to download; see `draw`.

    Raises:
      UserError: as there.
    """
    drawn = draw(pathlib.Path(mix), pathlib.Path(out), count, seed, images, any_size)
    shown = table.Table("pictures in", "needed", title=f"{drawn.conversations:,} conversations of {mix}, seed {seed}")
    for folder, needed in drawn.by_folder.items():
        shown.add_row(folder, f"{needed:,}")
    shown.add_row("all", f"{drawn.pictures:,}", end_section=True)
    terminal.console().print(shown)
    meanings = (
        "the conversations, a source of their own",
        "their ids, for include_ids of the whole file",
        "the pictures to fetch",
    )
    for path, meaning in zip(drawn.files, (*meanings, "those that are not there yet"), strict=False):
        terminal.say(f"{path}: {meaning}")
    if drawn.absent is not None:
        terminal.say(
            f"{drawn.pictures - drawn.absent:,} of {drawn.pictures:,} pictures are in {images}, {drawn.absent:,}"
            " are missing."
        )


def run_clean(mix: str, cleaned: str, out: str, any_size: bool) -> None:
    """Write the ids that the clean form leaves out; see `removed`.

    Raises:
      UserError: as there.
    """
    count = removed(pathlib.Path(mix), pathlib.Path(cleaned), pathlib.Path(out), any_size)
    terminal.say(
        f"{out}: the ids of {count:,} conversations of {mix} that {cleaned} leaves out, for exclude_ids of the"
        " whole file"
    )


def draw(
    mix: pathlib.Path, out: pathlib.Path, count: int, seed: int, images: str = "", any_size: bool = False
) -> Sample:
    """Draw `count` conversations and write the files that a post-hoc run needs, all named `llava_mix_COUNT_seedSEED`:

    .json (the conversations, usable as a source), .ids.txt (`include_ids` of the whole file), .pictures.txt (all to
    download) and, where `images` is named, .absent.txt. The conversations are those that `count` and `sample_seed` of a
    source draw.

    Raises:
      UserError: the file is missing, broken or (unless `any_size`) has another number of conversations than the
        published one.
    """
    found = json_records.read(mix, records.parse_llava)
    check_size(mix, len(found), PUBLISHED, any_size)
    if not 0 < count <= len(found):
        raise errors.UserError(f"--count={count} must be between 1 and the {len(found):,} conversations of {mix}")
    chosen = sorted(random.Random(seed).sample(range(len(found)), count))
    ids = file_index.unique([id_ for id_, _ in _ids_and_hashes(found)])
    needed = sorted({name for i in chosen for name in found[i].images})
    values = [json.loads(found.raw(i)) for i in chosen]
    stem = out / f"llava_mix_{count}_seed{seed}"
    texts = {
        ".json": json.dumps(values, ensure_ascii=False, indent=1) + "\n",
        ".ids.txt": _lines([ids[i] for i in chosen]),
        ".pictures.txt": _lines(needed),
    }
    absent = pictures.open_store(images).missing(needed) if images else None
    if absent is not None:
        texts[".absent.txt"] = _lines(absent)
    files = _write(stem, texts)
    folders = Counter(name.split("/")[0] for name in needed)
    return Sample(
        len(chosen), len(needed), dict(sorted(folders.items())), None if absent is None else len(absent), files
    )


def removed(mix: pathlib.Path, clean: pathlib.Path, out: pathlib.Path, any_size: bool = False) -> int:
    """Write the ids of `mix` that its clean form lacks to `out`, one per line (`exclude_ids` of a source); returns
    their number.

    Conversations are compared by their whole content, since ids repeat.

    Raises:
      UserError: a file is missing or broken, `clean` has conversations that `mix` lacks, or (unless `any_size`) the
        numbers are not the published ones.
    """
    whole = json_records.read(mix, records.parse_llava)
    check_size(mix, len(whole), PUBLISHED, any_size)
    kept = Counter(digest for _, digest in _ids_and_hashes(json_records.read(clean, records.parse_llava)))
    check_size(clean, kept.total(), PUBLISHED - FLAGGED, any_size)
    pairs = list(_ids_and_hashes(whole))
    names = file_index.unique([id_ for id_, _ in pairs])
    gone = []
    for name, (_, digest) in zip(names, pairs, strict=True):
        if kept[digest]:
            kept[digest] -= 1
        else:
            gone.append(name)
    if added := kept.total():
        raise errors.UserError(
            f"{clean}: {added} conversations are not in {mix}: name the mixture that it was made from"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    files_lib.write_text(out, _lines(gone))
    return len(gone)


def _ids_and_hashes(found: json_records.JsonRecords) -> Iterator[tuple[str, bytes]]:
    """Id of every record, and a hash of its content that does not depend on how the JSON is written."""
    for number, raw in enumerate(found.all_raw()):
        value = files_lib.parse_json(raw, f"{found.path}: record {number}")
        id_ = str(value.get("id", number)) if isinstance(value, dict) else str(number)
        yield id_, hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


def check_size(path: pathlib.Path, found: int, published: int, any_size: bool) -> None:
    """Raise UserError unless a file has its published number of conversations, or `any_size`."""
    if found != published and not any_size:
        raise errors.UserError(
            f"{path}: {found:,} conversations, the published file has {published:,}: download it again, or say"
            " --any_size"
        )


def _lines(values: Sequence[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def _write(stem: pathlib.Path, texts: dict[str, str]) -> tuple[pathlib.Path, ...]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, text in texts.items():
        paths.append(stem.with_name(stem.name + suffix))
        files_lib.write_text(paths[-1], text)
    return tuple(paths)
