"""What people decided on the review pages: the files that these save, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import pathlib

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import typed
from vlguard_jax.curating import asking
from vlguard_jax.curating import replies

SCHEMA = 1
FOLDER = "decisions"  # below the working directory
ACCEPT, EDIT, REJECT = "accept", "edit", "reject"
LABELS = (ACCEPT, EDIT, REJECT)
SHOWN = "shown"  # column with the sha256 of the record that was shown
COMMON = ("key", "label", "rater", "time", "rows", SHOWN)
WAY = "save it from the page again, or take it out of the folder"


@dataclasses.dataclass(frozen=True)
class _File:
    schema: typed.Count
    sheet: typed.Name
    rows: tuple[Mapping[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Decision:
    """One person's decision about one picture.

    Attributes:
      picture: sha256 of the picture's file.
      shown: `Labelled.sha256` of the record that was shown.
      rejected: whether it is left out; else the texts below are taken.
      texts: the keys that the page shows, as they stood there at the end.
      rater, time: who, and when.
      file: that it stands in.
    """

    picture: str
    shown: str
    rejected: bool
    texts: Mapping[str, str]
    rater: str
    time: datetime.datetime
    file: pathlib.Path

    @property
    def says(self) -> tuple[bool, str, Mapping[str, str]]:
        """What two who agree have in common; the texts of what is rejected do not count."""
        return self.rejected, self.shown, {} if self.rejected else self.texts


@dataclasses.dataclass(frozen=True)
class Reviewed:
    """labels: after people's edits, by picture name. rejected: names. accepted: names that people accepted, as they
    were or edited. edited: number of the latter. notices: what was not taken, in sentences."""

    labels: Mapping[str, replies.Labelled]
    rejected: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    edited: int = 0
    notices: tuple[str, ...] = ()


def read(folder: pathlib.Path) -> dict[str, Decision]:
    """The decisions in all files of a folder by the picture's sha256; none without the folder. Of one person's about
    one picture the latest counts. Hidden files are passed over.

    Raises:
      UserError: a broken file, or one that is none of decisions; two people who decide otherwise about one picture,
        or one who does at one time.
    """
    latest: dict[tuple[str, str], Decision] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.suffix.lower() != ".json":
            raise errors.UserError(f"{path}: no file of decisions, whose names end in .json; {WAY}")
        for one in _of_file(path):
            before = latest.setdefault((one.picture, one.rater), one)
            if before.time == one.time and before.says != one.says:
                raise errors.UserError(
                    f"{one.file}: {errors.short(one.rater)} decides otherwise about picture {one.picture[:12]} than in"
                    f" {before.file} at the same time; take one of the rows out"
                )
            latest[one.picture, one.rater] = max(before, one, key=lambda decision: decision.time)
    found: dict[str, Decision] = {}
    for one in latest.values():
        before = found.setdefault(one.picture, one)
        if before.says != one.says:
            raise errors.UserError(
                f"{one.file}: {errors.short(one.rater)} decides otherwise about picture {one.picture[:12]} than"
                f" {errors.short(before.rater)} in {before.file}; agree, and take one of the rows out"
            )
    return found


def _of_file(path: pathlib.Path) -> list[Decision]:
    value = typed.make(_File, files.read_object(path), str(path), WAY)
    if value.schema != SCHEMA:
        raise errors.UserError(f"{path}: schema {value.schema}, this program reads {SCHEMA}; {WAY}")
    found = []
    for number, row in enumerate(value.rows, 1):
        where = f"{path}: row {number}"
        if missing := [name for name in COMMON if name not in row]:
            raise errors.UserError(f"{where}: no {missing[0]}; {WAY}")
        texts = {name: text for name, text in row.items() if name not in COMMON}
        if unknown := [name for name in texts if name not in replies.KEYS]:
            raise errors.UserError(f"{where}: {errors.short(unknown[0])} is none of a record's keys; {WAY}")
        if row["label"] not in LABELS:
            raise errors.UserError(f"{where}: label {errors.short(row['label'])}{errors.nearest(row['label'], LABELS)}")
        if row["rows"] != str(len(value.rows)):
            raise errors.UserError(f"{where}: {len(value.rows)} rows, and {row['rows']} were saved: it was cut; {WAY}")
        try:
            time = datetime.datetime.fromisoformat(row["time"])
            if time.tzinfo is None:
                raise ValueError("no zone")
            time.astimezone(datetime.UTC)
        except (ValueError, OverflowError) as e:
            raise errors.UserError(f"{where}: time {errors.short(row['time'])} is none with its zone; {WAY}") from e
        rejected = row["label"] == REJECT
        found.append(Decision(row["key"], row[SHOWN], rejected, texts, row["rater"], time, path))
    return found


def apply(given: Mapping[str, Decision], outcomes: Sequence[asking.Outcome], rules: replies.Rules) -> Reviewed:
    """The labels after the decisions. One about another version of a record, or about a picture without a label, is not
    taken and told.

    Raises:
      UserError: an edited record breaks the schema (named with its file and picture), or no decision is about a picture
        of this folder.
    """
    labels: dict[str, replies.Labelled] = {}
    rejected, accepted, edited, stale, known = set(), set(), 0, 0, 0
    for one in outcomes:
        decision = given.get(one.picture.sha256)
        known += decision is not None
        if isinstance(one.found, replies.Fault):
            stale += decision is not None
            continue
        name, labels[one.picture.name] = one.picture.name, one.found
        if decision is None:
            continue
        if decision.shown != one.found.sha256:
            stale += 1
        elif decision.rejected:
            rejected.add(name)
        else:
            accepted.add(name)
            labels[name] = _taken(decision, one.found, name, rules)
            edited += labels[name] != one.found
    if given and not known:
        raise errors.UserError(
            f"{next(iter(given.values())).file}: none of the {len(given):,} decisions is about a picture of this set;"
            " name their folder with config.review.decisions, or take them out"
        )
    others = len(given) - known
    told = [f"decisions about pictures that are not in this set: {others:,}"] if others else []
    told += [f"decisions about another version of a record, which are not taken: {stale:,}"] if stale else []
    return Reviewed(labels, frozenset(rejected), frozenset(accepted), edited, tuple(told))


def _taken(decision: Decision, label: replies.Labelled, name: str, rules: replies.Rules) -> replies.Labelled:
    value = dataclasses.asdict(label) | {key: text for key, text in decision.texts.items() if key != "safe"}
    # a person's word counts where length and wording of a refusal are concerned
    found = rules.check(value, style=False)
    if isinstance(found, replies.Fault):
        raise errors.UserError(f"{decision.file}: the edited record of {name}: {found.told} Edit it on the page again")
    return found
