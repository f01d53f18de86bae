"""Renders pages from templates; values are escaped, and a missing name is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlguard_jax import escape
from vlguard_jax.reporting import grid as grid_lib

FOLDER = Path(__file__).parent  # the report's templates, which others may include


def render(name: str, *, folder: Path = FOLDER, **values: Any) -> str:
    """The template `name` in `folder` as text."""
    import jinja2  # late: `report --help` does without

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": grid_lib.percent}
    return environment.get_template(name).render(**values)


def _plain(value: Any) -> Any:
    """A value as plain text; the template's own text, which may be markup, is not changed."""
    return escape.page(value) if type(value) is str else value
