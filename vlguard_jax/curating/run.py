"""Makes a dataset out of a picture folder: scan, sort out, ask, review, choose, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib

from rich import table

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import progress as progress_lib
from vlguard_jax import terminal
from vlguard_jax import workdir
from vlguard_jax.curating import answering
from vlguard_jax.curating import asking
from vlguard_jax.curating import card
from vlguard_jax.curating import decisions
from vlguard_jax.curating import near
from vlguard_jax.curating import prompt as prompt_lib
from vlguard_jax.curating import replies
from vlguard_jax.curating import review
from vlguard_jax.curating import scan
from vlguard_jax.curating import selecting
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.curating import taxonomy as taxonomy_lib
from vlguard_jax.curating import writing
from vlguard_jax.endpoints import settings as endpoint_settings

SCANNED, DROPPED = "pictures.jsonl", "dropped.jsonl"
# All settings but these may differ when a run goes on: replies are found by what was asked, and the set is made anew.
OF_THE_SET = ("seed", "pictures.path")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Done:
    """What was made. written: whether the set's folder changed. pages: those to review."""

    made: card.Made
    dataset: pathlib.Path
    written: bool
    pages: tuple[pathlib.Path, ...]


def curate(
    config: settings_lib.CurateConfig,
    folder: pathlib.Path,
    *,
    say: Say = print,
    progress: asking.Progress | None = None,
) -> Done:
    """Make the set in the working directory `folder`. A run that was stopped anywhere goes on.

    Args:
      say: gets sentences for the user.
      progress: as `progress.answers`, for replies.

    Raises:
      UserError: settings, folders, files or pictures are wrong; replies are missing, and those that came are kept.
    """
    taxonomy = taxonomy_lib.read(config.ask.taxonomy)
    prompt, rules = prompt_lib.make(config.ask, taxonomy), replies.Rules(taxonomy, config.ask)
    if config.answerer == "endpoint":
        endpoint_settings.check(config.endpoint, answering.WHERE)
    _check_folders(config, folder)
    given = decisions.read(_decisions(config, folder))
    with workdir.hold(folder):
        folders.check_own(folder / SCANNED, folder / asking.NAME)
        seen, against = _scan(config, folder, say)
        workdir.claim(folder, config, free=_free())
        unique = near.sort_out(seen, against, config.pictures)
        ask = asking.Asking(config, folder, rules, prompt)
        if ask.notice:
            say(ask.notice)

        def open_() -> contextlib.AbstractContextManager[answering.Answerer]:
            return answering.opened(config, folder, asking.form(config, rules), say)

        outcomes = ask.all(unique.kept, seen.path, open_, progress or _progress(config))
        reviewed = decisions.apply(given, outcomes, rules)
        for notice in reviewed.notices:
            say(notice)
        pages = _pages(config, folder, seen.path, outcomes, reviewed, taxonomy)
        chosen, dropped = selecting.choose(
            config, outcomes, reviewed, taxonomy.places, only_accepted=config.review.only_accepted
        )
        dropped = sorted([*unique.dropped, *dropped], key=lambda one: one.name)
        if len(dropped) + len(chosen) != len(seen.pictures):
            raise RuntimeError(f"{len(seen.pictures)} pictures, {len(dropped)} left out, {len(chosen)} in the set")
        lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in dropped]
        files.write_text(folder / DROPPED, "".join(lines))
        splits = selecting.split(config, chosen, unique.groups)
        made = card.Made(config, seen, against, unique, outcomes, reviewed, splits, dropped, rules, prompt)
        content = writing.content(splits, taxonomy.places, card.write(made), stand_in=config.pictures.stand_in)
        out = folder / writing.FOLDER
        return Done(made, out, writing.write(out, content, seen.path, config.title, tfds=config.tfds), pages)


def _check_folders(config: settings_lib.CurateConfig, folder: pathlib.Path) -> None:
    s = config.pictures
    named = [("config.pictures.path", s.path), *(("config.pictures.against", path) for path in s.against)]
    for setting, path in named:
        if folder.resolve().is_relative_to(pathlib.Path(path).resolve()):
            raise errors.UserError(
                f"--workdir={folder} lies in {path} ({setting}), and what is written would be read as pictures; choose"
                " a --workdir outside"
            )
    if config.review.decisions and not pathlib.Path(config.review.decisions).is_dir():
        raise errors.UserError(
            f"{config.review.decisions}: no such folder (config.review.decisions); make it, or correct its name"
        )


def _scan(config: settings_lib.CurateConfig, folder: pathlib.Path, say: Say) -> tuple[scan.Folder, list[scan.Folder]]:
    notes, s = folder / SCANNED, config.pictures
    with progress_lib.reading(terminal.console(), "pictures") as tell:
        seen = scan.scan(pathlib.Path(s.path), notes, "config.pictures.path", tell)
        others = [scan.scan(pathlib.Path(path), notes, "config.pictures.against", tell) for path in s.against]
    for notice in [notice for of in (seen, *others) for notice in of.notices]:
        say(notice)
    for of in others:
        if bad := sum(bool(one.fault) for one in of.pictures):
            say(f"{of.path}: {bad:,} pictures cannot be read and were compared with nothing")
    return seen, others


def _progress(config: settings_lib.CurateConfig) -> asking.Progress:
    if config.answerer == "checkpoint":
        return progress_lib.answers
    return functools.partial(progress_lib.answers, first="waiting for the first ones")


def _free() -> tuple[str, ...]:
    names = [field.name for field in dataclasses.fields(settings_lib.CurateConfig) if field.name != "pictures"]
    names += [f"pictures.{field.name}" for field in dataclasses.fields(settings_lib.PictureSettings)]
    return tuple(name for name in names if name not in OF_THE_SET)


def _decisions(config: settings_lib.CurateConfig, folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(config.review.decisions) if config.review.decisions else folder / decisions.FOLDER


def _pages(
    config: settings_lib.CurateConfig,
    folder: pathlib.Path,
    pictures: pathlib.Path,
    outcomes: Sequence[asking.Outcome],
    reviewed: decisions.Reviewed,
    taxonomy: taxonomy_lib.Taxonomy,
) -> tuple[pathlib.Path, ...]:
    """Write the pages about what would be in the set if all were accepted, and about what was decided before, so that a
    page stays the same while people work on it."""
    wanted, _ = selecting.choose(config, outcomes, reviewed, taxonomy.places, only_accepted=False)
    names = {one.picture.name for one in wanted} | reviewed.rejected | reviewed.accepted
    shown = [one for one in outcomes if one.picture.name in names]
    return review.write(folder / review.FOLDER, shown, pictures, config, taxonomy)


def show(done: Done) -> None:
    """Print what was made."""
    made = done.made
    shown = table.Table("pictures", "number", title=f"Dataset in {done.dataset}")
    shown.add_row("read", f"{len(made.folder.pictures):,}")
    for reason, n in card.reasons(made.dropped).items():
        shown.add_row(f"left out: {reason}", f"{n:,}")
    for split, chosen in made.splits.items():
        unsafe = sum(not one.label.safe for one in chosen)
        shown.add_row(f"{split}: {unsafe:,} unsafe, {len(chosen) - unsafe:,} safe", f"{len(chosen):,}")
    terminal.console().print(shown)
    terminal.say(f"Left out, one by one: {done.dataset.parent / DROPPED}. Data card: {done.dataset / writing.CARD}.")
    if done.pages:
        terminal.say(
            f"To review: {done.pages[0]}{f' and {len(done.pages) - 1} more' if len(done.pages) > 1 else ''}; put what"
            f" they save into {_decisions(made.config, done.dataset.parent)} and run this again."
        )
    if not done.written:
        terminal.say("The set was there already: nothing was written.")
