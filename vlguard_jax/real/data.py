"""What the real-model run trains on: VLGuard's text alone, and the model's own answers to harmless questions.

Written once for all seeds; a seed draws its share of both.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import vlguard
from vlguard_jax.real import harmless
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import results

Pair = tuple[str, str, str]  # id, question, answer

SEED = 0  # of the harmless questions
TOKENS = 64  # of an answer to one, at most
ENDS = ".!?"
JUDGE = "keyword_vlguard_v1"


def folder(root: Path) -> Path:
    """Where the data of a run are."""
    return root / "data"


def read_safety(metadata: Path) -> list[Pair]:
    """Every unsafe instruction of VLGuard's training split with its refusal, as text without a picture.

    Raises:
      UserError: train.json is missing or not VLGuard's.
    """
    items = vlguard.read_items(metadata, "train")
    vlguard.check_counts(items, "train", metadata)
    return [
        (item.id, instruction, response)
        for item in items
        for kind, instruction, response in item.pairs
        if kind in ("instruction", "unsafe_instruction")
    ]


def safety(metadata: Path, root: Path) -> str:
    """The text of safety.json.

    Raises:
      UserError: as `read_safety`; or the file is there and was made of another train.json.
    """
    path, text = folder(root) / "safety.json", _text(read_safety(metadata))
    if path.exists() and files.read_text(path) != text:
        raise errors.UserError(
            f"{metadata}: its train.json is not the one that {path} was made of; put that one back, or choose another"
            " --workdir"
        )
    return text


def write_safety(metadata: Path, root: Path) -> None:
    """Write safety.json. Raises as `safety`."""
    files.write_text(folder(root) / "safety.json", safety(metadata, root))


def write_helpful(model: Path, root: Path, count: int, wanted: int) -> int:
    """Write helpful.json: `model`'s greedy answers to harmless questions; returns how many of `count` are usable.
    Without `wanted` of them nothing is written.

    An answer that the limit cut is shortened to its last whole sentence. Those without one, and those with a phrase of
    refusal, are left out.

    Raises:
      UserError: see `harmless.questions` and `from_checkpoint.evaluate`.
    """
    asked = folder(root) / "questions.json"
    questions = {str(i): question for i, question in enumerate(harmless.questions(count, SEED))}
    listed = [{"id": id_, "prompt": question, "safe": True} for id_, question in questions.items()]
    files.write_text(asked, json.dumps(listed, indent=1) + "\n")
    answered = folder(root) / "answers"
    from_checkpoint.evaluate(_asking(model, asked), answered)
    refused = {
        v.key
        for v in results.Lines(answered / results.VERDICTS, results.VerdictLine).lines
        if v.judge == JUDGE and v.label == "refuse"
    }
    kept = [
        (line.item_id, questions[line.item_id], answer)
        for line in results.Lines(answered / results.GENERATIONS, results.GenerationLine).lines
        if line.key not in refused and (answer := whole(line.response, line.finish_reason))
    ]
    if len(kept) >= wanted:
        files.write_text(folder(root) / "helpful.json", _text(sorted(kept, key=lambda pair: int(pair[0]))))
    return len(kept)


def _asking(model: Path, questions: Path) -> config.EvalConfig:
    return config.EvalConfig(
        model=config.ModelSettings(path=str(model)),
        precision=config.EvalPrecisionSettings(compute="fp32"),
        benchmark=config.BenchmarkSettings(name="prompts", path=str(questions), subsets=("text_safe",)),
        judges=(JUDGE,),
        decode=config.DecodeSettings(max_new_tokens=TOKENS, batch_size=32),
        mesh=config.MeshSettings(data=-1, fsdp=1),
    )


def whole(answer: str, finish_reason: str) -> str:
    """The answer's whole sentences; "" if it has none."""
    text = answer.strip()
    if finish_reason == "stop":
        return text
    return text[: max(text.rfind(end) for end in ENDS) + 1]


def _text(pairs: Sequence[Pair]) -> str:
    """Pairs as conversations of LLaVA's form, with ids that are unique."""
    conversations: list[dict[str, Any]] = [
        {
            "id": f"{number}_{id_}",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        }
        for number, (id_, question, answer) in enumerate(pairs)
    ]
    return json.dumps(conversations, indent=1) + "\n"
