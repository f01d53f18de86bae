"""Chat templates in Jinja that the program brings, by name: formats of models whose folders carry none."""

from __future__ import annotations

TEXTS: dict[str, str] = {}
