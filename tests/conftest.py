"""Set-up of all tests: the same environment for every user and machine, eight fake CPU devices, run-time checks of all
shape annotations, no test that leaves changes for the next, and no silent skips in CI."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
import contextlib
import hashlib
import itertools
import logging
import os
import pathlib
import shutil
import signal
import stat
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Variables of the caller's shell, scheduler, cloud or terminal are removed, except these.
FOREIGN = (
    *("JAX_", "XLA_", "VLGUARD_", "TPU_", "LIBTPU_", "MEGASCALE_", "GCE_METADATA_", "SLURM_", "OMPI_", "PMI_"),
    *("HF_", "HUGGING", "TRANSFORMERS_", "WANDB_", "TIME_TO_RESULT_"),
    *(
        "PYTHONDEVMODE",
        "PYTHONOPTIMIZE",
        "PYTHONSAFEPATH",
        "PYTHONVERBOSE",
        "PYTHONWARNINGS",
        "PYTHONPROFILEIMPORTTIME",
    ),
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "TERM", "TTY_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)
FOR_TESTS = {
    *("VLGUARD_GOLDEN", "VLGUARD_METADATA", "VLGUARD_BENCHMARKS", "VLGUARD_REQUIRE_ALL", "VLGUARD_REWRITE"),
    *("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"),
}


def _temporary(purpose: str) -> str:
    folder = tempfile.mkdtemp(prefix=f"vlguard_jax-test-{purpose}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _programs() -> str:
    """The folder for compiled programs, kept from run to run for this user and this checkout.

    Its name is predictable, so it may be somebody else's folder; then programs are kept for this run only.
    """
    name = f"vlguard_jax-tests-{os.getuid()}-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    folder = pathlib.Path(tempfile.gettempdir()) / name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )
    return str(folder) if ours else _temporary("programs")


def _surroundings() -> None:
    """Set the environment of this process, and so of every program that a test starts."""
    for name in [name for name in os.environ if name.upper().startswith(FOREIGN) and name not in FOR_TESTS]:
        del os.environ[name]
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Eight devices share few cores: on a busy machine one may be late at a collective, and XLA would end the process.
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
    )
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs()
    os.environ["VLGUARD_CACHE"] = _temporary("cache")  # the tests' sample indices stay out of the user's cache
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # a machine of a slice also runs the tests as one process
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PYTHONUTF8"] = "1"
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *others])  # this checkout's package, from any folder


_surroundings()  # before anything imports jax

import hypothesis  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
import pytest  # noqa: E402


def _with_shapes() -> list[str]:
    """The package's modules that annotate shapes."""
    paths = [path for path in (ROOT / "vlguard_jax").rglob("*.py") if "from jaxtyping import" in path.read_text()]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


# Of these only: wrapped, the many small functions of the others would take a third of the tests' time.
install_import_hook(_with_shapes(), "beartype.beartype")
# Examples have no time limit and do not depend on earlier runs; a failure prints how to repeat it.
hypothesis.settings.register_profile(
    "tests", deadline=None, database=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

STRICT = (
    *("tests/golden/", "tests/parity/", "tests/reporting/test_browser.py", "tests/benchmarks/"),
    *("tests/reporting/test_review_page.py", "tests/reporting/test_labelling.py"),
    *("tests/curating/test_review.py", "tests/asking/test_page.py", "tests/docs/test_site.py"),
    "tests/safety/benchmarks/test_official.py",
)
REQUIRE_ALL = os.environ.get("VLGUARD_REQUIRE_ALL", "") not in ("", "0")
NOT_HAD = "cannot be downloaded here"  # of a package's files that are data for a test (tests/parity/assets.py)


def _must_run(nodeid: str, reason: str) -> bool:
    return REQUIRE_ALL and nodeid.startswith(STRICT) and NOT_HAD not in reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skipped golden, parity, benchmark or browser test into a failure when VLGUARD_REQUIRE_ALL is set, unless
    data that nobody promised could not be downloaded."""
    report = yield
    if report.skipped and _must_run(item.nodeid, str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped under VLGUARD_REQUIRE_ALL: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole file that skips while it is collected (`pytest.importorskip`)."""
    report = yield
    if report.skipped and _must_run(collector.nodeid, str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped under VLGUARD_REQUIRE_ALL: {report.longrepr}"
    return report


OURS = ("vlguard_jax", "benchmarks", "launch")
_NUMBER = itertools.count()  # of modules that tests write
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def _attributes() -> dict[str, dict[str, Any]]:
    """The values of all names in our loaded modules and their classes, by module or class."""
    found: dict[str, dict[str, Any]] = {}
    for module in [module for name, module in sys.modules.items() if name.startswith(OURS)]:
        found[module.__name__] = dict(vars(module))
        for name, value in found[module.__name__].items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                found[f"{module.__name__}.{name}"] = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    return found


def _settings(attributes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Other state that the whole process shares."""
    tables = {
        f"{of}.{name}": dict(value)
        for of, names in attributes.items()
        for name, value in names.items()
        if isinstance(value, dict) and not name.startswith("__")
    }
    variables = {f"${name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    handlers = {f"the handler of {s.name}": signal.getsignal(s) for s in SIGNALS}
    jax = sys.modules.get("jax")
    switches = {f"jax.config.{name}": value for name, value in jax.config.values.items()} if jax else {}
    logs = {f"the logger {name or 'root'}": _logger(name) for name in ("", "vlguard_jax")}
    return tables | variables | handlers | switches | logs | {"the working directory": os.getcwd()}


def _logger(name: str) -> tuple[Any, ...]:
    logger = logging.getLogger(name or None)
    files = [
        handler
        for handler in logger.handlers
        if isinstance(handler, logging.FileHandler) and "pytest" not in type(handler).__module__
    ]
    return logger.propagate, logger.level, files


_TOLD: set[tuple[pathlib.Path, str]] = set()


@contextlib.contextmanager
def _nothing_changes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves changes: the next one must not depend on which ran before it."""
    attributes = _attributes()
    settings = _settings(attributes)
    yield
    now = _attributes()
    then = _settings(now)
    left = {
        f"{of}.{name}"
        for of, names in attributes.items()
        for name, value in names.items()
        if of in now and now[of].get(name, value) is not value and not name.startswith("__")
    }
    left |= {name for name, value in settings.items() if then.get(name) != value}
    # Libraries set their own variables when first imported.
    left |= {name for name in then.keys() - settings.keys() if name.startswith(("$VLGUARD_", "$JAX_", "$XLA_"))}
    left = {name for name in left if (request.path, name) not in _TOLD}
    _TOLD.update((request.path, name) for name in left)
    if left:
        pytest.fail(
            f"{request.node.nodeid} leaves changed for whatever runs next: {', '.join(sorted(left)[:10])}",
            pytrace=False,
        )


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_nothing_changed(request: pytest.FixtureRequest) -> Iterator[None]:
    with _nothing_changes(request):
        yield


@pytest.fixture(autouse=True)
def _test_leaves_nothing_changed(request: pytest.FixtureRequest) -> Iterator[None]:
    with _nothing_changes(request):
        yield


@pytest.fixture
def without_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders get no manifest.json: a test that edits one meets the check that it is about."""
    from vlguard_jax.checkpoints import manifest

    monkeypatch.setattr(manifest, "write", lambda *args: None)


@pytest.fixture
def own_module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of a user's own into the current folder, which the Python path lacks; returns its name, which no
    other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written: list[str] = []

    def write(text: str) -> str:
        written.append(f"own_module_of_a_test_{next(_NUMBER)}")
        (tmp_path / f"{written[-1]}.py").write_text(text)
        return written[-1]

    yield write
    for name in written:
        sys.modules.pop(name, None)
