"""Every notebook runs, at tiny size: its parameters are replaced, and what only its machine has is left out."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

from nbclient import client
import nbformat
import pytest

from tests import source
from tests.docs import recipes
from tests.training import stand as training_stand

FOLDER = source.ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
STATUS = "executed at tiny size on a CPU by the tests"
FP32 = [f"--config.precision.{name}=fp32" for name in ("compute", "params", "frozen")]
TRAIN = [
    *(*FP32, "--config.data.batch_size=4", "--config.data.group_size=4", "--config.run.rows=0"),
    *("--config.data.length_multiple=64", "--config.data.read_threads=1", "--config.run.tensorboard=False"),
    *("--config.optimizer.max_steps=2", "--config.run.save_every=1", "--config.run.keep=2"),
    *("--config.data.sources.vlguard.expect=0", "--config.data.sources.alpaca.count=4", "--config.lora.rank=2"),
]
EVALUATE = ["--config.benchmark.name=vlguard_like", "--config.decode.max_new_tokens=2", "--config.decode.batch_size=4"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def execute(name: str, folder: pathlib.Path, last: str = "", **parameters: Any) -> str:
    """Run a notebook in `folder`, up to the cell with the id `last`; what its cells printed and showed.

    Raises what a cell raises.
    """
    notebook = nbformat.read(FOLDER / name, 4)
    (at,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    known = {line.partition(" =")[0] for line in notebook.cells[at].source.splitlines() if " = " in line}
    assert set(parameters) <= {one.strip() for names in known for one in names.split(",")}
    assert not any(f"from {other}" in notebook.cells[at].source for other in parameters)
    given = nbformat.v4.new_code_cell("\n".join(f"{key} = {value!r}" for key, value in parameters.items()))
    cells = [*notebook.cells[: at + 1], given, *notebook.cells[at + 1 :]]
    if last:
        cells = cells[: [cell.id for cell in cells].index(last) + 1]
    notebook.cells = [cell for cell in cells if "machine" not in tags(cell)]
    runner = client.NotebookClient(
        notebook, timeout=source.PATIENCE, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    runner.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text") or json.dumps(output.get("data", {})) for output in outputs)


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder with a model, VLGuard's form of data and helpful text; one device, nothing of Jupyter's elsewhere."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.delenv("XLA_FLAGS")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    training_stand.write_model(tmp_path / "model", 0)
    recipes.write_vlguard(tmp_path / "vlguard")
    plain = [{"instruction": recipes.SAFE, "input": "", "output": recipes.YES}] * 4
    (tmp_path / "alpaca.json").write_text(json.dumps(plain))
    return tmp_path


def test_outputs_are_not_stored_and_the_first_cell_says_what_was_run() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code), path.name
        assert STATUS in notebook.cells[0].source and "Not run on" in notebook.cells[0].source, path.name
        assert sum("parameters" in tags(cell) for cell in code) == sum("machine" in tags(cell) for cell in code) == 1


@pytest.mark.parity
def test_kaggle_trains_measures_and_goes_on_with_a_session_that_ended(place: pathlib.Path) -> None:
    given = {
        **{"MODEL": str(place / "model"), "VLGUARD": str(place / "vlguard"), "HELPFUL": str(place / "alpaca.json")},
        **{"SCRATCH": str(place / "scratch"), "PREPARE": ["--any_size"], "TRAIN": TRAIN, "EVALUATE": EVALUATE},
    }
    shown = execute("kaggle_tpu_lora_7b.ipynb", place, WORK=str(place / "first"), **given)
    assert "llava-v1.5-7b on v5e:2x4: fits" in shown and "updates 2/2" in shown and "| posthoc_lora |" in shown
    assert (place / "first" / "report.html").is_file() and (
        place / "first" / "posthoc_lora/model/adapter_config.json"
    ).is_file()

    ended = shutil.copytree(place / "first", place / "ended")
    shutil.rmtree(ended / "posthoc_lora" / "model")
    shutil.rmtree(ended / "posthoc_lora" / "checkpoints" / "2")
    again = execute(
        "kaggle_tpu_lora_7b.ipynb", place, "train", WORK=str(place / "second"), PREVIOUS=str(ended), **given
    )
    assert "resumed after update 1" in again
    adapters = "posthoc_lora/model/adapter_model.safetensors"
    assert (place / "first" / adapters).read_bytes() == (place / "second" / adapters).read_bytes()


def test_kaggle_starts_nothing_when_the_time_is_up(place: pathlib.Path) -> None:
    given = {"WORK": str(place), "SCRATCH": str(place / "scratch"), "HOURS": 0}
    shown = execute("kaggle_tpu_lora_7b.ipynb", place, **given)
    assert "train was not started" in shown and "evaluate was not" not in shown and "stopped and saved" in shown


@pytest.mark.parity
def test_colab_measures_a_checkpoint_on_either_chip(place: pathlib.Path) -> None:
    given = {"MODEL": str(place / "model"), "VLGUARD": str(place / "vlguard"), "SCRATCH": str(place / "scratch")}
    given |= {"WORK": str(place / "run"), "PREPARE": ["--any_size"], "EVALUATE": EVALUATE}
    shown = execute("colab_tpu_evaluate.ipynb", place, **given)
    assert "on v5e:1x1: fits" in shown and "answers 6/6" in shown and "| model |" in shown
    assert (place / "run" / "report.html").is_file() and (place / "run" / "table2.md").is_file()
    large = execute("colab_tpu_evaluate.ipynb", place, "plan", CHIP="v6e:1x1", **given)
    assert "on v6e:1x1: fits" in large


@pytest.mark.parity
def test_the_miniature_is_told_and_asked(place: pathlib.Path) -> None:
    story = ["tests.quickstart.run_small"]
    shown = execute("colab_t4_quickstart.ipynb", place, WORK=str(place / "story"), STORY=story)
    assert "iframe srcdoc" in shown and "image/png" in shown
    assert "keyword_repaired" in shown and {"base", "posthoc"} <= set(os.listdir(place / "story"))
