"""Imports point one way, data/ and safety/ do without jax, torch is nowhere (design, section 3)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import source

# A module may import what stands in its own line or below.
ORDER = (
    ("planning", "curating", "verifying", "asking"),
    ("training", "preparing"),
    ("reporting",),
    ("safety",),
    ("generation",),
    ("checkpoints",),
    ("parallel",),
    ("data",),
    ("families",),
    ("workdir", "completion"),
    ("reference",),
    ("config", "config_flag", "cli"),
    ("endpoints", "judge_settings", "data_settings"),
    ("types", "trees", "typed", "terminal", "progress", "versions"),
    ("checks", "fields", "files", "fingerprints", "folders", "own_code", "ranges", "shipped"),
    ("machine", "preemption", "stopping"),
    ("errors",),
    ("escape", "limits"),
)
RANK = {name: rank for rank, line in enumerate(ORDER, 1) for name in line}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "chex"}
WITHOUT_JAX = (
    "data",
    "families",
    "safety",
    "reporting",
    "quickstart",
    "config",
    "data_settings",
    "endpoints",
    "judge_settings",
    "ranges",
    "types",
    "trees",
    "files",
    "errors",
    "cli",
    "workdir",
)
WITHOUT_JAX += (
    "escape",
    "fields",
    "folders",
    "limits",
    "machine",
    "own_code",
    "preemption",
    "progress",
    "shipped",
    "stopping",
    "terminal",
    "typed",
    "versions",
)
# Where one of these parts does load jax, and what of it.
ALLOWED = {
    "vlguard_jax.data.loader": {"grain"},
    "vlguard_jax.quickstart.tower": {"flax", "jax", "optax"},
    "vlguard_jax.safety.from_checkpoint": {"jax"},
    "vlguard_jax.safety.reader": {"jax"},
    "vlguard_jax.families.functional": {"flax", "jax"},
}
WITH_TORCH = "vlguard_jax.verifying.hugging_face"  # where it is installed, and only to make what others compare with
BLOCKS = ("attention", "cache", "clip", "decoder", "execution", "layers", "lora", "projector")
ALLOWED |= {f"vlguard_jax.families.blocks.{name}": {"flax", "jax"} for name in BLOCKS}


def may_load(module: str) -> set[str]:
    """What of JAX a module may import; of a family its network alone."""
    is_network = module.startswith("vlguard_jax.families.") and module.endswith(".network")
    return {"flax", "jax"} if is_network else ALLOWED.get(module, set())


def rank(module: str) -> int:
    """0 for entry points, then the line of ORDER."""
    return RANK.get(module.split(".")[1], 0)


def violations(module: str, imported: list[tuple[str, int]]) -> list[str]:
    """Imports of `module` that break a rule, in words."""
    found = []
    part = module.split(".")[1] if "." in module else ""
    for name, line in imported:
        top = name.split(".")[0]
        if top in ("torch", "torchvision", "tensorflow") and module != WITH_TORCH:
            found.append(f"{module}:{line} imports {name}")
        if top in JAX and part in WITHOUT_JAX and top not in may_load(module):
            found.append(f"{module}:{line} imports {name}, which loads jax")
        if top == "vlguard_jax" and "." in name and part and rank(name) < rank(module):
            found.append(f"{module}:{line} imports {name}, against the order")
    return found


def test_imports_follow_the_order() -> None:
    modules = source.modules()
    known = frozenset(modules)
    found = [v for name, path in modules.items() for v in violations(name, list(source.imports(path, known)))]
    assert not found, "\n".join(found)


def test_every_part_has_its_place() -> None:
    """A top-level module is an entry point or stands in ORDER."""
    entries = {"__main__", *(name.split(".")[1] for name in source.entry_points())}
    parts = {name.split(".")[1] for name in source.modules() if "." in name}
    assert parts <= entries | set(RANK), parts - entries - set(RANK)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("vlguard_jax.data.images", "jax.numpy"),
        ("vlguard_jax.data.plan", "grain"),
        ("vlguard_jax.safety.asr", "flax"),
        ("vlguard_jax.safety.asr", "vlguard_jax.training.loop"),
        ("vlguard_jax.families.llama.config", "vlguard_jax.checkpoints.load"),
        ("vlguard_jax.families.llama.config", "jax"),
        ("vlguard_jax.training.loop", "vlguard_jax.train"),
        ("vlguard_jax.checkpoints.load", "torch.nn"),
    ],
)
def test_the_checker_sees_each_kind_of_breach(module: str, imported: str) -> None:
    assert len(violations(module, [(imported, 1)])) == 1


@pytest.mark.parametrize("package", ["data", "safety", "reporting", "endpoints"])
def test_package_loads_without_jax(package: str) -> None:
    """Also through third parties: what they load at import time counts."""
    names = [n for n in source.modules() if n.startswith(f"vlguard_jax.{package}") and n not in ALLOWED]
    code = (
        f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\n"
        "print(sorted({'jax', 'torch', 'transformers', 'grain'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=source.ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
