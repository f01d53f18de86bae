"""One step's rows as coloured text in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import console as rich_console
from rich import text

from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.preparing import batch_rows

STYLES = {batch_rows.READ: "dim", batch_rows.LEARNED: "bold green", batch_rows.PICTURE: "magenta"}
SIGNS = {batch_rows.READ: "\u2591", batch_rows.LEARNED: "\u2588", batch_rows.PICTURE: "\u2592"}
BORDER, EMPTY = "\u2502", "\u00b7"
HEAD, TAIL = 240, 80  # characters shown of a run of tokens, at its beginning and end
CONVERSATIONS = 12  # shown of a row
RUNS = 16  # shown of a conversation
INDENT = 5


def show(step: batch_rows.Step, rows: int, tokenizer: tokenizer_lib.Tokenizer, console: rich_console.Console) -> None:
    """Print the first `rows` rows of a step, 0 for all, with a legend and the totals. Long parts are folded."""
    rows = min(rows or len(step.rows), len(step.rows))
    console.print(*totals(step), sep="\n")
    console.print(_legend(console))
    for row in step.rows[:rows]:
        console.print()
        console.print(
            f"row {row.number}: {_share(row.used, step.row_len)} tokens used,"
            f" {_of(len(row.conversations), 'conversation')}"
        )
        console.print(_bar(row, step.row_len, min(console.width, 100)))
        for conversation in row.conversations[:CONVERSATIONS]:
            console.print(text.Text(facts(conversation), "bold"))
            body = _body(conversation, tokenizer, marked=console.color_system is None)
            for line in body.wrap(console, max(20, console.width - INDENT), overflow="fold"):
                line.rstrip()
                console.print(" " * INDENT, line, sep="", soft_wrap=True)
        _more(console, len(row.conversations) - CONVERSATIONS, "more conversations in this row")
    _more(console, len(step.rows) - rows, "more rows; --rows 0 shows all")


def totals(step: batch_rows.Step) -> list[str]:
    """Totals of the step, one per line."""
    learned, slots = step.count(batch_rows.LEARNED), step.count(batch_rows.PICTURE)
    used = step.tokens - step.padding
    parts = (
        f" in {step.micro_batches} programs of {len(step.rows) // step.micro_batches} rows"
        if step.micro_batches > 1
        else ""
    )
    spread = f", spread over {step.shards} row shards" if step.shards > 1 else ""
    return [
        f"step {step.number} of {step.of:,}, counted from 0 (update {step.number + 1} in the log), epoch {step.epoch}",
        f"{_of(len(step.rows), 'row')} of {step.row_len:,} tokens{parts}{spread}",
        f"{_of(len(step.conversations), 'conversation')}, {_of(step.pictures, 'picture')} (room for {step.room})",
        f"{step.tokens:,} tokens computed: {slots:,} of pictures, {used - slots:,} of text, {step.padding:,} padding"
        f" ({_percent(step.padding, step.tokens)})",
        f"{learned:,} tokens are learned ({_percent(learned, used)} of those used); their loss weights sum to"
        f" {step.weight:.4f}",
    ]


def facts(conversation: batch_rows.Conversation) -> str:
    """One line about a conversation."""
    c = conversation
    learned = c.count(batch_rows.LEARNED)
    weight = (
        f"{learned:,} learned at weight {c.token_weight:.3g} each ({100 * c.share:.2f} % of the step)"
        if learned
        else "none learned"
    )
    name = batch_rows.visible(f"{c.source} / {c.id}")
    return f"{c.segment:>3}  {name}, group {c.group}, {len(c.tokens):,} tokens, {weight}"


def _legend(console: rich_console.Console) -> text.Text:
    marks = ("\u00ab", "\u00bb") if console.color_system is None else ("", "")
    learned = f"{marks[0]}learned{marks[1]}"
    return text.Text.assemble(
        ("read only", STYLES[batch_rows.READ]),
        f" {SIGNS[batch_rows.READ]} the model is given it   ",
        (learned, STYLES[batch_rows.LEARNED]),
        f" {SIGNS[batch_rows.LEARNED]} the loss asks the model for it   ",
        ("[picture NAME: n slots]", STYLES[batch_rows.PICTURE]),
        f" {SIGNS[batch_rows.PICTURE]} n tokens of a picture   ",
        f"{EMPTY} padding   {BORDER} a new conversation (segment): positions start at 0 and attention does not look"
        " back over it   ",
        "\u23ce line break",
    )


def _body(conversation: batch_rows.Conversation, tokenizer: tokenizer_lib.Tokenizer, *, marked: bool) -> text.Text:
    """The conversation's text. `marked`: put signs around learned tokens, for output without colours."""
    body = text.Text()
    words = batch_rows.texts(tokenizer, conversation.tokens.tolist())
    for run in _shown(conversation.runs):
        if run is None:
            skipped = len(conversation.runs) - RUNS
            body.append(f" \u2026 {skipped} further parts \u2026 ", "italic")
            continue
        if run.kind == batch_rows.PICTURE:
            picture = conversation.pictures[run.picture]
            body.append(f"[picture {batch_rows.visible(picture.name)}: {picture.slots} slots]", STYLES[run.kind])
            continue
        signs = ("\u00ab", "\u00bb") if marked and run.kind == batch_rows.LEARNED else ("", "")
        body.append(signs[0] + _folded(words[run.start : run.stop]) + signs[1], STYLES[run.kind])
    return body


def _shown(runs: Sequence[batch_rows.Run]) -> Iterator[batch_rows.Run | None]:
    """All runs, or the first and last ones with None in place of the others."""
    if len(runs) <= RUNS:
        yield from runs
        return
    yield from runs[: RUNS * 3 // 4]
    yield None
    yield from runs[-(RUNS - RUNS * 3 // 4) :]


def _folded(words: Sequence[str]) -> str:
    whole = batch_rows.visible("".join(words))
    if len(whole) <= HEAD + TAIL + 40:
        return whole
    return f"{whole[:HEAD]} \u2026 {len(whole) - HEAD - TAIL:,} more letters \u2026 {whole[-TAIL:]}"


def _bar(row: batch_rows.Row, row_len: int, width: int) -> text.Text:
    """The row to scale: each sign shows the most frequent kind of token in its part."""
    bar = text.Text(no_wrap=True)
    kinds = [EMPTY] * row_len
    starts = set()
    for c in row.conversations:
        starts.add(c.start * width // row_len)
        for run in c.runs:
            kinds[c.start + run.start : c.start + run.stop] = [run.kind] * run.count
    for i in range(width):
        part = kinds[i * row_len // width : max(i * row_len // width + 1, (i + 1) * row_len // width)]
        kind = max(sorted(set(part)), key=part.count)
        sign = BORDER if i and i in starts else SIGNS.get(kind, kind)
        bar.append(sign, "" if sign == BORDER else STYLES.get(kind, "dim"))
    return bar


def _more(console: rich_console.Console, count: int, what: str) -> None:
    if count > 0:
        console.print(f"\u2026 {count:,} {what}", style="italic")


def _of(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({_percent(part, whole)})"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"
