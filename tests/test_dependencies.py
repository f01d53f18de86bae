"""Whatever the package imports comes with it, or with the extra that its message names."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
import re
import sys
import tomllib

from tests import source

# module -> extra that brings it; imported where a command needs it, with a message of its own
EXTRAS = {
    "gguf": "gguf",
    "wandb": "track",
    "skimage": "quickstart",
    "openai": "judge",
    "httpx2": "judge",
    "anyio": "page",
    "starlette": "page",
    "uvicorn": "page",
}
OWN = {"vlguard_jax", "launch"}  # the second: of the checkout, and plan says so where it is missing
BY_CHOICE = {("vlguard_jax.verifying.hugging_face", "torch")}  # for verify --make_golden, which names it
WITH = {"google": "protobuf"}  # a name that several share


def canonical(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def imported() -> Iterator[tuple[str, str]]:
    """(package, module of ours that imports it) of every import of another's."""
    for module, file in source.modules().items():
        for name, _ in source.imports(file):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in OWN:
                yield top, module


def test_every_import_is_a_dependency() -> None:
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {canonical(requirement) for requirement in project["dependencies"]}
    of_extras = {
        extra: {canonical(r) for r in requirements} for extra, requirements in project["optional-dependencies"].items()
    }
    distributions = metadata.packages_distributions()
    missing = []
    for module, ours in imported():
        owners = {canonical(name) for name in distributions.get(WITH.get(module, module), [WITH.get(module, module)])}
        allowed = named | (of_extras[EXTRAS[module]] if module in EXTRAS else set())
        if not owners & allowed and (ours, module) not in BY_CHOICE:
            missing.append(f"{ours} imports {module} of {', '.join(sorted(owners))}")
    assert missing == []


def test_the_search_finds_imports() -> None:
    found = {module for module, _ in imported()}
    assert {"jax", "numpy", "scipy", "wandb"} <= found
