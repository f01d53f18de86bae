"""What the launch tests render, and where the stored renderings are.

Run as a program it writes them anew: look at the difference.
"""

from __future__ import annotations

import pathlib

from tests import source
from tests.launch import manifests

GOLDEN = pathlib.Path(__file__).with_name("golden")
EXAMPLES = source.ROOT / "launch" / "examples"
SPECS = pathlib.Path(__file__).with_name("specs")

# name of the stored folder -> (target, launch file, files to store; empty: all)
CASES: dict[str, tuple[str, pathlib.Path, tuple[str, ...]]] = {
    **{target: (target, EXAMPLES / "posthoc_7b.toml", ()) for target in ("gke", "xpk", "gce", "tpu-vm", "skypilot")},
    "slurm": ("slurm", EXAMPLES / "h100.toml", ()),
    "gke-sweep": ("gke", EXAMPLES / "sweep.toml", ("vlguard-13b-posthoc-lora-2.yaml", "start.sh", "gather.sh")),
    "tpu-vm-sweep": ("tpu-vm", EXAMPLES / "sweep.toml", ("vlguard-7b-posthoc-0.sh", "start.sh")),
    "gke-gpu": ("gke", SPECS / "gpus.toml", ()),
    "gke-slices": ("gke", SPECS / "slices.toml", ()),
    "tpu-vm-slices": ("tpu-vm", SPECS / "slices.toml", ("two-slices.sh",)),
    "skypilot-gpu": ("skypilot", SPECS / "gpus.toml", ()),
    "gce-host": ("gce", SPECS / "chip.toml", ("one-chip.sh",)),
}


def of(case: str) -> dict[str, str]:
    """All files of a case by name."""
    target, path, _ = CASES[case]
    return manifests.prepare(path, target).files


def stored(case: str) -> dict[str, str]:
    """The files of a case that are stored."""
    names = CASES[case][2]
    return {name: text for name, text in of(case).items() if not names or name in names}


if __name__ == "__main__":
    for case in CASES:
        folder = GOLDEN / case
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, text in stored(case).items():
            (folder / name).write_text(text, encoding="utf-8")
