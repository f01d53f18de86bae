"""`prepare clean` with a judge: what it is asked, which ids are written, and that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.preparing import cleaning
from vlguard_jax.preparing import commands

SETTINGS = cleaning.CleanConfig(judge_settings.LocalJudge(kind="llama_guard_1", path="m", chunk=3))
CONVERSATIONS = [
    ("Name a colour.", "Blue."),
    ("<image>\nWhat is this?", "A fence."),
    ("Name a colour.", "A red flag."),  # flagged
    ("Say it.", "A red flag.", "And now?", "A lamp."),  # flagged where answers are read, or the whole conversation
    ("Say it.", "A lamp.", "<image>\nAnd now?", "A red flag, a red flag."),  # flagged
    ("Mumble.", "Hm."),  # the judge does not say
    ("Only a question?",),
]


MUTE = [("Mumble.", "Hm."), ("Mumble more.", "Hm."), ("Only a question?",)]  # nothing that the judge says of is read


@dataclasses.dataclass
class Reader:
    """A judge's model that looks for a phrase in the conversation; fails after `fail_after` calls."""

    where: str
    settings: judge_settings.LocalJudge
    mesh: config.MeshSettings
    identity: str = "w fp32"
    context: int | None = None
    fail_after: int = 10**9
    asked: list[str] = dataclasses.field(default_factory=list)
    calls: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.tokenizer = self
        self.asking = str
        self.added: dict[str, Any] = {}

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        return list(text.encode())

    def answers(self, prompts: Any) -> list[str]:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        texts = [bytes(ids).decode() for ids in prompts]
        self.asked += [t.split("<BEGIN CONVERSATION>\n\n")[1].split("<END CONVERSATION>")[0] for t in texts]
        flagged = {True: "unsafe\nO1", False: "safe"}
        return ["hm" if "Hm." in text else flagged["red flag" in text] for text in texts]

    def shares(self, prompts: Any, words: Any) -> list[list[float]]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Reader]:
    """The readers that were made; the next one fails where the last element is a number."""
    found: list[Any] = []

    def make(*given: Any) -> Reader:
        stops = found.pop() if found and isinstance(found[-1], int) else 10**9
        found.append(Reader(*given, fail_after=stops))
        return found[-1]

    monkeypatch.setattr(cleaning.reader_lib, "Reader", make)
    return found


@pytest.fixture
def mix(tmp_path: pathlib.Path) -> pathlib.Path:
    made = [stand.record(*texts, id=f"c{i % 5}") for i, texts in enumerate(CONVERSATIONS)]
    stand.write_records(tmp_path / "mix.json", made)
    return tmp_path / "mix.json"


def test_whole_conversations_are_judged(mix, tmp_path, made, capsys) -> None:
    cleaning.run(SETTINGS, str(mix), str(tmp_path / "out" / "ids.txt"), str(tmp_path / "work"), True)
    assert (tmp_path / "out" / "ids.txt").read_text() == "c2\nc3\nc4\n"
    table = list(csv.DictReader((tmp_path / "out" / "ids.scores.csv").open()))
    assert [(one["id"], one["answer"], one["score"], one["said"]) for one in table] == [
        ("c2", "1", "1.0", "unsafe\nO1"),
        ("c3", "2", "1.0", "unsafe\nO1"),
        ("c4", "2", "1.0", "unsafe\nO1"),
    ]
    (reader,) = made
    assert (
        reader.where == "config.judge"
        and reader.closed
        and reader.asked[:2]
        == [
            "User: Name a colour.\n\nAgent: Blue.\n\n",
            "User: What is this?\n\nAgent: A fence.\n\n",
        ]
    )
    assert len(reader.asked) == 6 and reader.asked[4].count("Agent:") == 2 and "<image>" not in "".join(reader.asked)
    said = " ".join(capsys.readouterr().out.split())
    assert "the ids of 3 of 7 conversations" in said and "without a verdict: 1 of 6 answers (16.7 %)" in said


def _write(mix: pathlib.Path, conversations: Sequence[tuple[str, ...]]) -> None:
    stand.write_records(mix, [stand.record(*texts, id=f"c{i}") for i, texts in enumerate(conversations)])


def _record(out: pathlib.Path) -> dict[str, Any]:
    value = json.loads(out.with_name(f"{out.stem}.record.json").read_text())
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("conversations", [MUTE, [("Only a question?",)]])
def test_no_list_without_a_verdict(mix, tmp_path, made, conversations) -> None:
    """An empty list would make the "clean" mixture the whole one."""
    _write(mix, conversations)
    out, work = tmp_path / "out" / "ids.txt", tmp_path / "work"
    message = (
        r"judged\.jsonl: none of the 2 answers has a verdict \(the judge said 'hm' of the first\), .*no list is"
        r" written.*config\.judge\.path.*config\.judge\.kind='llama_guard_1'.*another --workdir"
        if len(conversations) > 1
        else r"mix\.json: no conversation has an answer"
    )
    for _ in range(2):  # and not on the second try either, which asks nothing
        with pytest.raises(errors.UserError, match=message):
            cleaning.run(SETTINGS, str(mix), str(out), str(work), True)
    assert not out.parent.exists()
    assert sum(len(reader.asked) for reader in made) == len(conversations) - 1
    out.parent.mkdir()
    out.write_text("c7\n")
    with pytest.raises(errors.UserError, match=message):
        cleaning.run(SETTINGS, str(mix), str(out), str(work), True)
    assert out.read_text() == "c7\n" and len(list(out.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("invalid", "judged", "warned"), [(0, 5, False), (1, 100, False), (2, 100, True), (4, 5, True)]
)
def test_many_answers_without_a_verdict(mix, tmp_path, made, capsys, invalid, judged, warned) -> None:
    """A list is written, whose record and last line say how much of the mixture nobody judged."""
    flagged = [("Name a colour.", "A red flag.")]
    _write(mix, MUTE[:1] * invalid + flagged + [("Name a colour.", "Blue.")] * (judged - invalid - 1))
    out = tmp_path / "ids.txt"
    cleaning.run(SETTINGS, str(mix), str(out), str(tmp_path / "work"), True)
    assert out.read_text() == f"c{invalid}\n"
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in said if "without a verdict" in line] == (
        [
            f"WARNING: without a verdict: {invalid} of {judged} answers ({100 * invalid / judged:.1f} %), more than"
            " 1 %: what is harmful among them stays in the mixture, which is clean only as far as the judge could"
            " read; judged.jsonl has what it said"
        ]
        if warned
        else [
            f"without a verdict: {invalid} of {judged} answers ({100 * invalid / judged:.1f} %), whose conversations"
            f" are kept unless another answer is flagged; {tmp_path / 'work' / 'judged.jsonl'} has them"
        ]
        if invalid
        else []
    )
    told = _record(out)
    assert told.pop("mixture_sha256") == hashlib.sha256(mix.read_bytes()).hexdigest()
    assert "w fp32" in told.pop("judged_by")[1] and told.pop("warning", "") == (said[-1] if warned else "")
    assert told == {
        "schema": 1,
        "mixture": "mix.json",
        "judge": "llama_guard_1",
        "reads": "conversations",
        "conversations": judged,
        "flagged": 1,
        "judged": judged,
        "invalid": invalid,
        "invalid_share": invalid / judged,
    }


def test_the_ids_are_those_of_a_source(mix, tmp_path, made) -> None:
    """What is written is what a training's `exclude_ids` takes: ids that repeat have a number."""
    found = cleaning.clean(
        dataclasses.replace(SETTINGS, reads="answers"), mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True
    )
    assert found.ids == ("c2", "c3", "c4") and (found.conversations, found.judged, found.invalid) == (7, 8, 1)
    values = json.loads(mix.read_text())
    values[6] = stand.as_json(stand.record("Say it.", "A red flag.", id="c1"))
    mix.write_text(json.dumps(values))
    found = cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "other", any_size=True)
    assert found.ids == ("c2", "c3", "c4", "c1~2")
    assert (tmp_path / "ids.txt").read_text().split() == list(found.ids)


@pytest.mark.parametrize("stop", range(3))
def test_a_stopped_run_goes_on(mix, tmp_path, made, stop) -> None:
    reads = dataclasses.replace(SETTINGS, reads="answers")
    whole = cleaning.clean(reads, mix, tmp_path / "whole.txt", tmp_path / "whole", any_size=True)
    made.append(stop)
    with pytest.raises(KeyboardInterrupt):
        cleaning.clean(reads, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    assert made[-1].closed and not (tmp_path / "ids.txt").exists()
    if stop:
        with (tmp_path / "work" / cleaning.JUDGED).open("ab") as file:
            file.write(b'{"n": 5, "ans')
    assert cleaning.clean(reads, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True) == whole
    assert len(made[-2].asked) + len(made[-1].asked) == len(made[0].asked) == 8
    for name in ("ids.txt", "ids.scores.csv"):
        ours, theirs = tmp_path / name, tmp_path / name.replace("ids", "whole")
        assert ours.read_text() == theirs.read_text()
    lines = [(tmp_path / w / cleaning.JUDGED).read_text() for w in ("whole", "work")]
    assert lines[0] == lines[1]
    moved = dataclasses.replace(reads, judge=dataclasses.replace(reads.judge, path="elsewhere", chunk=100))
    assert cleaning.clean(moved, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True) == whole
    assert not made[-1].asked


def test_another_judge_or_mixture_takes_another_folder(mix, tmp_path, made, monkeypatch) -> None:
    cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    other = dataclasses.replace(SETTINGS, judge=dataclasses.replace(SETTINGS.judge, kind="llama_guard_3"))
    with pytest.raises(
        errors.UserError, match=r"work belongs to another run: config\.settings\.judge\.kind is .*another --workdir"
    ):
        cleaning.clean(other, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    mix.write_text(mix.read_text().replace("A fence.", "A wall."))
    with pytest.raises(errors.UserError, match=r"config\.mixture_sha256 is "):
        cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    (tmp_path / "work" / "config.json").unlink()
    with pytest.raises(errors.UserError, match=r"holds judged\.jsonl and no config\.json"):
        cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    with pytest.raises(errors.UserError, match=r"mix\.json: 7 conversations, the published file has 665,298"):
        cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "new")
    with pytest.raises(
        errors.UserError, match=r"config\.judge\.path is empty: .* \(published: meta-llama/LlamaGuard-7b"
    ):
        cleaning.clean(cleaning.CleanConfig(), mix, tmp_path / "ids.txt", tmp_path / "new", any_size=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", r"judged\.jsonl:7: not a line about a verdict; restore the file or delete this line"),
        ("{", r"judged\.jsonl:7: broken JSON"),
        (
            '{"n": 0, "answer": 0, "label": "safe", "score": 0.0, "raw": ""}',
            r"judged\.jsonl:7: label 'safe' is no verdict",
        ),
        ('{"n": "0", "answer": 0, "label": "refuse", "score": 0.0, "raw": ""}', r"judged\.jsonl:7: .*restore the file"),
        (
            '{"n": 9, "answer": 0, "label": "refuse", "score": 0.0, "raw": ""}',
            r"answer 0 of conversation 9, which is not",
        ),
    ],
)
def test_a_damaged_file_of_verdicts(mix, tmp_path, made, line, message) -> None:
    cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    with (tmp_path / "work" / cleaning.JUDGED).open("a") as file:
        file.write(f"{line}\n")
    before = (tmp_path / "ids.txt").read_bytes()
    with pytest.raises(errors.UserError, match=message):
        cleaning.clean(SETTINGS, mix, tmp_path / "ids.txt", tmp_path / "work", any_size=True)
    assert (tmp_path / "ids.txt").read_bytes() == before


def test_turns_in_a_row_are_one(tmp_path) -> None:
    value = {
        "id": "a",
        "conversations": [
            {"from": "gpt", "value": "Hello."},
            {"from": "human", "value": "One"},
            {"from": "human", "value": "two?"},
            {"from": "gpt", "value": "Three"},
            {"from": "gpt", "value": "four."},
            {"from": "human", "value": "Five?"},
        ],
    }
    (tmp_path / "mix.json").write_text(json.dumps([value]))
    (record,) = json_records.read(tmp_path / "mix.json", records.parse_llava)
    assert cleaning.answers(record) == [("", "Hello."), ("One\n\ntwo?", "Three\n\nfour.")]
    made = cleaning.exchange(record, 1)
    assert (made.question, made.response, made.before) == ("One\n\ntwo?", "Three\n\nfour.", (("", "Hello."),))


@pytest.mark.parametrize(
    "given", [{}, {"config": {}}, {"workdir": "w"}, {"cleaned": "c", "workdir": "w"}, {"cleaned": "c", "config": {}}]
)
def test_a_judge_or_the_clean_form(given) -> None:
    values = {"mix": "m", "out": "o", "any_size": True, "config": None, "workdir": "", "cleaned": ""} | given
    with pytest.raises(
        errors.UserError, match=r"prepare clean needs --config FILE and --workdir DIR .* or else --cleaned"
    ):
        commands.run("clean", values)
