"""Ports for programs that listen on this machine."""

import pathlib
import random
import socket

_RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


def free() -> int:
    """A port that nobody listens on.

    Below those that the kernel hands out by itself, so that no connection of another program takes it
    before it is used; chosen at random, as several test processes choose at once."""
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    choice = random.Random()  # not the one that tests seed
    while True:
        port = choice.randrange(10_000, max(first, 11_000))
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
