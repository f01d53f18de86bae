"""The command as a user types it: one clear line and exit code 2 for each mistake."""

import subprocess
import sys

import pytest

from tests import source
from tests.safety import stand

CONFIG = ["--config", "configs/eval/vlguard.py"]
PROMPTS = ["--config", "configs/eval/prompts.py", "--config.model.path=no_model"]
ACCURACY_OF_UNSAFES = ["--config.judges=('exact_match_v1',)", "--config.benchmark.subsets=('unsafes',)"]


def evaluate(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vlguard_jax.evaluate", *map(str, arguments)],
        cwd=source.ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config FILE"),
        (["--config", "configs/eval/none.py"], "none.py"),
        (["--config", "configs/eval/vlguard.py:relased"], "preset 'relased' is unknown; did you mean 'released'?"),
        ([*CONFIG, "--config.modle.path=x"], "config.modle.path is not a setting; did you mean config.model.path?"),
        ([*CONFIG, "--config.model.template=vicuna"], "template 'vicuna' is unknown; did you mean 'vicuna_v1'?"),
        ([*CONFIG, "--config.model.image_mode=square"], "config.model.image_mode='square' is unknown"),
        ([*CONFIG, "--config.precision.compute=fp8"], "config.precision.compute='fp8' is unknown"),
        ([*CONFIG, "--config.benchmark.path=nowhere/test.json"], "nowhere/test.json"),
        ([*CONFIG, "--config.judges=a,b"], """'a,b' is unknown; a list is given as "('a', 'b')\""""),
        ([*CONFIG, "--config.benchmark.subsets=unsafes,safes"], """list is given as "('unsafes', 'safes')\""""),
        ([*CONFIG, "--config.benchmark.pictures=grey"], "config.benchmark.pictures='grey' is unknown"),
        (
            [*CONFIG, "--config.benchmark.path={folder}", "--config.benchmark.name=vlguard_like", *ACCURACY_OF_UNSAFES],
            "exact_match_v1 measures accuracy, but no subset asked of vlguard_like has expected answers",
        ),
        (
            [*PROMPTS, "--config.benchmark.path={folder}/test.json"],
            "test.json: record 0 (id 'v0'): 'image' is not a field of a prompt",
        ),
        ([*CONFIG, "--config.benchmark.path={folder}"], "3 questions in unsafes, vlguard has 442"),
        (
            [*CONFIG, "--config.benchmark.path={folder}", "--config.benchmark.limit=1", "--config.benchmark.images=x"],
            "pictures are missing",
        ),
        ([*CONFIG, "--config.benchmark.path={folder}", "--config.benchmark.limit=1"], "'no_model': no such folder"),
        ([*CONFIG, "--wrokdir=x"], "Did you mean: workdir"),
        ([*CONFIG, "vlguard"], "'vlguard' is not understood"),
    ],
)
def test_mistakes(tmp_path, arguments, message):
    folder = stand.write_benchmark(tmp_path / "bench")
    model = ["--config.model.path=no_model"] if CONFIG[0] in arguments and CONFIG[1] in arguments else []
    done = evaluate(*[a.format(folder=folder) for a in arguments], *model, "--workdir", tmp_path / "work")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "work").exists()
