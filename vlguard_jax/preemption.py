"""The platform's notice that this machine is about to be taken away, made a SIGTERM, which every command handles.

Compute Engine tells it by its metadata server, up to a minute before the machine is stopped; the system sends SIGTERM
later, or, in a container, never. On other machines nobody is asked. One process that hears it is enough: those of a
training agree on where to stop (training/stop.py).

Source: cloud.google.com/compute/docs/instances/create-use-spot, .../metadata/getting-live-migration-notice.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import os
import pathlib
import signal
import sys
import threading
import time

EVERY = 5.0  # seconds
PRODUCT = pathlib.Path("/sys/class/dmi/id/product_name")
# What ends this machine, by the key that tells it. One that is moved while it runs (MIGRATE_...) goes on.
NOTICES = {"preempted": "TRUE", "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}


def server(environment: Mapping[str, str], product: pathlib.Path = PRODUCT) -> str | None:
    """Host of the metadata server, None where there is none. environment: GCE_METADATA_HOST names it on any machine."""
    if named := environment.get("GCE_METADATA_HOST"):
        return named
    with contextlib.suppress(OSError):
        return "metadata.google.internal" if "Google" in product.read_text(errors="replace") else None
    return None


def watch(environment: Mapping[str, str] = os.environ, every: float = EVERY) -> threading.Thread | None:
    """Ask from now on, in a thread, and send this process SIGTERM once the notice comes; None where nobody is asked."""
    host = server(environment)
    if host is None:
        return None
    asking = threading.Thread(target=_ask, args=(host, every), name="preemption", daemon=True)
    asking.start()
    return asking


def _ask(host: str, every: float) -> None:
    while True:
        for key, ending in NOTICES.items():
            if _told(host, key) == ending:
                with contextlib.suppress(OSError):
                    print(f"this machine is about to be stopped ({key}: {ending})", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return
        time.sleep(every)


def _told(host: str, key: str) -> str:
    """A value of the metadata server; "" without an answer."""
    import http.client  # late: few commands run there
    import urllib.request

    url = f"http://{host}/computeMetadata/v1/instance/{key}"
    asked = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read(100).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
