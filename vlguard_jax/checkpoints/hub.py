"""Checkpoints by name: a local folder, or a Hugging Face id with an optional revision, downloaded only if named."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
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


def id_of(name: str) -> str:
    """`name` if it is a hub id and no folder here, else ""."""
    return name if is_hub_id(name) and not os.path.exists(os.path.expanduser(name)) else ""


def check_push(repo: str) -> None:
    """Check before a long conversion that the hub can be reached and knows who asks.

    Raises:
      UserError: not a hub id, nobody is logged in, or the hub cannot be reached.
    """
    import huggingface_hub

    match = _HUB_ID.fullmatch(repo)
    if match is None or match["revision"]:
        raise errors.UserError(f"--push_to_hub={errors.short(repo)}: name the repository as owner/name")
    with _answering(f"--push_to_hub={repo}", "nothing was converted"):
        huggingface_hub.HfApi().whoami()


def push(folder: pathlib.Path, repo: str, *, private: bool) -> str:
    """Upload a checkpoint folder as a model repository, which is made if it is not there; returns its address.

    Raises:
      UserError: the hub refuses, or cannot be reached; the folder stays as it is.
    """
    import huggingface_hub

    with _answering(f"--push_to_hub={repo}", f"{folder} is complete; push it with `hf upload {repo} {folder}`"):
        api = huggingface_hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add the checkpoint and its card")
    return f"https://huggingface.co/{repo}"


@contextlib.contextmanager
def _answering(what: str, state: str) -> Iterator[None]:
    """Turn whatever the hub's library raises into one line."""
    try:
        yield
    except Exception as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        login = "log in with `hf auth login` or set HF_TOKEN (with the right to write)"
        raise errors.UserError(f"{what}: {errors.short(reason)}; {state}; {login}") from e


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
