"""Names of checkpoints, with a hub that only exists in this file."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors
import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import hub

HTTP = importlib.import_module(hub_errors.Response.__module__.split(".")[0])  # httpx, or httpx2 in newer versions
LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def response(status: int) -> Any:
    return HTTP.Response(status, request=HTTP.Request("GET", "https://huggingface.co/owner/name"))


def test_a_local_folder_wins(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("owner/name") == pathlib.Path("owner/name")
    assert hub.resolve(tmp_path) == tmp_path


def test_ids_with_and_without_revision(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    def download(repo: str, revision: str | None = None, **_: Any) -> str:
        calls.append((repo, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve("own-er/na.me") == tmp_path
    assert hub.resolve("owner/name@abc123") == tmp_path
    assert hub.resolve("owner/name@refs/pr/1") == tmp_path
    assert calls == [("own-er/na.me", None), ("owner/name", "abc123"), ("owner/name", "refs/pr/1")]


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "a/b/c", "name", "owner/name@", ""])
def test_neither_folder_nor_id(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError, match="no such folder, and not a hub id"):
        hub.resolve(name)


FAILURES = [
    (
        hub_errors.GatedRepoError("gated", response=response(403)),
        rf"gated: accept its terms on \S+/owner/name, then {LOGIN}",
    ),
    (
        hub_errors.RepositoryNotFoundError("none", response=response(404)),
        f"no such repository on the hub; if it is private, {LOGIN}",
    ),
    (hub_errors.RevisionNotFoundError("none", response=response(404)), "the hub has no revision 'rev'"),
    (hub_errors.LocalEntryNotFoundError("offline"), "the hub cannot be reached"),
    (hub_errors.HfHubHTTPError("no", response=response(401)), f"access denied; {LOGIN}"),
    (hub_errors.HfHubHTTPError("no", response=response(500)), "the hub answered with an error"),
    (OSError("disk full"), "the download failed: disk full"),
    (HTTP.ConnectError("no\nroute"), "the download failed: no route"),
]


@pytest.mark.parametrize(("error", "message"), FAILURES, ids=lambda x: type(x).__name__)
def test_failures_say_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(errors.UserError, match=f"owner/name@rev: .*{message}") as caught:
        hub.resolve("owner/name@rev")
    assert "\n" not in str(caught.value)


def test_a_tower_that_cannot_be_had_may_be_given(tmp_path: pathlib.Path) -> None:
    """Where nothing can be downloaded, as in every test."""
    with pytest.raises(
        errors.UserError, match=r"tower of config\.json: owner/tower: .* or give its folder as vision_tower"
    ):
        components.find_tower("owner/tower", (tmp_path,))


class Hub:
    """Notes what is asked of the hub's library; a repository of a name in `closed` is refused."""

    def __init__(self, calls: list[Any], closed: str = ""):
        self._calls, self._closed = calls, closed

    def __getattr__(self, name: str) -> Any:
        def answer(*args: Any, **given: Any) -> None:
            self._calls.append((name, *args, given))
            if self._closed == name:
                raise hub_errors.HfHubHTTPError("403 Forbidden:\nno right to write", response=response(403))

        return answer


def test_a_folder_is_pushed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(calls))
    hub.check_push("owner/name")
    assert hub.push(tmp_path, "owner/name", private=True) == "https://huggingface.co/owner/name"
    assert [call[0] for call in calls] == ["whoami", "create_repo", "upload_folder"]
    assert calls[1][-1]["private"] is True and calls[2][-1]["folder_path"] == tmp_path


@pytest.mark.parametrize(
    ("closed", "state"), [("whoami", "nothing was converted"), ("upload_folder", "is complete; push it")]
)
def test_a_push_that_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, closed: str, state: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], closed))
    with pytest.raises(errors.UserError, match=f"--push_to_hub=owner/name: .*no right to write.*{state}.*{LOGIN}"):
        hub.check_push("owner/name")
        hub.push(tmp_path, "owner/name", private=False)


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/name@main", "https://huggingface.co/owner/name"])
def test_a_push_to_no_repository(name: str) -> None:
    with pytest.raises(errors.UserError, match="name the repository as owner/name"):
        hub.check_push(name)
