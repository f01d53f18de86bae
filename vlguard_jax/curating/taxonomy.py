"""The categories of harm: a tree of names with their meaning, from a TOML file.

A file has one table `[[node]]` for each name: `name`, `parent` (none at the top) and `text`, which the prompt shows.
The names at the top are the categories, those below them the subcategories. A subcategory may have finer ones below
it, which the model is offered in its place and which are merged into it (Zong et al. 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import pathlib
import tomllib
from typing import Any, NamedTuple

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import ranges

SHIPPED = pathlib.Path(__file__).with_name("taxonomy.toml")
DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Node:
    """One name; `parent` is empty at the top."""

    name: str
    parent: str = ""
    text: str = ""


class Place(NamedTuple):
    """Where a picture or a question belongs."""

    category: str
    subcategory: str


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """The nodes in the order of the file, which is the order of the prompt and of tables. sha256: of the file."""

    nodes: tuple[Node, ...]
    sha256: str

    @property
    def categories(self) -> tuple[str, ...]:
        """The names at the top."""
        return self.below("")

    @property
    def places(self) -> Mapping[str, Place]:
        """Every name that a reply may give as subcategory -> where it belongs: subcategories, and finer ones."""
        found: dict[str, Place] = {}
        for category in self.categories:
            for subcategory in self.below(category):
                place = Place(category, subcategory)
                found |= dict.fromkeys((subcategory, *self.below(subcategory)), place)
        return found

    def below(self, name: str) -> tuple[str, ...]:
        """The names directly below `name`."""
        return tuple(node.name for node in self.nodes if node.parent == name)

    def shown(self) -> str:
        """The tree as the prompt shows it: names in quotes, with their meaning."""
        lines = []
        text = {node.name: node.text for node in self.nodes}
        for category in self.categories:
            lines.append(_line("- category", category, text))
            for subcategory in self.below(category):
                lines.append(_line("  - subcategory", subcategory, text))
                lines += [_line("    - or, more exactly,", finer, text) for finer in self.below(subcategory)]
        return "\n".join(lines)


def _line(lead: str, name: str, text: Mapping[str, str]) -> str:
    return f'{lead} "{name}"{f": {text[name]}" if text[name] else ""}'


def read(path: str = "") -> Taxonomy:
    """The taxonomy in a file; VLGuard's where `path` is empty.

    Raises:
      UserError: no such file, broken TOML, too many nodes, a wrong or missing field, two nodes of one name, an unknown
        parent, nodes in a circle, more than three levels, or a category without subcategories.
    """
    file = pathlib.Path(path) if path else SHIPPED
    data = files.read_bytes(file, limits.CURATE_BYTES)
    try:
        value = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise errors.UserError(f"{file}: not a TOML file: {e}; correct it, or get it again") from e
    nodes = _nodes(value, str(file))
    _check_names(nodes, str(file))
    _check_tree(nodes, str(file))
    return Taxonomy(nodes, hashlib.sha256(data).hexdigest())


def _nodes(value: Mapping[str, Any], file: str) -> tuple[Node, ...]:
    found = value.get("node")
    if set(value) != {"node"} or not isinstance(found, list) or not found:
        raise errors.UserError(f"{file}: must hold tables [[node]] with name, parent and text, and nothing else")
    if len(found) > limits.TAXONOMY:
        raise errors.UserError(
            f"{file}: {len(found):,} names, at most {limits.TAXONOMY:,} are read: the prompt shows every one of them"
        )
    nodes = []
    for number, one in enumerate(found, 1):
        where = f"{file}: node {number}:"
        if not isinstance(one, dict):
            raise errors.UserError(f"{where} must be a table [[node]]")
        node = ranges.build(Node, one, where)
        if node.name != node.name.strip() or not node.name or '"' in node.name or not node.name.isprintable():
            raise errors.UserError(
                f"{where} name={errors.short(node.name)} must be a text of one line without quotes and outer spaces"
            )
        nodes.append(node)
    return tuple(nodes)


def _check_names(nodes: tuple[Node, ...], file: str) -> None:
    seen: dict[str, str] = {}
    for node in nodes:
        if (other := seen.get(node.name.casefold())) is not None:
            way = "give each its own name" if other == node.name else f"{other!r} differs in upper and lower case only"
            raise errors.UserError(f"{file}: {node.name!r} is there twice; {way}")
        seen[node.name.casefold()] = node.name
    for node in nodes:
        if node.parent and node.parent not in seen.values():
            near = errors.nearest(node.parent, seen.values())
            raise errors.UserError(f"{file}: the parent {node.parent!r} of {node.name!r} is not there{near}")


def _check_tree(nodes: tuple[Node, ...], file: str) -> None:
    parent = {node.name: node.parent for node in nodes}
    for node in nodes:
        path = [node.name]
        while above := parent[path[-1]]:
            if above in path:
                circle = " -> ".join([*path[path.index(above) :], above])
                raise errors.UserError(f"{file}: a circle of parents: {circle}; give one of them another parent")
            path.append(above)
        if len(path) > DEPTH:
            raise errors.UserError(
                f"{file}: {node.name!r} is {len(path)} levels deep ({' -> '.join(path)}); there are categories,"
                " subcategories and finer ones"
            )
    parents = set(parent.values())
    if bare := [node.name for node in nodes if not node.parent and node.name not in parents]:
        raise errors.UserError(f"{file}: the category {bare[0]!r} has no subcategory; give it one")
