"""The paper's tables as launch files: every arm with its row, and the cells that arms make."""

from __future__ import annotations

import pathlib

import pytest

from launch import cells
from launch import jobs as jobs_lib
from launch import spec as spec_lib
from tests.launch import rehearsal
from tests.launch import renderings
from vlguard_jax import errors
from vlguard_jax.safety import paper_tables

EXPERIMENTS = sorted(rehearsal.EXPERIMENTS.glob("*.toml"))
SOME = [
    path if path.stem in ("table1", "table13") else pytest.param(path, marks=pytest.mark.more) for path in EXPERIMENTS
]
SIMPLE = (renderings.SPECS / "chip.toml").read_text()


def rows(jobs):
    """The rows that the jobs' evaluations name."""
    found = set()
    for job in jobs:
        for command in job.commands:
            found |= {one.split("=", 1)[1] for one in command if one.startswith("--config.paper_row=")}
    return {paper_tables.spelt(row) for row in found}


def test_every_table_has_its_launch_file():
    assert {path.stem for path in EXPERIMENTS} == set(paper_tables.TABLES)


@pytest.mark.parametrize("path", SOME, ids=lambda path: path.stem)
def test_every_row_is_measured(path):
    """All rows of the table but MiniGPT-v2's; what a job trains, it evaluates; every command is checked."""
    launch = jobs_lib.prepare(path, "gke")
    wanted = {row for row in paper_tables.TABLES[path.stem].rows if not row.startswith("MiniGPT")}
    assert rows(launch.jobs) == wanted
    for job in launch.jobs:
        trained = [command for command in job.commands if command[0] == "train"]
        asked = [command for command in job.commands if command[0] == "evaluate"]
        own = f"--config.model.path={job.folder}/train/model"
        assert asked and all((own in command) == bool(trained) for command in asked), job.name
    assert f"--paper={path.stem} " in launch.files["gather.sh"]
    text = path.read_text()
    assert f"plan --sweep launch/experiments/{path.name}" in text
    assert f"render.py --target gke launch/experiments/{path.name} --out launched" in text


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_column_is_asked(path):
    """The benchmarks of the columns that are counted here, each in every job whose row has a value there."""
    table = paper_tables.TABLES[path.stem]
    for job in spec_lib.jobs(spec_lib.read(path)):
        (row,) = rows([job])
        counted = [
            column
            for column, value in zip(table.columns, table.rows[row], strict=True)
            if paper_tables.COLUMNS[column].n and value is not None
        ]
        asked = {command[1].split("/")[-1].split(".py")[0] for command in job.commands if command[0] == "evaluate"}
        assert asked == {benchmark(column) for column in counted}, job.name


def benchmark(column):
    """The benchmark of a column of the paper."""
    named = {"alpaca": "alpaca_eval", "advbench": "advbench", "xstest": "xstest", "figstep": "figstep"}
    return named.get(column.split("/")[0].split("_")[0], "vlguard")


def test_a_tables_arms_are_those_of_the_paper():
    """Table 2: a base, four ways to repair it trained three times, and as published, at two sizes."""
    jobs = spec_lib.jobs(spec_lib.read(rehearsal.EXPERIMENTS / "table2.toml"))
    assert len(jobs) == 2 * (1 + 4 * 3 + 4)
    job = next(job for job in jobs if job.name == "table2-mixed-13b-2")
    assert "--config=configs/train/llava_v15_13b_mixed.py" in job.commands[0] and job.accelerator.name == "v5e:4x8"
    assert "--config.paper_row=LLaVA-v1.5-13b Mixed" in job.commands[1]
    theirs = next(job for job in jobs if job.name == "table2-theirs-posthoc-lora-7b-0")
    assert "--config.model.path=/bucket/models/llava-v1.5-7b-Posthoc-lora" in theirs.commands[0]
    assert jobs_lib.label(theirs) == "theirs_posthoc_lora/7b"


def test_figures_change_the_safety_data_alone():
    figure4 = spec_lib.jobs(spec_lib.read(rehearsal.EXPERIMENTS / "figure4.toml"))
    counts = [
        one for job in figure4 for one in job.commands[0] if one.startswith("--config.data.sources.vlguard.count")
    ]
    assert sorted({int(one.split("=")[1]) for one in counts}) == [100, 200, 500, 1000, 1500, 2000]
    figure5 = spec_lib.jobs(spec_lib.read(rehearsal.EXPERIMENTS / "figure5.toml"))
    left_out = {one.split("=")[1] for job in figure5 for one in job.commands[0] if "leave_out" in one}
    assert left_out == {"()", "('privacy',)"}


def test_arms_bring_axes_and_texts():
    arms = {"a": cells.Arm(), "b": cells.Arm({"seed": (7,), "n": (1, 2)}, {"model": "x"})}
    found = list(cells.of({"seed": (0, 1)}, arms))
    assert [cell for cell, _ in found] == [
        {"arm": "a", "seed": 0},
        {"arm": "a", "seed": 1},
        {"arm": "b", "seed": 7, "n": 1},
        {"arm": "b", "seed": 7, "n": 2},
    ]
    assert [dict(own) for _, own in found] == [{}, {}, {"model": "x"}, {"model": "x"}]
    assert cells.axes({"seed": (0, 1)}, arms) == {"arm": ("a", "b"), "seed": (0, 1, 7), "n": (1, 2)}


def written(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "launch.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[arms."a b"]\n', "the name of an arm has letters"),
        ("[arms.a.sweep]\nseed = []\n", "arms.a.sweep.seed must be a list of different values"),
        ('[arms.a.texts]\njob = "x"\n', "arms.a.texts: 'job' is taken"),
        ('[arms.a.sweep]\narm = ["x"]\n', "'arm' cannot be the name of an axis"),
        ('[sweep]\nseed = [1]\n[arms.a.texts]\nseed = "x"\n', "arms.a.texts: 'seed' is taken"),
        ('[arms.a.texts]\nmodel = "{nope}"\n', "{nope} is not known"),
        ('[arms.a]\n[[when]]\narm = "b"\nspot = true\n', "arm = 'b' is not in the sweep"),
        ('paper = "table22"\n', "paper = 'table22' is no table of the paper; did you mean 'table2'"),
    ],
)
def test_what_is_wrong_with_arms_is_named(tmp_path, text, message):
    where = SIMPLE.index("[[steps]]")
    path = written(tmp_path, SIMPLE[:where] + text + SIMPLE[where:])
    with pytest.raises(errors.UserError) as caught:
        spec_lib.jobs(spec_lib.read(path))
    assert message in str(caught.value)


def test_steps_of_unknown_arms_and_arms_without_steps(tmp_path):
    where = SIMPLE.index("[[steps]]")
    text = SIMPLE[:where] + "[arms.one]\n[arms.two]\n" + SIMPLE[where:]
    with pytest.raises(errors.UserError, match="arms: 'onee' is not an arm; did you mean 'one'"):
        spec_lib.read(written(tmp_path, text.replace("[[steps]]\n", '[[steps]]\narms = ["onee"]\n', 1)))
    spec = spec_lib.read(written(tmp_path, text.replace("[[steps]]\n", '[[steps]]\narms = ["one"]\n')))
    with pytest.raises(errors.UserError, match="none of the steps is of this arm"):
        spec_lib.jobs(spec)


def test_a_rehearsal_keeps_the_cells_and_shrinks_the_work(tmp_path):
    spec = rehearsal.read("table2", tmp_path, tmp_path / "tower")
    found = jobs_lib.render(spec, "slurm")
    assert {jobs_lib.label(job) for job in found.jobs} == {
        jobs_lib.label(job) for job in spec_lib.jobs(spec_lib.read(rehearsal.EXPERIMENTS / "table2.toml"))
    }
    assert all(
        f"--config.benchmark.limit={rehearsal.EVALUATE['benchmark.limit']}" in job.commands[-1] for job in found.jobs
    )
