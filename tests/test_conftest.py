"""CI cannot be green because golden or parity tests skipped."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

CASES = {
    "in_a_test": "import pytest\n\ndef test_it():\n    pytest.skip('no data')\n",
    "whole_file": "import pytest\n\npytest.importorskip('a_module_that_is_not_there')\n\ndef test_it():\n    pass\n",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("folder", "required", "fails"), [("golden", "1", True), ("parity", "1", True), ("golden", "", False), ("data", "1", False)]
)
def test_skips(case: str, folder: str, required: str, fails: bool, tmp_path: Path) -> None:
    place = tmp_path / "tests" / folder
    place.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path / "tests")
    (place / "test_one.py").write_text(CASES[case])
    (place / "test_two.py").write_text("def test_it():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "tests"],
        cwd=tmp_path,
        env={**os.environ, "VLGUARD_REQUIRE_ALL": required},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stdout
    assert ("skipped under VLGUARD_REQUIRE_ALL" in done.stdout) == fails
