"""Foreign text on its way out: nothing of it is obeyed, and what people write comes out as they wrote it."""

from __future__ import annotations

import re
import unicodedata

import hypothesis
from hypothesis import strategies
import pytest

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import limits

BAD = ("Cc", "Cf", "Cs", "Zl", "Zp")
ANY = strategies.text(strategies.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain_7b (caf\u00e9)", "plain_7b (caf\u00e9)"),
        ("\u001b[2J\u0007", r"\x1b[2J\x07"),
        ("\u001b]8;;http://x\u001b\\a", r"\x1b]8;;http://x\x1b\a"),
        ("a\nb\r\tc\u2028d\u0085e", r"a\nb\r\tc\u2028d\x85e"),
        ("\u202egpj.exe\u200f", r"\u202egpj.exe\u200f"),
        ("half \udce9", r"half \udce9"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_a_line_shows_what_it_holds(text: str, shown: str) -> None:
    assert escape.line(text) == shown


def test_a_long_line_keeps_both_ends() -> None:
    shown = escape.line("begin " + "x" * 10_000_000 + " name another file")
    assert (
        shown.startswith("begin xxx") and shown.endswith("xxx name another file") and "(10,000,024 characters)" in shown
    )
    assert len(shown) <= limits.LINE


@hypothesis.given(strategies.one_of(ANY, ANY.map(lambda text: 40 * text)), strategies.sampled_from([200, limits.LINE]))
def test_a_line_is_one_and_stays_as_it_is(text: str, limit: int) -> None:
    shown = escape.line(text, limit)
    assert len(shown) <= limit and not any(unicodedata.category(c) in BAD for c in shown)
    assert escape.line(shown, limit) == shown


@hypothesis.given(ANY)
def test_a_page_keeps_every_script_and_its_line_breaks(text: str) -> None:
    shown = escape.page(text)
    assert escape.page(shown) == shown
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown if c not in "\n\t")
    # with a joiner, a break and spaces of their own
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n\u3000a\u00a0b"
    assert escape.page(persian) == persian


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("llava_v15_7b [1.0, 2.0] (n = 5)", "llava_v15_7b [1.0, 2.0] (n = 5)"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("[x](javascript:y)", r"[x\](javascript:y)"),
        ("![x](https://y)", r"![x\](https:\//y)"),
        ("[x]: y", r"[x\]: y"),
        ("&lt;b&gt; `c` *d* _e_ ~f~ $g$", r"\&lt;b\&gt; \`c\` \*d\* \_e\_ \~f\~ \$g\$"),
        ("# title", r"\# title"),
        ("__init__ a__b", r"\_\_init\_\_ a\_\_b"),
    ],
)
def test_markdown_is_text(text: str, shown: str) -> None:
    assert escape.markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- x", r"\- x"),
        ("12) x", r"12\) x"),
        ("---", r"\---"),
        ("    x", "x"),
        ("[x] y", r"\[x] y"),
        ("llava-7b: 1.5 [a]", "llava-7b: 1.5 [a]"),
    ],
)
def test_an_item_of_a_list_stays_one(text: str, shown: str) -> None:
    assert escape.markdown_item(text) == shown


@hypothesis.given(ANY)
def test_markdown_stays_in_its_cell(text: str) -> None:
    bare = re.sub(r"\\.", "", escape.markdown(text))
    assert not re.search(r"[|<>`*~$&\n\r]|\]\(|://", bare)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\input{x} % & # $ _ ^ ~", r"\textbackslash{}input\{x\} \% \& \# \$ \_ \textasciicircum{} \textasciitilde{}"),
        ("^^5cinput x", r"\textasciicircum{}\textasciicircum{}5cinput x"),
        ("[2cm]", "{}[2cm]"),
        ("*", "{}*"),
        ("\u001b", r"\textbackslash{}x1b"),
        ("a < b \u2193", r"a $<$ b $\downarrow$"),
    ],
)
def test_latex_is_text(text: str, shown: str) -> None:
    assert escape.latex(text) == shown


@hypothesis.given(ANY)
def test_latex_runs_nothing(text: str) -> None:
    """What is left besides the escapes of the one table holds no special character."""
    bare = re.sub(
        r"\\text(backslash|asciitilde|asciicircum)\{\}|\\[&%$#_{}]|\$(<|>|\\downarrow|\\uparrow)\$|^\{\}",
        "",
        escape.latex(text),
    )
    assert not re.search(r"[\\{}%$&#_^~\n\r]", bare)


@hypothesis.given(strategies.one_of(ANY, ANY.map(lambda text: 400 * text)))
def test_an_error_is_one_line_that_a_terminal_shows(text: str) -> None:
    error = errors.UserError(f"{text}: no such file; name another")
    assert (
        str(error).isprintable()
        and len(str(error)) <= limits.LINE
        and str(error).endswith(": no such file; name another")
    )
    assert str(errors.UserError(error)) == str(error) == error.args[0]
