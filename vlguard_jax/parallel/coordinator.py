"""Checks the coordinator's address before JAX gets it: JAX ends with a segmentation fault where it cannot listen."""

from __future__ import annotations

from collections.abc import Mapping
import errno
import os
import re
import socket

from vlguard_jax import errors

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>[0-9]+)", re.ASCII)
_BIND, _PORT, _DEVICES = "JAX_COORDINATOR_BIND_ADDRESS", "JAX_COORDINATOR_PORT", "JAX_LOCAL_DEVICE_IDS"


def port_of(address: str, name: str) -> int:
    """The port of HOST:PORT or [IPv6]:PORT, which the variable `name` gives.

    Raises:
      UserError: the address has neither form, or there is no such port.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        way = "for example 10.0.0.1:1234 or [fd00::1]:1234"
        raise errors.UserError(f"{name}={errors.short(address)} must be HOST:PORT, {way}")
    return _port(found["port"], name)


def port(environment: Mapping[str, str], default: int) -> int:
    """The port that JAX_COORDINATOR_PORT gives, else `default`."""
    given = environment.get(_PORT)
    return _port(given, _PORT) if given else default


def bound(environment: Mapping[str, str], address: str) -> int:
    """The port that the first process listens on: JAX_COORDINATOR_BIND_ADDRESS's, else that of `address`, which has
    been checked.
    """
    given = environment.get(_BIND)
    return port_of(given, _BIND) if given else int(address.rpartition(":")[2])


def local_devices(environment: Mapping[str, str]) -> None:
    """Raises UserError if JAX_LOCAL_DEVICE_IDS is not a list of numbers."""
    given = environment.get(_DEVICES) or "0"
    if not all(re.fullmatch("[0-9]{1,6}", part.strip(), re.ASCII) for part in given.split(",")):
        raise errors.UserError(f"{_DEVICES}={errors.short(given)} must be whole numbers with commas between them")


def check_free(number: int) -> None:
    """Raises UserError if this process cannot listen on the port."""
    try:
        socket.create_server(("", number), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise errors.UserError(
                f"port {number}, at which this process is to wait for the others, is in use; end the program that has"
                " it (an earlier run?), or give another port to every process"
            ) from e
        if e.errno in (errno.EACCES, errno.EPERM):
            raise errors.UserError(
                f"port {number}: {os.strerror(e.errno)}; give a port above 1023 to every process"
            ) from e
        if e.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # no IPv6 here
            return _check_ipv4(number)
        raise
    return None


def _check_ipv4(number: int) -> None:
    try:
        socket.create_server(("", number)).close()
    except OSError as e:
        raise errors.UserError(f"port {number}: {os.strerror(e.errno or 0)}; give another port to every process") from e


def _port(text: str, name: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not 0 < int(text) < 2**16:
        raise errors.UserError(f"{name}: the port {text[:100]} must be a whole number from 1 to 65535")
    return int(text)
