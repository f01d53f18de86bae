"""The command `plan`: its output, its file, its mistakes, and real data."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import source
from tests.training import stand

POSTHOC = "--config=configs/train/llava_v15_7b_posthoc.py"
RELEASED = "--config=configs/released/llava_v15_7b_posthoc.py"


def run(*arguments: str, cwd: pathlib.Path = source.ROOT, code: int = 0) -> str:
    env = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "vlguard_jax.plan", *arguments], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_estimate(tmp_path):
    file = tmp_path / "new" / "plan.json"
    shown = run(POSTHOC, "--config.data.mode=pack", "--topology=v5e:4x4", "--estimate", f"--json={file}")
    found = json.loads(file.read_text())
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]
    assert found["fits"] and found["steps"] == 165 and "changes" not in found
    assert f"{found['per_chip']['peak_gib']:.2f} of 15.75" in shown and f"${found['dollars']:,.2f}" in shown
    assert "on v5e:4x4: fits" in shown and "nothing was downloaded" in shown and "no real lengths" in shown


def test_what_to_change(tmp_path):
    file = tmp_path / "plan.json"
    shown = run(POSTHOC, "--topology=v5e:2x4", "--model=13b", "--estimate", f"--json={file}")
    changes = json.loads(file.read_text())["changes"]
    assert "DOES NOT FIT" in shown and "What to change" in shown
    assert changes[0]["fits"] and changes[0]["change"] == "--topology=v5e:4x8"
    assert {"change", "same_result", "fits", "peak_gib", "hours", "dollars"} <= set(changes[0])


def test_sweep(tmp_path):
    file = tmp_path / "sweep.json"
    shown = run(
        POSTHOC, "--config.data.mode=pack", "--sweep", "--deadline=1", "--topology=v6e", "--price=1", f"--json={file}"
    )
    found = json.loads(file.read_text())
    assert found["cheapest"]["hours"] <= 1 and f"cheapest within 1 h: {found['cheapest']['topology']}," in shown
    assert "stops scaling at v6e:" in shown and len(found["plans"]) == 8


def test_evaluation(tmp_path):
    shown = run(RELEASED, "--topology=v6e:1x1", "--estimate", f"--json={tmp_path / 'plan.json'}")
    found = json.loads((tmp_path / "plan.json").read_text())
    assert "evaluate llava-v1.5-7b-Posthoc on v6e:1x1: fits" in shown and "ms for a token" in shown
    assert f"--config.decode.batch_size={found['slots_fit']}: " in shown and 16 < found["slots_fit"] < 40
    expected = found["expected"]
    assert f"{found['answers_per_second']:.2f} answers/s, {found['tokens_per_second']:.0f} tokens/s" in shown
    assert f"${expected['dollars']:.2f}, at most ${found['dollars']:.2f}, at $2.7 a chip-hour" in shown
    assert f"{expected['hours']:.2f} for answers of 128 tokens in the mean" in shown


def test_too_many_answers_at_a_time(tmp_path):
    """They would be within the chip's memory, but the engine leaves a tenth of it to the programs."""
    file = tmp_path / "plan.json"
    run(RELEASED, "--topology=v6e:1x1", "--estimate", f"--json={file}")
    most = json.loads(file.read_text())["slots_fit"]
    arguments = ("--topology=v6e:1x1", "--estimate", f"--config.decode.batch_size={most + 2}", f"--json={file}")
    shown = run(RELEASED, *arguments)
    assert json.loads(file.read_text())["per_chip"]["peak_gib"] < 31.25
    assert "v6e:1x1: DOES NOT FIT" in shown and f"{most}, with 10 % of the memory" in shown
    assert f"--config.decode.batch_size={most}" in shown.split("What to change")[1]


@pytest.fixture
def bare(tmp_path) -> pathlib.Path:
    return stand.bare(tmp_path)


def test_real_data(bare):
    """Lengths and steps are those of the data; nothing is assumed of them."""
    shown = run("--config=config.py", "--topology=v5e:2x2", "--estimate", "--json=plan.json", cwd=bare)
    found = json.loads((bare / "plan.json").read_text())
    chats = json.loads((bare / "chats.json").read_text())
    assert found["steps"] == 2 * -(-len(chats) // 8) and found["step"]["row_len"] <= 160
    assert "lengths: counted in the data" in shown and "no real lengths" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config FILE is needed"),
        ((POSTHOC, "--estimate"), "--topology is needed"),
        ((POSTHOC, "--topology=a100:8"), "plan compiles for TPUs, h100 and h200; add --estimate"),
        ((POSTHOC, "--topology=v7e:4x4", "--estimate"), "chip 'v7e' is unknown; did you mean"),
        ((POSTHOC, "--topology=v5e:4x4", "--estimate", "--model=9b"), "--model=9b is unknown"),
        (
            (POSTHOC, "--topology=v5e:4x4", "--estimate", "--price=inf", "--json=x"),
            "--price=inf: must be a number from 0 to 1000000.0",
        ),
        ((POSTHOC, "--topology=v5e:4x4", "--estimate", "--config.mesh.fsdp=5"), "config.mesh="),
        (
            (POSTHOC, "--topology=v5e:4x4", "--estimate", "--config.run.rows=8"),
            "config.run.rows=8 must be a multiple of the 16 row shards",
        ),
        (
            (POSTHOC, "--topology=v5e:4x4", "--estimate", "--config.run.remat=sometimes"),
            "config.run.remat='sometimes' is unknown",
        ),
        ((POSTHOC, "--sweep", "--deadline=nan"), "--deadline=nan: must be a number from 0 to 1000000.0"),
        ((POSTHOC, "--topology=h100:3", "--estimate"), "4096 is not divisible by mesh axis fsdp=3"),
        ((POSTHOC, "--topology=v5e:3x3", "--estimate"), "the nearest is v5e:2x4"),
        (
            (RELEASED, "--config.decode.max_new_tokens=0", "--topology=v6e:1x1", "--estimate"),
            "config.decode.max_new_tokens=0 must be",
        ),
        ((POSTHOC, "--sweep", "--topology=v5e,h300"), "with --sweep, names of chips; did you mean"),
        ((POSTHOC, "--topology=v5e:4x4", "--estimate", "--json=/dev/null/x"), "--json=/dev/null/x cannot be written"),
        (("--config=nowhere.py", "--topology=v5e:4x4", "--estimate"), "--config=nowhere.py: no such file"),
        (
            ("--sweep", "launch/experiments/figure5.toml", "--deadline=2"),
            "--deadline is not for --sweep launch/experiments/figure5.toml, which takes --topology",
        ),
        (("--sweep", "launch/experiments/figure5.toml", "--model=7b"), "--model is not for --sweep"),
        (("v5e:4x4",), "unexpected argument 'v5e:4x4'"),
    ],
)
def test_mistakes(arguments, message):
    said = run(*arguments, code=2)
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
