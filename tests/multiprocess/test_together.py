"""Two processes with four devices each do what one does: train, stop and go on, evaluate; and what they say where they
cannot."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.multiprocess import hosts
from tests.safety import judge_folders
from tests.safety import stand as safety_stand
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import judge_settings
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import probes
from vlguard_jax.training import loop

pytestmark = pytest.mark.parity  # one pair of processes runs them all, for minutes

UPDATES, STOP = 5, 3
CHAIN = ("eight-then-four", "eight-then-one")
MESHES = {"full": {"data": 2, "fsdp": 4}, "lora": {"fsdp": 4, "tensor": 2}}


def _settings(kind: str, updates: int = UPDATES, **changes) -> config.TrainConfig:
    lora = {"rank": 4, "dropout": 0.3} if kind == "lora" else {}
    settings = stand.settings(lora=lora, run={"export": "llava"}, optimizer={"max_steps": updates})
    mesh = config.MeshSettings(**changes.pop("mesh", {}))
    return dataclasses.replace(settings, mesh=mesh, **changes)


def _probed(root: pathlib.Path, settings: config.TrainConfig) -> config.TrainConfig:
    """With a probe of a question of each subset after the last update."""
    asked = config.BenchmarkSettings("vlguard_like", str(root / "benchmark"), limit=1)
    decode = config.DecodeSettings(max_new_tokens=6, batch_size=8)
    tiny = {"tiny": config.ProbedSettings(asked)}
    return dataclasses.replace(settings, probe=config.ProbeSettings(100, False, True, tiny, decode))


def _evaluation(root: pathlib.Path, family: str = "llava", limit: int = 0) -> config.EvalConfig:
    """Two subsets share their pictures. LLaVA-NeXT is divided over all axes of the mesh, both ways between the
    processes."""
    harmbench = judge_settings.LocalJudge("harmbench", str(root / "judge"), batch_size=8, chunk=4)
    return config.EvalConfig(
        model=config.ModelSettings(str(stand.folder() / stand.MODELS[family])),
        precision=config.EvalPrecisionSettings("fp32"),
        benchmark=config.BenchmarkSettings("vlguard_like", str(root / "benchmark"), limit=limit),
        decode=config.DecodeSettings(max_new_tokens=6, batch_size=8),
        mesh=config.MeshSettings(data=-1, fsdp=1) if family == "llava" else config.MeshSettings(2, 2, 2),
        judges=("keyword_vlguard_v1", *(["harmbench"] if family == "llava" and not limit else [])),
        local_judges={"harmbench": harmbench},
    )


@dataclasses.dataclass(frozen=True)
class Ran:
    """Where each run of the two processes is, and what they printed."""

    root: pathlib.Path
    outputs: tuple[str, str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """All jobs in one pair of processes; meanwhile the same runs on one device, and the halves on eight devices,
    here."""
    root = tmp_path_factory.mktemp("hosts")
    safety_stand.write_benchmark(root / "benchmark")
    judge_folders.write(root / "judge", "harmbench")
    two = _settings("full", mesh=MESHES["full"])
    jobs = [
        hosts.Job(root / "full", _probed(root, two)),
        hosts.Job(root / "lora", _probed(root, _settings("lora", mesh=MESHES["lora"]))),
        hosts.Job(root / "two-then-one", _settings("full", STOP, mesh=MESHES["full"])),
        hosts.Job(root / "llava", _evaluation(root, limit=1)),
        hosts.Job(root / "llava", _evaluation(root)),
        hosts.Job(root / "llava_next", _evaluation(root, "llava_next")),
        hosts.Job(root / "other-settings", two, changes={1: dataclasses.replace(two, seed=7)}),
        hosts.Job(root / "other-versions", two, versions=True),
        hosts.Job(root / "refused", two, refused=1),
        hosts.Job(root / "full-disk", _settings("full", 1, mesh=MESHES["full"]), full=True),
        hosts.Job(root / "one-then-two", two, after=root / "stopped"),
        hosts.Job(root / "eight-then-two", _settings("lora", mesh=MESHES["lora"]), after=root / "stopped"),
        hosts.Job(root / "signal", _settings("full", 0, mesh=MESHES["full"]), signal=True),
    ]
    running = hosts.start(root, jobs, devices=(4, 4))
    with pytest.MonkeyPatch.context() as patch, hosts.programs() as made:
        stand.use_devices(patch, 8)
        loop.train(_settings("full", STOP), root / "one-then-two")
        loop.train(_settings("lora", STOP, mesh=MESHES["lora"]), root / "eight-then-two")
        for name in CHAIN:
            shutil.copytree(root / "eight-then-two", root / name)
        (root / "stopped").touch()
        from_checkpoint.evaluate(_evaluation(root), root / "llava-of-one", quiet=True)
        assert hosts.finish(running) == [75, 75], hosts.output(root, 0) + hosts.output(root, 1)
        loop.train(_settings("full"), root / "two-then-one")
        stand.use_devices(patch, 4)
        loop.train(_settings("lora", mesh={"data": 2, "fsdp": 2}), root / "eight-then-four")
        stand.use_devices(patch, 1)
        next_alone = dataclasses.replace(_evaluation(root, "llava_next"), mesh=config.MeshSettings(1, 1, 1))
        from_checkpoint.evaluate(next_alone, root / "llava_next-of-one", quiet=True)
        for kind in MESHES:
            loop.train(_probed(root, _settings(kind)), root / f"{kind}-of-one")
        loop.train(_settings("lora"), root / "eight-then-one")
        assert [program.step._cache_size() for program in made.values()] == [1] * 5
    yield Ran(root, (hosts.output(root, 0), hosts.output(root, 1)))


def _equal(ran: Ran, name: str, expected: str) -> None:
    """Losses of all updates and final parameters of two runs to 1e-5."""
    losses = [[line["loss"] for line in stand.metrics(ran.root / run)] for run in (name, expected)]
    assert len(losses[0]) == UPDATES
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ours, theirs = (trees.flatten(load.load(ran.root / run / "model").params) for run in (name, expected))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        off = np.linalg.norm(value - theirs[path]) / max(np.linalg.norm(theirs[path]), 1e-12)
        assert off < 1e-5, f"{path}: {off}"


@pytest.mark.parametrize("kind", MESHES)
def test_two_processes_equal_one_device(ran: Ran, kind: str) -> None:
    _equal(ran, kind, f"{kind}-of-one")


@pytest.mark.parametrize("kind", MESHES)
def test_two_processes_probe_as_one(ran: Ran, kind: str) -> None:
    """With weights in eight parts, and adapters; the first process writes."""

    def found(name: str) -> tuple:
        lines = (ran.root / name / f"probe/{UPDATES}/tiny/generations.jsonl").read_text().splitlines()
        answers = {(line["subset"], line["item_id"]): line["response"] for line in map(json.loads, lines)}
        assert len(lines) == len(answers) == 3
        (probe,) = probes.read(ran.root / name)
        return answers, probe.step, probe.rates

    assert found(kind) == found(f"{kind}-of-one")


@pytest.mark.parametrize("kind", MESHES)
def test_two_processes_write_the_files_that_one_writes(
    ran: Ran, kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same state, that of the last update."""
    shutil.copytree(ran.root / kind, tmp_path / kind, ignore=shutil.ignore_patterns("model"))
    stand.use_devices(monkeypatch, 8)
    loop.train(_probed(ran.root, _settings(kind, mesh=MESHES[kind])), tmp_path / kind)
    ours, theirs = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (ran.root / kind / "model", tmp_path / kind / "model")
    )
    assert ours == theirs and len(ours) > 5


def test_a_full_disk_leaves_no_half_of_a_model(ran: Ran) -> None:
    """And nobody waits for the process that writes: all went on with the next run."""
    found = [path.name for path in (ran.root / "full-disk").iterdir()]
    assert "checkpoints" in found and "model" not in found and not any("partial" in name for name in found)


@pytest.mark.parametrize("name", ["two-then-one", "one-then-two"])
def test_a_run_goes_on_with_another_number_of_processes(ran: Ran, name: str) -> None:
    _equal(ran, name, "full-of-one")


@pytest.mark.parametrize("name", ["eight-then-two", *CHAIN])
def test_a_run_with_dropout_goes_on_elsewhere(ran: Ran, name: str) -> None:
    """Saved on eight devices, continued by two processes, on four devices and on one."""
    _equal(ran, name, "lora-of-one")


def test_each_step_is_compiled_once(ran: Ran) -> None:
    """Full and LoRA, in five runs."""
    assert all("compilations: [1, 1]" in output for output in ran.outputs)


def test_each_process_keeps_a_log_and_the_first_speaks(ran: Ran) -> None:
    logs = [(ran.root / "full" / "logs" / f"process-{i}.log").read_text() for i in (0, 1)]
    assert all("5 updates of" in log for log in logs)
    assert "5 updates of" in ran.outputs[0] and "5 updates of" not in ran.outputs[1]
    went_on = [(ran.root / "one-then-two" / "logs" / f"process-{i}.log").read_text() for i in (0, 1)]
    assert all(f"resumed after update {STOP}" in log for log in went_on)


@pytest.mark.parametrize("family", stand.MODELS)
def test_two_processes_answer_as_one(ran: Ran, family: str) -> None:
    """LLaVA stopped behind the first question of each subset and resumed; each question is answered once."""

    def answers(name: str) -> dict[str, str]:
        lines = [json.loads(line) for line in (ran.root / name / "generations.jsonl").read_text().splitlines()]
        found = {line["key"]: line["response"] for line in lines}
        assert len(found) == len(lines) == safety_stand.UNSAFE + 2 * safety_stand.SAFE
        return found

    names = family, f"{family}-of-one"
    assert answers(names[0]) == answers(names[1]) and len(set(answers(names[0]).values())) > 1
    summaries = [json.loads((ran.root / name / "summary.json").read_text()) for name in names]
    assert summaries[0] == summaries[1] and len(summaries[0]) == (5 if family == "llava" else 3)
    said = [
        {(one["key"], one["judge"]): one["raw"] for one in map(json.loads, path.read_text().splitlines())}
        for path in (ran.root / name / "verdicts.jsonl" for name in names)
    ]
    assert said[0] == said[1] and any(judge == "harmbench" for _, judge in said[0]) == (family == "llava")


def test_what_differs_is_named_by_both(ran: Ran) -> None:
    for output in ran.outputs:
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        assert errors == [
            "error: process 1 has config.seed=7, process 0 has 42; start all with the same command",
            "error: process 1 has versions.jax='0.1', process 0 has '0.0'; install the same packages and the same"
            " checkout on every host",
            "error: process 1: chats.json: no such file",
            f"error: {ran.root}/full-disk/model: no space left on the disk; what was finished before is kept; make"
            " room or name another place, and start the same command again",
        ]
    assert not any((ran.root / name).exists() for name in ("other-settings", "other-versions", "refused"))


def test_other_devices_in_another_process_are_named(tmp_path: pathlib.Path) -> None:
    assert hosts.finish(hosts.start(tmp_path, [hosts.Job(tmp_path / "run", _settings("full"))], devices=(2, 1))) == [
        2,
        2,
    ]
    said = "error: process 1 has 1 x cpu, process 0 has 2 x cpu; start every process on as many devices of one kind"
    assert all(said in hosts.output(tmp_path, i) for i in (0, 1))
    assert not (tmp_path / "run").exists()


def test_a_missing_process_is_said(tmp_path: pathlib.Path) -> None:
    running = hosts.start(
        tmp_path, [hosts.Job(tmp_path, _settings("full"))], devices=(1,), count=2, VLGUARD_START_TIMEOUT="3"
    )
    assert hosts.finish(running) == [2], hosts.output(tmp_path, 0)
    last = hosts.output(tmp_path, 0).strip().splitlines()[-1]
    assert last.startswith(
        "error: not all of 2 processes came within 3 s; check that JAX_COORDINATOR_ADDRESS=127.0.0.1:"
    )


def test_a_signal_to_one_stops_all_at_the_same_update(ran: Ran) -> None:
    (saved,) = (int(path.name) for path in (ran.root / "signal" / "checkpoints").iterdir() if path.name.isdigit())
    assert stand.metrics(ran.root / "signal")[-1]["step"] == saved < 6
