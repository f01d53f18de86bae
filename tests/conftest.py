"""Set-up of every test: eight fake CPU devices, run-time checks of all shape annotations, and no silent skips in CI."""

from __future__ import annotations

from collections.abc import Iterator
import os
import pathlib
import tempfile

# Before anything imports jax.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / f"vlguard_jax-test-programs-{os.getuid()}"))

from jaxtyping import install_import_hook
import pytest

install_import_hook("vlguard_jax", "beartype.beartype")

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
