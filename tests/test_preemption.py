"""The platform's notice becomes a SIGTERM; nobody else is asked."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import http.server
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from tests import source
from vlguard_jax import preemption


@contextlib.contextmanager
def metadata(values: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A stand-in for the metadata server: (its host, the paths that were asked)."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = values.get(self.path.removeprefix("/computeMetadata/v1/instance/"))
            sound = found is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if sound else 404)
            self.end_headers()
            self.wfile.write((found or "").encode() if sound else b"TRUE")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{serving.server_port}", asked
        serving.shutdown()


WAITING = """
import os, time
from vlguard_jax import preemption, stopping
stopping.install()
preemption.watch(os.environ, 0.05)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("key", preemption.NOTICES)
def test_the_notice_ends_a_command_with_75(key: str) -> None:
    values = {"preempted": "FALSE", "maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE"}
    with metadata(values) as (host, asked):
        running = subprocess.Popen(
            [sys.executable, "-c", WAITING],
            cwd=source.ROOT,
            env={"GCE_METADATA_HOST": host, "PATH": "", "PYTHONPATH": str(source.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        while len(asked) < 4:
            time.sleep(0.01)
        assert running.poll() is None
        values[key] = preemption.NOTICES[key]
        _, said = running.communicate(timeout=source.PATIENCE)
    assert running.returncode == 75
    assert said.splitlines() == [
        f"this machine is about to be stopped ({key}: {preemption.NOTICES[key]})",
        "stopped by SIGTERM; start the same command again to go on",
    ]


def test_other_machines_ask_nobody(tmp_path: pathlib.Path) -> None:
    (tmp_path / "product").write_text("Standard PC\n")
    assert preemption.server({}, tmp_path / "product") is preemption.server({}, tmp_path / "none") is None
    (tmp_path / "product").write_text("Google Compute Engine\n")
    assert preemption.server({}, tmp_path / "product") == "metadata.google.internal"
    assert preemption.server({"GCE_METADATA_HOST": "127.0.0.1:1"}, tmp_path / "none") == "127.0.0.1:1"


def test_without_an_answer_the_command_goes_on() -> None:
    with metadata({}) as (host, asked):
        assert [preemption._told(host, key) for key in preemption.NOTICES] == ["", ""] and len(asked) == 2
    assert preemption._told(host, "preempted") == ""
