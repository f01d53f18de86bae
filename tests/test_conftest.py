"""CI cannot be green because golden or parity tests skipped, no test changes what the next one finds, and surroundings
do not matter."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from tests.parity.assets import NOT_HAD

CASES = {
    "in_a_test": "import pytest\n\ndef test_it():\n    pytest.skip('no data')\n",
    "whole_file": "import pytest\n\npytest.importorskip('a_module_that_is_not_there')\n\ndef test_it():\n    pass\n",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("folder", "required", "fails"),
    [("golden", "1", True), ("parity", "1", True), ("golden", "", False), ("data", "1", False)],
)
def test_skips(case: str, folder: str, required: str, fails: bool, tmp_path: Path) -> None:
    files = {f"{folder}/test_one.py": CASES[case], f"{folder}/test_two.py": "def test_it():\n    pass\n"}
    done = run(tmp_path, files, VLGUARD_REQUIRE_ALL=required)
    assert (done.returncode != 0) == fails, done.stdout
    assert ("skipped under VLGUARD_REQUIRE_ALL" in done.stdout) == fails


@pytest.mark.parametrize("case", CASES)
def test_data_that_cannot_be_downloaded_is_no_failure(case: str, tmp_path: Path) -> None:
    text = (
        CASES[case]
        .replace("no data", f"a package {NOT_HAD}")
        .replace(
            "pytest.importorskip('a_module_that_is_not_there')",
            f"pytest.skip('a package {NOT_HAD}', allow_module_level=True)",
        )
    )
    done = run(tmp_path, {"parity/test_one.py": text}, VLGUARD_REQUIRE_ALL="1")
    assert done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout


def test_skipped_benchmark_files_are_a_failure(tmp_path: Path) -> None:
    text = "import pytest\n\ndef test_it():\n    pytest.skip('no data')\n"
    done = run(tmp_path, {"safety/benchmarks/test_official.py": text}, VLGUARD_REQUIRE_ALL="1")
    assert done.returncode != 0 and "skipped under VLGUARD_REQUIRE_ALL" in done.stdout


def run(top: Path, files: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in `files` under the conftest of this folder."""
    for name, text in files.items():
        (top / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "tests" / name).write_text(text)
    shutil.copy(Path(__file__).parent / "conftest.py", top / "tests")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(top), "tests"]
    return subprocess.run(command, cwd=top, env=ours | environment, capture_output=True, text=True)


LEAKS = {
    "a name of the package": ("from vlguard_jax import errors", "errors.EXIT_OK = 5", "vlguard_jax.errors.EXIT_OK"),
    "a registry": (
        "from vlguard_jax.safety.judges import registry",
        "registry.JUDGES['x'] = 1",
        "vlguard_jax.safety.judges.registry.JUDGES",
    ),
    "a variable": ("import os", "os.environ['VLGUARD_X'] = '1'", "$VLGUARD_X"),
    "the folder": ("import os", "os.chdir('/')", "the working directory"),
    "a signal": ("import signal", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "the handler of SIGTERM"),
    "jax": ("import jax", "jax.config.update('jax_enable_x64', True)", "jax.config.jax_enable_x64"),
    "a log": ("import logging", "logging.getLogger('vlguard_jax').propagate = False", "the logger vlguard_jax"),
}


def test_what_a_test_leaves_changed_is_named(tmp_path: Path) -> None:
    tests = {
        f"test_{i}.py": f"{first}\n\ndef test_it():\n    {leak}\n" for i, (first, leak, _) in enumerate(LEAKS.values())
    }
    tests["test_fixture.py"] = (
        "import pytest\nfrom vlguard_jax import errors\n\n@pytest.fixture(scope='module')\ndef it():\n   "
        " errors.EXIT_RESTART = 5\n\n"
        "def test_it(it):\n    pass\n"
    )
    tests["test_clean.py"] = (
        "from vlguard_jax import errors\n\ndef test_it(monkeypatch, tmp_path):\n    monkeypatch.setattr(errors,"
        " 'EXIT_OK', 5)\n"
        "    monkeypatch.setenv('VLGUARD_X', '1')\n    monkeypatch.chdir(tmp_path)\n"
    )
    done = run(tmp_path, tests)
    said = [
        line
        for line in done.stdout.splitlines()
        if " leaves changed for whatever runs next: " in line and not line.startswith(" ")
    ]
    expected = {name for *_, name in LEAKS.values()} | {"vlguard_jax.errors.EXIT_RESTART"}
    assert {line.rpartition(": ")[2] for line in said} == expected, done.stdout
    assert not any("test_clean" in line for line in said)


SURROUNDINGS = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=3 --xla_no_such_flag",
    "JAX_PLATFORMS": "tpu",
    "JAX_ENABLE_X64": "1",
    "VLGUARD_DEBUG": "1",
    "SLURM_NTASKS": "8",
    "HF_TOKEN": "x",
    "https_proxy": "nowhere:1",
    "FORCE_COLOR": "1",
    "COLUMNS": "20",
    "PYTHONWARNINGS": "error",
}


def test_surroundings_do_not_matter(tmp_path: Path) -> None:
    names = sorted(SURROUNDINGS.keys() - {"XLA_FLAGS", "JAX_PLATFORMS"})
    text = (
        f"import os\nimport jax\n\ndef test_it():\n    assert not set({names!r}) & set(os.environ)\n"
        "    assert len(jax.devices('cpu')) == 8 and not jax.config.jax_enable_x64\n"
    )
    without = {"PYTHONWARNINGS": "default"}  # errors would end the nested pytest before it begins
    done = run(tmp_path, {"test_it.py": text}, **SURROUNDINGS | without)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compiled_programs_are_kept_where_nobody_else_writes(tmp_path: Path) -> None:
    text = (
        "import os\n\ndef test_it():\n    print('kept in', os.environ['JAX_COMPILATION_CACHE_DIR'])\n    assert False\n"
    )
    places = []
    for changed in (False, True):
        done = run(tmp_path, {"test_it.py": text}, TMPDIR=str(tmp_path), JAX_COMPILATION_CACHE_DIR="")
        (place,) = [
            Path(line.removeprefix("kept in ")) for line in done.stdout.splitlines() if line.startswith("kept in ")
        ]
        places.append(place)
        if not changed:
            assert place.parent == tmp_path and place.stat().st_mode & 0o777 == 0o700
            place.chmod(0o777)  # as somebody else's, who was there first
    assert places[0] != places[1] and not places[1].exists()
