"""Where a model may be written, and what `--overwrite` may delete: only a checkpoint that the new model is not made
from."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
import fnmatch
import os
import pathlib
import tempfile

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import machine
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import manifest

# A folder with one of these is a checkpoint.
_MARKS = ("config.json", "checkpoint.json", "adapter_config.json")
# Files that this program, LLaVA, PEFT and Hugging Face's tools write into a model's folder.
_FILES = (
    *("config.json", "generation_config.json", "adapter_config.json", "checkpoint.json", "preprocessor_config.json"),
    checkpoint.ADAPTER_RECORD,
    manifest.NAME,
    *(
        "processor_config.json",
        "image_processor.json",
        "video_preprocessor_config.json",
        "chat_template.*",
        "special_tokens_map.json",
    ),
    *(
        "added_tokens.json",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
    ),
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json", "adapter_model.bin"),
    *(
        "non_lora_trainables.bin",
        "mm_projector.bin",
        "training_args.bin",
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
    ),
    *("rng_state*.pth", "README.md", "LICENSE*", "USE_POLICY*", "NOTICE*", ".gitattributes"),
)
# Orbax's arrays.
_ARRAYS = (
    *("_METADATA", "_CHECKPOINT_METADATA", "_sharding", "commit_success.txt", "manifest.ocdbt", "array_metadatas", "d"),
    "ocdbt.process_*",
)
# Folders of a checkpoint, and what they hold.
_FOLDERS = {"vision_tower": _FILES, "arrays": _ARRAYS, ".cache": ("huggingface",)}


def check_free(dst: str | os.PathLike[str], overwrite: bool, sources: Iterable[str] = ()) -> None:
    """Check that `dst` can be written, and leave nothing behind.

    sources: folders, files or hub ids that the model is made from.

    Raises:
      UserError: it is not empty and may not be overwritten, is a link, contains the working directory or a home, or no
        folder can be made there; or what `overwrite` would delete is not a checkpoint, holds other files, or is,
        contains or is inside a source.
    """
    target = pathlib.Path(os.path.abspath(dst))
    folders.check_no_link(dst)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target)  # whether this is a possible name
        _check_around(dst, target)
        if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            if not overwrite:
                raise errors.UserError(
                    f"{dst} is there already; choose another folder, or overwrite it with --overwrite"
                )
            _check_sources(dst, target, sources)
            _check_checkpoint(dst, target)
        above = next(folder for folder in target.parents if os.path.lexists(folder))
        with machine.naming(above, f"{above}/."):
            os.rmdir(tempfile.mkdtemp(prefix=".", dir=above))
    except OSError as e:
        if failed := machine.failure(e):
            raise errors.UserError(f"{dst} cannot be written: {failed.line}") from e
        raise


def _check_around(dst: str | os.PathLike[str], target: pathlib.Path) -> None:
    """Refuse a working directory, a home or a folder above one, even if it is empty."""
    real, here, home = (pathlib.Path(os.path.realpath(path)) for path in (target, ".", os.path.expanduser("~")))
    if real in (here, *here.parents):
        raise errors.UserError(f"{dst} contains the working directory; name a folder for the model alone")
    if real in (home, *home.parents):
        raise errors.UserError(f"{dst} contains your home; name a folder for the model alone")


def _check_sources(dst: str | os.PathLike[str], target: pathlib.Path, sources: Iterable[str]) -> None:
    real = target.resolve()
    for source in filter(None, sources):
        path = pathlib.Path(os.path.expanduser(source))
        if not path.exists():  # a hub id
            continue
        found = path.resolve()
        if found == real or real in found.parents or found in real.parents:
            how = "is" if found == real else "holds" if real in found.parents else "is a part of"
            raise errors.UserError(
                f"{dst} {how} {source}, which the model is made of and would be deleted; choose another folder"
            )


def _check_checkpoint(dst: str | os.PathLike[str], target: pathlib.Path) -> None:
    """Raise UserError unless the folder `target` is a checkpoint and nothing else."""
    if not target.is_dir():
        raise errors.UserError(f"{dst} is a file, and only a checkpoint is replaced; move it or choose another name")
    if foreign := _foreign(target, _FILES):
        raise errors.UserError(
            f"{dst} holds {errors.short(foreign)}, which is not part of a checkpoint and would be deleted; move it or"
            " choose another folder"
        )
    if not any((target / name).is_file() for name in _MARKS):
        raise errors.UserError(
            f"{dst} is not a checkpoint, it has no {' or '.join(_MARKS)}, and only one is replaced; move it or choose"
            " another folder"
        )


def _foreign(folder: pathlib.Path, known: tuple[str, ...]) -> str:
    """The first path in `folder` that is not `known`; "" without one.

    The contents of Orbax's and the hub's own subfolders are not checked.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        inner = _FOLDERS.get(entry.name) if known is _FILES else None
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and inner is not None:
            if below := _foreign(pathlib.Path(entry.path), inner):
                return f"{entry.name}/{below}"
        elif not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in known) or (is_folder and known is _FILES):
            return entry.name
    return ""
