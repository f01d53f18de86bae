"""Serves the page of `ask` on this machine alone, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import Any

from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.asking import panel as panel_lib

HOST = "127.0.0.1"
LINGER = 2  # seconds that open requests get at the end
CONNECTIONS = 64


def bound(port: int) -> socket.socket:
    """A socket that listens on this machine alone. port: 0 for a free one.

    Raises:
      UserError: the port cannot be had, or the page's framework is not installed.
    """
    _check()
    try:
        return socket.create_server((HOST, port))
    except OSError as e:
        raise errors.UserError(
            f"--port={port}: {os.strerror(e.errno or 0)}; take another, or 0 for any that is free"
        ) from e


def _check() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise errors.UserError(
            "--page: the packages starlette and uvicorn are needed: python -m pip install starlette uvicorn (the extra"
            " `page` of vlguard_jax)"
        ) from e


def server(panel: panel_lib.Panel, port: int, secret: str) -> Any:
    """The server (uvicorn.Server) of the page at http://127.0.0.1:PORT/SECRET/."""
    import uvicorn

    from vlguard_jax.asking import page

    hosts = frozenset(f"{name}:{port}" for name in (HOST, "localhost"))
    config = uvicorn.Config(
        page.application(panel, hosts, secret),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=LINGER,
    )
    return uvicorn.Server(config)


def run(panel: panel_lib.Panel, listening: socket.socket) -> None:
    """Serve the page, and tell where it is."""
    port, secret = listening.getsockname()[1], secrets.token_urlsafe(16)
    terminal.say(f"the page is http://{HOST}:{port}/{secret}/ until Ctrl-C; whoever has this address can ask")
    terminal.say(panel_lib.COMPILED)
    with contextlib.suppress(KeyboardInterrupt):
        server(panel, port, secret).run(sockets=[listening])
