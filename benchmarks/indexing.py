"""How long a run on the full mixture takes before its first step: indexing, planning, and resuming at step 4,000.

  python benchmarks/indexing.py

Writes as many conversations as the mixture and VLGuard have, with the lengths of packing.py's model and English words,
and a zip file of pictures; indexes them on all cores, then starts two new processes: one that finds the index in the
cache, plans the epoch and makes the first batch, and one that resumes at step 4,000. Also: on one core, the same texts
for a language model with a tokenizer.json and a chat template of its own; and the memory that a JSON file of 2 GB
takes. Needs 4 GB of disk (--folder) and about five minutes. Prints one table, or with --json one JSON object.
"""

from __future__ import annotations

from collections.abc import Iterator
import io
import json
import pathlib
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from typing import Any
import zipfile

from absl import flags
import numpy as np
from PIL import Image
import sentencepiece
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.data import sources
from vlguard_jax.data import tokenization as tokenization_lib
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_COUNT = cli.define_number("count", int, 667_298, Range(1, 10**9), "conversations")
_BIG = cli.define_number(
    "big", int, 2000, Range(0, 10**6), "megabytes of the file that is scanned for its memory; 0: none"
)
_FOLDER = flags.DEFINE_string("folder", "", "where to write; a temporary folder that is removed again if not given")
_START = cli.define_number(
    "start", int, -1, Range(-1, 10**9), "(what a new process is asked to do) the step to start at"
)
_BEGAN = cli.define_number(
    "began", float, 0.0, Range(0, 1e12), "(likewise) when that process was started, in seconds since 1970"
)

STEP = 4000
PICTURES = 100_000  # distinct ones
TEXT_ONLY = 0.061
CHATML = (  # the format of many language models
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORD = (  # where Llama 3's tokenizer separates words
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
BARS = {
    "conversations_per_second": 5000,
    "template_conversations_per_second": 3000,
    "plan_seconds": 60,
    "resume_seconds": 5,
    "big_gib": 3,
}


def main(positional: list[str]) -> int:
    """Write, index, start again; or be one of the new processes."""
    if positional:
        raise errors.UserError("indexing.py takes --json, --count, --big and --folder; see --help")
    if _START.value >= 0:
        print(json.dumps(start(pathlib.Path(_FOLDER.value), _START.value)))
        return errors.EXIT_OK
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary)
        figures = measure(folder)
    print(json.dumps(figures)) if _JSON.value else show(figures)
    return errors.EXIT_OK


def settings(folder: pathlib.Path) -> config.DataSettings:
    """Settings of a packed run on the written data."""
    source = config.SourceSettings(path=str(folder / "mix.json"), images=str(folder / "pictures.zip"))
    return config.DataSettings(
        sources={"mix": source}, mode="pack", order="modality_length", check_pictures="exists", cache=str(folder / "c")
    )


def measure(folder: pathlib.Path) -> dict[str, Any]:
    """All figures."""
    texts = english()
    train_tokenizer(folder, texts)
    write_mix(folder / "mix.json", texts, _COUNT.value)
    write_pictures(folder / "pictures.zip", min(PICTURES, _COUNT.value))
    began = time.perf_counter()
    spans = json_records.scan(folder / "mix.json")
    figures: dict[str, Any] = {
        "scan_seconds": time.perf_counter() - began,
        "megabytes": (folder / "mix.json").stat().st_size / 1e6,
    }
    source = sources.open_source("mix", settings(folder).sources["mix"], folder / "c")
    began = time.perf_counter()
    index = file_index.build_or_load(source.records, source.content, tokenization(folder), folder / "c")
    figures["index_seconds"] = time.perf_counter() - began
    figures["conversations_per_second"] = len(index) / (figures["index_seconds"] + figures["scan_seconds"])
    figures["mean_length"] = float(index.length.mean())
    assert len(spans.offset) == len(index) == _COUNT.value and not index.problems
    figures |= through_template(folder / "chat", texts)
    begins = {"start": 0, "resume": min(STEP, len(index) // settings(folder).batch_size - 1)}
    for name, step in begins.items():
        figures |= {f"{name}_{key}": value for key, value in in_new_process(folder, step).items()}
    figures["plan_seconds"] = figures["start_plan_seconds"]
    figures["resume_seconds"] = figures["resume_process_seconds"]
    if _BIG.value:
        figures["big_gib"] = scan_big(folder / "mix.json")
    return figures


def through_template(folder: pathlib.Path, texts: list[str]) -> dict[str, float]:
    """Index texts of the same lengths by a model's own tokenizer.json and chat template; by seconds of one core, which
    others use, too."""
    folder.mkdir(exist_ok=True)
    train_json_tokenizer(folder, texts)
    (folder / "chat_template.jinja").write_text(CHATML)
    count = min(_COUNT.value, file_index.PARALLEL_FROM - 1)
    write_mix(folder / "mix.json", texts, count, pictures=False)
    words = tokenizer_lib.load_tokenizer(folder)
    sizes = llama_config.LlamaConfig(table.PRESETS["llava-v1.5-7b"].text)
    spec = tokenization_lib.Tokenization(words, choice.template("folder", "2024-07-26", sizes, words), sizes, 2048)
    source = sources.open_source("mix", config.SourceSettings(path=str(folder / "mix.json")), folder / "c")
    file_index.build(source.records.part(0, 1), spec)  # loads the library that renders
    began = time.process_time()
    index = file_index.build(source.records, spec)
    assert len(index) == count and not index.problems and index.supervised.all()
    return {"template_conversations_per_second": count / (time.process_time() - began)}


def start(folder: pathlib.Path, step: int) -> dict[str, float]:
    """Do in this process what a run does before its first step; returns seconds of each part."""
    marks = [time.perf_counter()]
    data = settings(folder)
    spec = tokenization(folder)
    mixture = mixtures.build(data, spec.tokenizer, spec.template, spec.model)
    marks.append(time.perf_counter())
    plan = plan_lib.BatchPlan(mixture.index, data, 42, plan_lib.Layout(shards=8), cache=folder / "c")
    plan.check(plan.total_steps)
    marks.append(time.perf_counter())
    from vlguard_jax.data import loader  # late: it loads jax, which a run has already loaded

    marks.append(time.perf_counter())
    made = loader.Loader(plan, mixture, start_step=step, stop_step=plan.total_steps)
    found, _ = next(iter(made))
    assert found == step
    marks.append(time.perf_counter())
    parts = ("find_index_seconds", "plan_seconds", "import_seconds", "first_batch_seconds")
    return dict(zip(parts, np.diff(marks).tolist(), strict=True)) | {
        "process_seconds": time.time() - _BEGAN.value,
        "gib": peak_gib(),
    }


def peak_gib() -> float:
    """Peak memory of this process.

    (getrusage would give its parent's, if that is larger.)
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def in_new_process(folder: pathlib.Path, step: int) -> dict[str, float]:
    """`start` in a new process, with the seconds from its start to the first batch."""
    command = [sys.executable, __file__, f"--folder={folder}", f"--start={step}", f"--began={time.time()}"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def tokenization(folder: pathlib.Path) -> tokenization_lib.Tokenization:
    """LLaVA-1.5's tokenization with the written tokenizer."""
    template = templates.get_template("vicuna_v1")
    model = table.PRESETS["llava-v1.5-7b"]
    return tokenization_lib.Tokenization(tokenizer_lib.load_tokenizer(folder), template, model, 2048)


def english() -> list[str]:
    """Words in order, from the texts of Python's own help."""
    return " ".join(pydoc_data.topics.topics.values()).split()


def train_tokenizer(folder: pathlib.Path, words: list[str]) -> None:
    """A tokenizer of Llama's kind, with fewer pieces."""
    model = io.BytesIO()
    lines = (" ".join(words[i : i + 20]) for i in range(0, len(words), 20))
    # As in Llama's, "USER" is one piece: the reference's counting of labels relies on it.
    options: dict[str, Any] = {
        "byte_fallback": True,
        "split_digits": True,
        "user_defined_symbols": ["USER"],
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=8000,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"legacy": false}')


def train_json_tokenizer(folder: pathlib.Path, texts: list[str]) -> None:
    """A tokenizer of Llama 3's kind, with fewer pieces."""
    made = tokenizers.Tokenizer(models.BPE())
    apart = pre_tokenizers.Split(tokenizers.Regex(WORD), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([apart, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((" ".join(texts[i : i + 20]) for i in range(0, len(texts), 20)), trainer)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')


def conversations(words: list[str], count: int) -> Iterator[dict[str, Any]]:
    """With a picture: one to five short rounds, 130 words on average; without: four long ones, 600 words."""
    rng = np.random.default_rng(0)
    for i in range(count):
        shown = rng.random() >= TEXT_ONLY
        rounds = int(rng.integers(1, 6)) if shown else 4
        length = rng.lognormal(np.log(119 if shown else 550), 0.42) / rounds
        turns = []
        for turn in range(rounds):
            at = int(rng.integers(len(words) - 4000))
            asked = max(3, int(length / 4))
            question = " ".join(words[at : at + asked])
            turns.append({"from": "human", "value": f"<image>\n{question}" if shown and not turn else question})
            turns.append(
                {"from": "gpt", "value": " ".join(words[at + asked : at + asked + max(1, int(length * 3 / 4))])}
            )
        picture = {"image": f"coco/train2017/{i % PICTURES:012d}.jpg"} if shown else {}
        yield {"id": f"{i:012d}", **picture, "conversations": turns}


def write_mix(path: pathlib.Path, words: list[str], count: int, *, pictures: bool = True) -> None:
    """A JSON list. pictures: False for the texts only."""
    with open(path, "w") as file:
        for i, value in enumerate(conversations(words, count)):
            if not pictures and value.pop("image", None):
                value["conversations"][0]["value"] = value["conversations"][0]["value"].removeprefix("<image>\n")
            file.write(("[" if not i else ",\n") + json.dumps(value))
        file.write("]")


def write_pictures(path: pathlib.Path, count: int) -> None:
    """A zip file with one small JPEG under many names."""
    picture = io.BytesIO()
    Image.effect_noise((336, 252), 40).convert("RGB").save(picture, "JPEG", quality=30)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"coco/train2017/{i:012d}.jpg", picture.getvalue())


def scan_big(path: pathlib.Path) -> float:
    """Memory in GiB of a process that scans a file of --big megabytes of copies of `path`."""
    big = path.with_name("big.json")
    copies = -(-_BIG.value * 10**6 // path.stat().st_size)
    with open(big, "wb") as file:
        inner = path.read_bytes()[1:-1]
        file.write(b"[")
        for i in range(copies):
            file.write(b"," * bool(i) + inner)
        file.write(b"]")
    code = (
        "import sys; from benchmarks import indexing; from vlguard_jax.data import json_records;"
        "json_records.scan(sys.argv[1]); print(indexing.peak_gib())"
    )
    root = pathlib.Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(big.resolve())], check=True, capture_output=True, text=True, cwd=root
    )
    big.unlink()
    return float(ended.stdout)


def show(figures: dict[str, Any]) -> None:
    """One table."""
    from rich import console
    from rich import table as rich_table

    shown = rich_table.Table(
        "what", "measured", "bar", title=f"{_COUNT.value:,} conversations, {figures['megabytes']:,.0f} MB of JSON"
    )
    for name, value in figures.items():
        shown.add_row(name.replace("_", " "), f"{value:,.2f}", f"{BARS[name]:,}" if name in BARS else "")
    console.Console().print(shown)


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    cli.run(main, doc=__doc__)
