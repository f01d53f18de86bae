"""Checkpoints by name: a local folder, or a Hugging Face id with an optional revision, downloaded only if named."""

from __future__ import annotations

import os
import pathlib
import re

from vlguard_jax import errors

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
# Other frameworks' weights and demos are not downloaded.
_IGNORED = ["*.msgpack", "*.h5", "*.onnx", "*.gguf", "original/*", "*.png", "*.jpg", "*.mp4"]


def resolve(name: str | os.PathLike[str]) -> pathlib.Path:
    """Return the local folder of a checkpoint.

    An existing path wins; else `owner/name[@revision]` is fetched into the hub's cache.

    Raises:
      UserError: neither; or the hub denies access, does not know the name or cannot be reached. The message says what
        to do.
    """
    path = pathlib.Path(os.path.expanduser(name))
    if str(name) and os.path.exists(path):  # False for a name that no file can have
        return path
    match = _HUB_ID.fullmatch(str(name))
    if match is None:
        raise errors.UserError(
            f"{errors.short(str(name))}: no such folder, and not a hub id of the form owner/name[@revision]"
        )
    return _download(match["repo"], match["revision"])


def is_hub_id(name: str) -> bool:
    """True if `name` has the form owner/name[@revision]."""
    return _HUB_ID.fullmatch(name) is not None


def _download(repo: str, revision: str | None) -> pathlib.Path:
    import huggingface_hub
    from huggingface_hub import errors as hub_errors

    shown = f"{repo}@{revision}" if revision else repo
    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(repo, revision=revision, ignore_patterns=_IGNORED))
    except hub_errors.GatedRepoError as e:
        advice = f"accept its terms on https://huggingface.co/{repo}, then {login}"
        raise errors.UserError(f"{shown}: access denied, the repository is gated: {advice}") from e
    except hub_errors.RevisionNotFoundError as e:
        raise errors.UserError(f"{shown}: the hub has no revision {revision!r} of this repository") from e
    except hub_errors.RepositoryNotFoundError as e:
        raise errors.UserError(
            f"{shown}: no such folder here and no such repository on the hub; if it is private, {login}"
        ) from e
    except hub_errors.LocalEntryNotFoundError as e:
        raise errors.UserError(
            f"{shown}: no such folder here and the hub cannot be reached; download it where there is a network"
        ) from e
    except hub_errors.HfHubHTTPError as e:
        status = getattr(getattr(e, "response", None), "status_code", None)
        denied = (
            f"access denied; {login}" if status in (401, 403) else "the hub answered with an error; try again later"
        )
        reason = " ".join(str(e).split())
        raise errors.UserError(f"{shown}: {denied} ({reason})") from e
    except Exception as e:  # whatever the HTTP library or the disk raises
        reason = " ".join(str(e).split()) or type(e).__name__
        raise errors.UserError(f"{shown}: no such folder here, and the download failed: {reason}") from e
