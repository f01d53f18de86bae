"""What a page is given comes out as text: no markup, nothing that steers."""

from __future__ import annotations

import pathlib

from vlguard_jax.reporting import template

HOSTILE = "<script>\u001b[2J\u202e\0\"'\nsecond \u0645\u06cc\u200c\u062e"


def test_foreign_text_is_text(tmp_path: pathlib.Path) -> None:
    (tmp_path / "t.html").write_text(
        '{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}<p title="{{ text }}">{{ m(text) }}{{ 0.5|percent }}</p>'
    )
    shown = template.render("t.html", folder=tmp_path, text=HOSTILE)
    safe = "&lt;script&gt;\\x1b[2J\\u202e\\x00&#34;&#39;\nsecond \u0645\u06cc\u200c\u062e"
    assert shown == f'<p title="{safe}"><b>{safe}</b>50.0</p>'
