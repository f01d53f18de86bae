"""The data card: what is in the set, where it comes from, what it cost, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import statistics

from vlguard_jax import escape
from vlguard_jax.curating import answering
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import near
from vlguard_jax.curating import prompt as prompt_lib
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import selecting
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.endpoints import request as request_lib

MOST_OPENINGS = 10  # that are shown
HEAD = """---
license: other
task_categories: [visual-question-answering]
tags: [safety, vlguard]
---
"""


@dataclasses.dataclass(frozen=True)
class Made:
    """All that the card tells of. dropped: all pictures that are not in the set, by name."""

    config: settings_lib.CurateConfig
    folder: scan.Folder
    against: Sequence[scan.Folder]
    unique: near.Unique
    outcomes: Sequence[asking.Outcome]
    reviewed: decisions.Reviewed
    splits: Mapping[str, Sequence[selecting.Chosen]]
    dropped: Sequence[near.Dropped]
    rules: replies.Rules
    prompt: prompt_lib.Prompt

    @property
    def chosen(self) -> list[selecting.Chosen]:
        """All records."""
        return [one for chosen in self.splits.values() for one in chosen]


def write(m: Made) -> str:
    """The card as Markdown. The same set has the same card, whenever and in how many runs it was made."""
    parts = [
        HEAD,
        f"# {escape.markdown_item(m.config.title)}",
        _about(m),
        "## What is in it",
        _kinds(m),
        "## Where the pictures come from",
        _sources(m),
        "## What was left out, and why",
        _left_out(m),
        "## Who labelled and wrote it",
        _who(m),
        "## Questions and answers",
        _texts(m),
        "## Review by people",
        _review(m),
        "## What it is not",
        _limits(m),
        "## The prompt",
        f"Of the first question about a picture in {escape.markdown(m.config.ask.languages[0])}; sha256 of the text"
        f" without a language: `{m.prompt.sha256}`, of the taxonomy: `{m.rules.taxonomy.sha256}`.",
        "\n".join(f"    {line}" for line in escape.page(m.prompt.text(m.config.ask.languages[0])).splitlines()),
    ]
    return "\n\n".join(parts) + "\n"


def _about(m: Made) -> str:
    n = len(m.chosen)
    drawn = " THE PICTURES WERE DRAWN BY A PROGRAM: this is a rehearsal." if m.config.pictures.stand_in else ""
    return (
        f"{n:,} pictures with instructions and answers for the safety fine-tuning and measurement of vision-language"
        " models, in the form of VLGuard (Zong et al., ICML 2024), labelled and written by a model and made with"
        f" vlguard_jax's `curate`. It is not VLGuard.{drawn} `train.json` and `test.json` are in VLGuard's own form,"
        " `train/` and `test/` hold the pictures, `details.jsonl` all that was replied about each, `tfds/` (if there)"
        " the same as ArrayRecord."
    )


def _kinds(m: Made) -> str:
    rows = []
    count = {split: Counter(one.kind for one in chosen) for split, chosen in m.splits.items()}
    taxonomy = m.rules.taxonomy
    kinds = [(c, s) for c in taxonomy.categories for s in taxonomy.below(c)]
    for kind in [*kinds, (selecting.SAFE, selecting.SAFE)]:
        numbers = [sum(n for k, n in count[split].items() if tuple(k) == kind) for split in selecting.SPLITS]
        rows.append([kind[0], "" if kind[0] == selecting.SAFE else kind[1], *numbers])
    rows.append(["all", "", *(count[split].total() for split in selecting.SPLITS)])
    return _table(["category", "subcategory", *selecting.SPLITS], rows)


def _sources(m: Made) -> str:
    """By the folder at the top, with the unsafe share of each: where it differs much, a model can learn the source."""
    rows = []
    read = Counter(one.source for one in m.folder.pictures)
    for source, n in sorted(read.items()):
        here = [one for one in m.chosen if one.picture.source == source]
        unsafe = sum(not one.label.safe for one in here)
        share = f"{100 * unsafe / len(here):.0f} %" if here else "-"
        rows.append([source, n, len(here), unsafe, share])
    told = (
        "The unsafe share of each source is shown because a model that learns to tell the sources apart learns nothing"
        " about safety where it differs much."
    )
    return f"{_table(['folder', 'pictures', 'in the set', 'unsafe', 'share'], rows)}\n\n{told}"


def _left_out(m: Made) -> str:
    read, kept = len(m.folder.pictures), len(m.chosen)
    rows: list[Sequence[object]] = [["pictures read", read]]
    rows += [[f"left out: {reason}", -n] for reason, n in reasons(m.dropped).items()]
    rows.append(["in the set", kept])
    told = [
        f"Files that are no pictures by their names: {m.folder.others:,}. Near-duplicates have at most"
        f" {m.config.pictures.near_bits} different bits of {scan.BITS} in their hashes and look alike at {near.CELLS} x"
        f" {near.CELLS} cells; pictures within {m.config.pictures.group_bits} bits are on one side of the split."
    ]
    if m.unique.near_kept:
        told.append(f"Near-duplicates that were kept: {m.unique.near_kept:,}.")
    if m.against:
        told.append(f"Compared with {sum(len(of.pictures) for of in m.against):,} pictures that must not be in it.")
    return f"{_table(['', 'pictures'], rows)}\n\n{' '.join(told)}"


def reasons(dropped: Iterable[near.Dropped]) -> dict[str, int]:
    """Reason -> number of pictures, the most frequent first."""
    return dict(sorted(Counter(one.reason for one in dropped).items(), key=lambda pair: (-pair[1], pair[0])))


def _who(m: Made) -> str:
    lines = [line for one in m.outcomes for line in one.lines]
    names = Counter(line.model for line in lines)
    untold = sum(line.prompt_tokens is None or line.reply_tokens is None for line in lines)
    asked, written = (sum(getattr(line, f"{side}_tokens") or 0 for line in lines) for side in ("prompt", "reply"))
    c = m.config
    rows: list[Sequence[object]] = [
        ["model", ", ".join(f"{name} ({n:,} replies)" for name, n in sorted(names.items()))],
        ["asked as", c.endpoint.model if c.answerer == "endpoint" else c.model.path],
        ["replies", f"{len(lines):,} about {len(m.outcomes):,} pictures"],
        ["tokens", f"{asked:,} asked, {written:,} replied" + (f"; not told of {untold:,} replies" if untold else "")],
    ]
    if c.answerer == "endpoint":
        cost = request_lib.dollars(asked, written, c.endpoint)
        rows.append(["cost of these replies", f"${cost:,.2f}" + (" and what was not told" if untold else "")])
    tries = Counter(len(one.lines) for one in m.outcomes)
    rows.append(["pictures by their replies", ", ".join(f"{n} with {k}" for k, n in sorted(tries.items()))])
    refused = sum(line.finish_reason == answering.REFUSED for line in lines)
    rows.append(["replies that the server marked as refusals", f"{refused:,}"])
    return _table(["", ""], rows)


def _texts(m: Made) -> str:
    a = m.config.ask
    refusals = [one.label.refusal for one in m.chosen]
    lengths = sorted(replies.words(text) for text in refusals) or [0]
    openings = Counter(replies.opening(text, a.opening_words) for text in refusals)
    rows = [[text, n, f"{100 * n / len(refusals):.1f} %"] for text, n in _most_common(openings)]
    languages = Counter(one.language for one in m.chosen)
    limit = (
        f"at most {100 * a.most_alike:g} % with the same first {a.opening_words}" if a.most_alike < 1 else "any share"
    )
    return "\n\n".join(
        [
            f"Words of a refusal: {lengths[0]} to {lengths[-1]}, median {statistics.median(lengths):g}. Languages:"
            f" {escape.markdown(', '.join(f'{name} {n:,}' for name, n in sorted(languages.items())))}; the model was"
            " asked to write them, nothing checked that it did.",
            f"How refusals begin ({limit}; {len(openings):,} ways):",
            _table(["first words", "refusals", "share"], rows),
        ]
    )


def _most_common(openings: Counter[str]) -> list[tuple[str, int]]:
    return sorted(openings.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_OPENINGS]


def _review(m: Made) -> str:
    reviewed = sum(one.reviewed for one in m.chosen)
    return (
        f"Accepted or edited by a person: {reviewed:,} of {len(m.chosen):,} records (edited in all:"
        f" {m.reviewed.edited:,}); rejected: {len(m.reviewed.rejected):,}."
        + ("" if reviewed else " NO RECORD WAS REVIEWED BY A PERSON.")
    )


def _limits(m: Made) -> str:
    english = "" if m.config.ask.check_refusals else " Nothing checked that refusals decline."
    return (
        "Labels are a model's, and so are its mistakes; pictures keep the rights and the people in them: see to a"
        " licence and to consent before this is given to anybody. The unsafe records show harmful content. Pictures are"
        f" compared with each other and with the folders named above only.{english}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else escape.markdown(str(cell)) for cell in row] for row in rows]
    rule = ["--:" if cells and all(_is_number(row[i]) for row in cells) else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), rule, *cells])


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").removeprefix("-").isdigit()
