"""`prepare clean` with a judge: which conversations of a training mixture a guard model calls harmful.

The paper (section 3.2) had Llama Guard read LLaVA's mixture, which flagged 247 of 665,298 conversations; whether it
read whole conversations or single answers it does not say.

Answers without a verdict keep their conversations in the mixture: above a share (INVALID) the list warns, and where all
are so there is no list.

WORKDIR/judged.jsonl has a line for every verdict, {"n": position in the mixture, "answer": its number in the
conversation, "label", "score", "raw"}, written chunk by chunk: the same command again goes on where it was stopped.
With several processes the judge's rows are divided among the devices of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
from typing import Any, Literal

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import judge_settings
from vlguard_jax import progress
from vlguard_jax import terminal
from vlguard_jax import typed
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.families.chat import templates
from vlguard_jax.parallel import joining
from vlguard_jax.parallel import processes
from vlguard_jax.parallel import programs
from vlguard_jax.preparing import llava_mix
from vlguard_jax.safety import judging
from vlguard_jax.safety import reader as reader_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import local

JUDGED = "judged.jsonl"
SCORES, RECORD = ".scores.csv", ".record.json"  # end the names of the files beside the list
SCHEMA = 1  # of the list's record
NAME = "judge"
INVALID = 0.01  # share of answers without a verdict above which a list warns; the paper's judge flagged 0.04 %
FLAGGED = ("comply", "partial")  # labels of harmful answers
# may differ when the command goes on, because they change no verdict but by rounding
FREE = (
    "settings.mesh",
    "settings.judge.path",
    "settings.judge.base",
    "settings.judge.chunk",
    "settings.judge.batch_size",
)

Unit = tuple[int, int]  # a conversation's position, and the number of the answer in it that is judged


@dataclasses.dataclass(frozen=True)
class CleanConfig:
    """Which judge reads the mixture, and how."""

    judge: judge_settings.LocalJudge = dataclasses.field(
        default_factory=lambda: judge_settings.LocalJudge(kind="llama_guard_1")
    )
    # "conversations": one verdict each, on its last answer behind all that came before (Llama Guard 1 assesses all
    # answers of a conversation at once); "answers": each answer behind what came before it
    reads: Literal["conversations", "answers"] = "conversations"
    mesh: settings_lib.MeshSettings = dataclasses.field(default_factory=settings_lib.MeshSettings)


@dataclasses.dataclass(frozen=True)
class _Claimed:
    """What a folder's verdicts depend on. judged_by: results.rule of the judge."""

    settings: CleanConfig
    mixture_sha256: str
    judged_by: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A line of judged.jsonl: a verdict (judges/judge.py) on answer `answer` of the mixture's conversation `n`, both
    from 0."""

    n: typed.Count
    answer: typed.Count
    label: typed.Name
    score: typed.Number | None
    raw: str


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """What was found. ids: of the flagged conversations, as `exclude_ids` names them; invalid: answers without a
    verdict; warning: how many these are, where they are too many to call the mixture clean."""

    ids: tuple[str, ...]
    conversations: int
    judged: int
    invalid: int
    warning: str


def run(settings: CleanConfig, mix: str, out: str, workdir: str, any_size: bool) -> None:
    """Judge the mixture and tell what was found; see `clean`. Several processes find each other as those of `evaluate`.

    Raises:
      UserError: as there.
    """
    joining.start()
    programs.keep()
    found = clean(settings, pathlib.Path(mix), pathlib.Path(out), pathlib.Path(workdir), any_size)
    if not processes.Team().first:
        return
    terminal.say(
        f"{out}: the ids of {len(found.ids):,} of {found.conversations:,} conversations of {mix}, for exclude_ids of"
        f" the whole file; {_beside(pathlib.Path(out), SCORES)}: their scores;"
        f" {_beside(pathlib.Path(out), RECORD)}: who judged what"
    )
    if found.conversations == llava_mix.PUBLISHED:
        terminal.say(f"the paper's judge flagged {llava_mix.FLAGGED} of them")
    if found.warning:
        terminal.say(found.warning)
    elif found.invalid:
        terminal.say(
            f"{_without(found.invalid, found.judged)}, whose conversations are kept unless another answer is flagged;"
            f" {pathlib.Path(workdir) / JUDGED} has them"
        )


def clean(
    settings: CleanConfig, mix: pathlib.Path, out: pathlib.Path, workdir: pathlib.Path, any_size: bool = False
) -> Cleaned:
    """Judge what is not judged yet; then write the ids of the flagged conversations to `out`, one a line, and beside
    them their scores and a record: the mixture, the judge, and on how many answers it has no verdict.

    Raises:
      UserError: the mixture is missing or broken, has no answer or (unless `any_size`) is not the published one; the
        judge cannot be made, or has a verdict on no answer; the folder belongs to another mixture, judge or setting.
    """
    team = processes.Team()
    processes.agree(workdir_lib.plain(settings))
    with processes.hold(workdir):
        with processes.together():
            local.make(NAME, settings.judge, where=f"config.{NAME}")
            found = json_records.read(mix, records.parse_llava)
            llava_mix.check_size(mix, len(found), llava_mix.PUBLISHED, any_size)
            units, names = _units(found, settings.reads)
            if not units:
                raise errors.UserError(f"{mix}: no conversation has an answer that could be judged; name another file")
            reader = reader_lib.Reader(f"config.{NAME}", settings.judge, settings.mesh)
            judge = local.make(NAME, settings.judge, reader, f"config.{NAME}")
        with open(mix, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        processes.agree_on_files({"mixture": sha256, "judge": " ".join(results.rule(judge))})
        claimed = _Claimed(settings, sha256, results.rule(judge))
        path = workdir / JUDGED
        done: set[Unit] = {(n, a) for n, a in team.from_first(lambda: _open(path, workdir, claimed, units))}
        missing = [unit for unit in units if unit not in done]
        try:
            _judge(judge, found, missing, len(done), path, team)
        finally:
            judge.close()
        made = team.from_first(lambda: _write(out, path, names, claimed, mix))
        return Cleaned(tuple(made["ids"]), len(names), len(units), made["invalid"], made["warning"])


def _judge(
    judge: local.LocalJudge,
    found: json_records.JsonRecords[types.Record],
    missing: Sequence[Unit],
    done: int,
    path: pathlib.Path,
    team: processes.Team,
) -> None:
    """Judge a chunk after the other; each is on disk before the next."""
    if not missing:
        return
    shown = progress.verdicts if team.first else judging.silent
    with shown(judge.settings.kind, done, done + len(missing)) as advance:
        for begin in range(0, len(missing), judge.chunk):
            chunk = missing[begin : begin + judge.chunk]
            verdicts = judge.judge([exchange(found[n], answer) for n, answer in chunk])
            team.from_first(lambda units=chunk, of=verdicts: _append(path, units, of))  # type: ignore[misc]
            advance(len(chunk))


def answers(record: types.Record) -> list[tuple[str, str]]:
    """The (question, answer) pairs of a conversation, without the tags of its pictures: guards read text. Several turns
    of a side in a row are one; a question behind the last answer has none, and is left out."""
    pairs: list[tuple[str, str]] = []
    asked: list[str] = []
    answered = False
    for turn in record.turns:
        text = turn.text.replace(f"{templates.IMAGE_TAG}\n", "").replace(templates.IMAGE_TAG, "").strip()
        if turn.role == "gpt" and answered:
            pairs[-1] = pairs[-1][0], f"{pairs[-1][1]}\n\n{text}"
        elif turn.role == "gpt":
            pairs.append(("\n\n".join(asked), text))
            asked, answered = [], True
        else:
            asked, answered = [*asked, text], False
    return pairs


def exchange(record: types.Record, answer: int) -> judge_lib.Exchange:
    """An answer of a conversation, with what came before it."""
    pairs = answers(record)
    return judge_lib.Exchange(*pairs[answer], before=tuple(pairs[:answer]))


def _units(found: json_records.JsonRecords[types.Record], reads: str) -> tuple[list[Unit], tuple[str, ...]]:
    """What is judged, in the mixture's order, and the unique id of each conversation."""
    units, ids = [], []
    for n, record in enumerate(found):
        ids.append(record.id)
        count = len(answers(record))
        units += [(n, a) for a in (range(count) if reads == "answers" else range(count)[-1:])]
    return units, file_index.unique(ids)


def _open(path: pathlib.Path, workdir: pathlib.Path, claimed: _Claimed, units: Sequence[Unit]) -> list[Unit]:
    """What is judged already; an unfinished last line is cut off. Raises UserError: see `clean`."""
    workdir_lib.check_unclaimed(workdir, JUDGED)
    workdir_lib.claim(workdir, claimed, free=FREE)
    if not path.exists():
        return []
    folders.check_own(path)
    with open(path, "rb") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
    os.truncate(path, whole)
    found = [(line.n, line.answer) for line in _lines(path)]
    if strange := sorted(set(found).difference(units)):
        n, answer = strange[0]
        raise errors.UserError(
            f"{path}: a verdict on answer {answer} of conversation {n}, which is not judged here; restore the file or"
            " delete this line"
        )
    return found


def _lines(path: pathlib.Path) -> Iterator[Judged]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            where, way = f"{path}:{number}", "restore the file or delete this line"
            value = files.parse_json(line, where)
            if not isinstance(value, dict):
                raise errors.UserError(f"{where}: not a line about a verdict; {way}")
            found = typed.make(Judged, value, where, way)
            if found.label not in judge_lib.LABELS:
                raise errors.UserError(f"{where}: label {errors.short(found.label)} is no verdict; {way}")
            yield found


def _append(path: pathlib.Path, units: Sequence[Unit], verdicts: Sequence[judge_lib.Verdict]) -> None:
    made = (Judged(*unit, one.label, one.score, one.raw) for unit, one in zip(units, verdicts, strict=True))
    lines = [json.dumps(dataclasses.asdict(one)) + "\n" for one in made]
    with open(path, "ab", buffering=0) as file:
        files.append(file, "".join(lines).encode("ascii"))
        os.fsync(file.fileno())


def _write(
    out: pathlib.Path, path: pathlib.Path, names: Sequence[str], claimed: _Claimed, mix: pathlib.Path
) -> dict[str, Any]:
    """The list of ids, the table of scores, both in the mixture's order, and the record; the list last, so that it is
    never without the others. Raises UserError: no answer has a verdict."""
    lines = sorted(_lines(path), key=lambda one: (one.n, one.answer))
    invalid = [one for one in lines if one.label == "invalid"]
    judge = claimed.settings.judge
    if len(invalid) == len(lines):
        raise errors.UserError(
            f"{path}: none of the {len(lines):,} answers has a verdict (the judge said {errors.short(lines[0].raw)} of"
            " the first), so nothing is known to be clean and no list is written; see that config.judge.path is a guard"
            f" that config.judge.kind={judge.kind!r} reads, and judge with another --workdir"
        )
    flagged = [one for one in lines if one.label in FLAGGED]
    ids = list(dict.fromkeys(names[one.n] for one in flagged))
    share = len(invalid) / len(lines)
    warning = (
        f"WARNING: {_without(len(invalid), len(lines))}, more than {100 * INVALID:.0f} %: what is harmful among them"
        f" stays in the mixture, which is clean only as far as the judge could read; {path.name} has what it said"
    )
    warning = warning if share > INVALID else ""
    record = {
        "schema": SCHEMA,
        "mixture": mix.name,
        "mixture_sha256": claimed.mixture_sha256,
        "judge": judge.kind,
        "judged_by": claimed.judged_by,
        "reads": claimed.settings.reads,
        "conversations": len(names),
        "flagged": len(ids),
        "judged": len(lines),
        "invalid": len(invalid),
        "invalid_share": share,
    } | ({"warning": warning} if warning else {})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "answer", "label", "score", "said"))
    writer.writerows((names[one.n], one.answer + 1, one.label, one.score, one.raw) for one in flagged)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(_beside(out, SCORES), table.getvalue())
    files.write_text(_beside(out, RECORD), json.dumps(record, indent=1) + "\n")
    files.write_text(out, "".join(f"{id_}\n" for id_ in ids))
    return {"ids": ids, "invalid": len(invalid), "warning": warning}


def _without(invalid: int, judged: int) -> str:
    return f"without a verdict: {invalid:,} of {judged:,} answers ({100 * invalid / judged:.1f} %)"


def _beside(out: pathlib.Path, suffix: str) -> pathlib.Path:
    return out.with_name(f"{out.stem}{suffix}")
