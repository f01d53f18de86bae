"""Set-up of every test: eight fake CPU devices, run-time checks of all shape annotations, and no silent skips in CI."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
import os
import pathlib
import shutil
import tempfile

# Before anything imports jax.
os.environ["JAX_PLATFORMS"] = "cpu"
# Eight devices share few cores: on a busy machine one of them may be late at a collective, which XLA would end the process for.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
).strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / f"vlguard_jax-test-programs-1-{os.getuid()}"))
# The sample indices of the tests stay out of the user's own cache.
os.environ["VLGUARD_CACHE"] = tempfile.mkdtemp(prefix="vlguard_jax-test-cache-")

from jaxtyping import install_import_hook
import pytest

install_import_hook("vlguard_jax", "beartype.beartype")
atexit.register(shutil.rmtree, os.environ["VLGUARD_CACHE"], ignore_errors=True)

STRICT = ("tests/golden/", "tests/parity/", "tests/reporting/test_browser.py", "tests/benchmarks/")
REQUIRE_ALL = os.environ.get("VLGUARD_REQUIRE_ALL", "") not in ("", "0")


def _must_run(nodeid: str) -> bool:
    return REQUIRE_ALL and nodeid.startswith(STRICT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skipped golden, parity or browser test into a failure when VLGUARD_REQUIRE_ALL is set."""
    report = yield
    if report.skipped and _must_run(item.nodeid):
        report.outcome = "failed"
        report.longrepr = f"skipped under VLGUARD_REQUIRE_ALL: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole file that skips while it is collected (`pytest.importorskip`)."""
    report = yield
    if report.skipped and _must_run(collector.nodeid):
        report.outcome = "failed"
        report.longrepr = f"skipped under VLGUARD_REQUIRE_ALL: {report.longrepr}"
    return report
