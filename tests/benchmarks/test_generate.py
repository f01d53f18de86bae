"""The generation benchmark in miniature: both sides give the same answers to the same prompts, of the lengths of the
mix."""

from __future__ import annotations

import collections
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import generate_cases
from benchmarks import generate_run
from tests import source
from vlguard_jax import errors
from vlguard_jax import types

TINY = generate_cases.SIZES["tiny"]
MIX = ((20, 0.9), (256, 0.1))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # as a user has it
    command = [sys.executable, "benchmarks/generate.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.more
def test_one_object() -> None:
    done = script(
        "--json",
        "--size=tiny",
        "--prompts=12",
        "--slots=2,4",
        "--static=4",
        "--loop=6",
        "--length_mix=4:0.75,12:0.25",
        "--cases=text,picture_shared_prefix",
        f"--vllm={sys.executable}",  # which has none
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("text", "picture_shared_prefix"):
        case = found[name]
        assert case["identical_answers"] == 1.0 and case["different"] == []
        assert case["setting"] in (2, 4) and case["asked"] == 12 and 0 <= case["wasted_slots"] < 1
        assert set(case["rivals"]) == {"batch1", "static"} and "No module named 'vllm'" in case["no_vllm"]
        assert case["rivals"]["static"]["identical_answers"] == 1.0 and case["rivals"]["batch1"]["asked"] == 6
        for figures in (case, *case["rivals"].values()):
            assert all(figures[key] > 0 for key in ("answers_per_second", "tokens_per_second", "roof_share", "steps"))
        assert case["speedup_vs_batch1"] > 0 and case["speedup_vs_static"] > 0


@pytest.mark.more
def test_bad_arguments() -> None:
    done = script("--size=7")
    assert done.returncode == 2 and done.stderr.startswith("error: --size=7 is unknown")


@pytest.mark.parametrize("text", ["", "20", "20:0.9", "20:0.9,256:0.2", "0:1", "20:1.5,40:-0.5", "20:1/0,4:1"])
def test_a_mix_that_is_none(text: str) -> None:
    with pytest.raises(errors.UserError, match="--length_mix"):
        generate_cases.parse_mix(text)


def test_lengths_of_answers() -> None:
    assert generate_cases.parse_mix("256:0.1,20:0.9") == MIX
    made = generate_cases.answers(MIX, 256, np.random.default_rng(0))
    assert collections.Counter(part for part, _ in made) == {0: 230, 1: 26}
    assert {n for part, n in made if part == 1} == {256} and {n for part, n in made if part == 0} == set(range(15, 26))
    assert [part for part, _ in made] != sorted(part for part, _ in made)


def test_prompts() -> None:
    text = generate_cases.questions("text", TINY, MIX, 200)
    assert {one.tokens for one in text} >= {24, 96} and all(24 <= len(one.prompt.ids) <= 96 for one in text)
    picture = generate_cases.questions("picture", TINY, MIX, 40)
    assert len({one.prompt.pictures[0].arrays["images"].tobytes() for one in picture}) == 40
    assert max(one.tokens for one in picture) == TINY.longest


def test_every_picture_is_shared_by_two_that_stand_apart() -> None:
    asked = generate_cases.questions("picture_shared_prefix", TINY, MIX, 40)
    shown = [one.prompt.pictures[0].arrays["images"].tobytes() for one in asked]
    assert set(collections.Counter(shown).values()) == {2}
    assert sum(a == b for a, b in itertools.pairwise(shown)) < 5
    at = [int(np.argmax(one.prompt.ids == types.IMAGE_TOKEN)) for one in asked]
    assert len({one.prompt.ids[:end].tobytes() for one, end in zip(asked, at, strict=True)}) == 1
    assert len({one.prompt.ids[end:].tobytes() for one, end in zip(asked, at, strict=True)}) == 40


def test_the_sample_has_the_mix_of_all() -> None:
    asked = generate_cases.questions("text", TINY, MIX, 200)
    chosen = generate_cases.sample(asked, 40)
    assert collections.Counter(one.part for one in chosen) == {0: 36, 1: 4}
    assert abs(np.mean([one.tokens for one in chosen]) - np.mean([one.tokens for one in asked])) < 3
    # 1 s a short answer and 10 s a long one, whoever is in the sample
    assert generate_run.of_all(asked, chosen, [1.0 + 9 * one.part for one in chosen]) == pytest.approx(180 + 200)


def test_what_the_steps_read() -> None:
    one = generate_cases.Question(types.Prompt("q", np.arange(5, dtype=np.int32)), tokens=5, answer=4, part=0)
    assert one.decode_reads() == 6 + 7 + 8  # the prefill gives the first token
    read = generate_run.bytes_of(TINY, 4)
    assert read.slot == 2 * 2 * 1 * 64 * 4  # keys and values, two layers, one head of 64, fp32
    layer = 96 * 64 * 4 + 3 * 96 * 256 + 2 * 96
    assert read.weights == 4 * (2 * layer + 96 + 96 * 640)


def test_the_first_difference_is_told() -> None:
    asked = tuple(
        generate_cases.Question(types.Prompt(name, np.arange(3, dtype=np.int32)), 3, 4, 0) for name in ("a", "b")
    )
    theirs = {"a": np.array([1, 2, 3, 4]), "b": np.array([1, 2, 3, 4])}
    ours = {"a": np.array([1, 2, 9, 4]), "b": np.array([1, 2, 3, 4])}
    runs = [generate_run.Run(side, 1, asked, given, 1.0, 1.0, 3) for side, given in (("o", ours), ("t", theirs))]
    found = generate_run.agreement(*runs, lambda one, begun: float(len(begun)))
    assert found["identical_answers"] == 0.5 and found["compared"] == 2
    assert found["different"] == [{"prompt": "a", "at": 2, "margin": 2.0}]
