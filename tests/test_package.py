"""The wheel, made from the sdist and installed alone, does everything without a checkout, from an empty folder."""

from __future__ import annotations

from collections.abc import Callable
import email
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile

import pytest
import yaml

from tests import source
import vlguard_jax
from vlguard_jax import shipped

# Their majors come with the calendar, or often, and broke nothing that is used here.
NO_UPPER_BOUND = {"fsspec", "pillow", "pyarrow", "regex"}
# The beginning of the quickstart at its smallest: a language model.
STORY = """
import functools, pathlib
from vlguard_jax.quickstart import arms, story, tower, world
tower.warm_up = functools.partial(tower.warm_up, count=100, updates=5)
sizes = world.Sizes(texts=48, mix=96, mix_texts=16, train=(16, 16), test=6, probe=4, prompts=5)
assert story.tell(pathlib.Path("story"), 1000, arms=arms.ARMS[:1], sizes=sizes)
"""
DATA = "--config.data.sources.vlguard"
TINY = (
    *("--config.model.path=story/llm/model", "--config.optimizer.max_steps=2"),
    *(f"{DATA}.path=story/world/train.json", f"{DATA}.images=story/world/train", f"{DATA}.expect=0"),
    *("--config.data.batch_size=16", "--config.data.group_size=8", "--config.run.rows=0"),
)
Run = Callable[..., str]


def requirements() -> list[str]:
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]


def test_no_dependency_surprises() -> None:
    """Each has a lower bound, and an upper one below the major that may break it."""
    for requirement in requirements():
        named = requirement.partition(";")[0]
        if named.startswith("jax["):  # bounded by jax itself
            continue
        assert ">=" in named or "==" in named, requirement
        plain = named.partition(">")[0].partition("[")[0]
        assert plain in NO_UPPER_BOUND or "==" in named or "<" in named, requirement


def test_one_version() -> None:
    cited = yaml.safe_load((source.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (source.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert cited["version"] == vlguard_jax.__version__ and cited["cff-version"] == "1.2.0"
    assert changes.split("\n## ")[1].startswith(f"{vlguard_jax.__version__} (")


def built(kind: str, folder: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=source.PATIENCE)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return built("sdist", source.ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Made from the sdist, as those do who install one."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return built("wheel", next(unpacked.iterdir()), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def run(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of an environment that has the wheel, and sees the dependencies of this one but not its package,
    in a folder that begins empty; its output."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "env", with_pip=False)
    python = root / "env/bin/python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(asked, capture_output=True, check=True, text=True).stdout.strip()
    (pathlib.Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    (root / "empty").mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}

    def ran(program: str, *words: str) -> str:
        done = subprocess.run(
            [root / "env/bin" / program, *words],
            cwd=root / "empty",
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=source.PATIENCE,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    return ran


def files(folder: pathlib.Path) -> set[str]:
    """What is in a folder, without what Python leaves there."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parity
def test_what_is_in_the_wheel(wheel: pathlib.Path) -> None:
    """The package, and in it configs/ and launch/ whole; nothing beside it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (described,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = email.message_from_bytes(archive.read(described))
    kept = {f"vlguard_jax/{name}" for name in files(source.PACKAGE)}
    for top in ("configs", "launch"):
        kept |= {f"vlguard_jax/{shipped.IN_WHEEL}/{top}/{name}" for name in files(source.ROOT / top)}
    assert {name for name in names if ".dist-info/" not in name} == kept
    assert about["License-File"] == "LICENSE" and set(about["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    said = {one.partition(";")[0].replace(" ", "") for one in about.get_all("Requires-Dist") or []}
    for requirement in requirements():  # the bounds in whatever order
        name, bounds = requirement.partition(";")[0].partition(">")[::2]
        found = [one for one in said if one.startswith(name) and all(bound in one for bound in bounds.split(","))]
        assert found, requirement


@pytest.mark.parity
def test_what_is_in_the_sdist(sdist: pathlib.Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/test_package.py"} <= names
    assert "configs/train/rehearsal.py" in names and "launch/templates/gke.yaml.j2" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "runs"))]


@pytest.mark.parity
def test_the_commands_without_a_checkout(run: Run) -> None:
    where = run("python", "-c", "import vlguard_jax; print(vlguard_jax.__file__)")
    assert "/env/" in where and "vlguard_jax " in run("vlguard", "--version")
    told = run("vlguard", "plan", "--config=train/llava_v15_7b_posthoc_lora", "--topology=v5e:4x4", "--estimate")
    assert "on v5e:4x4: fits" in told
    assert "7 jobs" in run("vlguard", "plan", "--sweep", "figure5")
    assert "start with: cd launched" in run("vlguard", "render", "--target=slurm", "h100", "--out=launched")
    assert "[rehearsal:lora]" in run("vlguard", "train", "--config", "rehearsal:lora", "--print_config")


@pytest.mark.parity
def test_train_and_evaluate_without_a_checkout(run: Run) -> None:
    """What the quickstart makes is trained on and asked by the commands."""
    assert "== llm" in run("python", "-c", STORY)
    lines = run("vlguard", "train", "--config=rehearsal", "--workdir=tuned", "--output=json", *TINY).splitlines()
    events = [json.loads(line) for line in lines]
    assert [one["step"] for one in events if one["event"] == "update"] == [1, 2]
    assert events[-1]["event"] == "result" and events[-1]["finished"] and events[-1]["model"] == "tuned/model"
    assert "updates 0/2, compiling" in [one["text"] for one in events if one["event"] == "progress"]
    asked = ("--config.model.path=tuned/model", "--config.benchmark.path=story/world/prompts.json")
    table = run("vlguard", "evaluate", "--config=prompts", "--workdir=asked", "--output=quiet", *asked)
    assert "text_unsafe" in table and "answers" not in table.partition("text_unsafe")[0]
    assert "report.html" in run("vlguard", "report", "asked", "--out=report.html")
