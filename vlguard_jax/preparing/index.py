"""`prepare index`: counts what a training config would train on, before any weight or pixel is loaded."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.data import mixtures
from vlguard_jax.preparing import index_figures
from vlguard_jax.preparing import opened
from vlguard_jax.reporting import page
from vlguard_jax.training import conversations


def run(settings: config.TrainConfig, *, shards: int = 1, json_file: str = "", bad_file: str = "") -> None:
    """Print the figures of every source and of the batch plan on `shards` row shards.

    Args:
      json_file: write the same figures to this file.
      bad_file: instead of stopping at the first unusable record or picture, leave such records out and list all of them
        in this file, one JSON line each.

    Raises:
      UserError: as `opened.open_mixture` and `conversations.plan`, or a file cannot be written.
    """
    console = terminal.console()
    if bad_file:
        on_mismatch = "ignore" if settings.data.on_mismatch == "error" else settings.data.on_mismatch
        data = dataclasses.replace(settings.data, on_bad_record="skip", on_mismatch=on_mismatch)
        settings = dataclasses.replace(settings, data=data)
    found = opened.open_mixture(settings, console)
    if bad_file:
        _list(found.mixture, pathlib.Path(bad_file))
        console.print(f"{len(found.mixture.drops):,} records that cannot be used are listed in {bad_file}")
    report = index_figures.measure(found.mixture)
    index_figures.show(report, console)
    console.print(_origin(found))
    made = conversations.plan(settings, found.mixture, shards)
    plan = index_figures.plan(made, conversations.updates(settings, made))
    index_figures.show_plan(plan, console)
    if json_file:
        more = {"seconds": round(found.seconds, 3), "files_counted": found.counted, "cache": str(found.cache)}
        page.save(pathlib.Path(json_file), json.dumps(index_figures.as_json(report, plan, **more), indent=1) + "\n")
        console.print(f"wrote {json_file}")


def _list(mixture: mixtures.Mixture, path: pathlib.Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mixtures.write_drops(mixture.drops, path)
    except OSError as e:
        raise errors.UserError(f"{path} cannot be written: {e.strerror}; choose another file") from e


def _origin(found: opened.Opened) -> str:
    if not found.counted:
        return f"{found.seconds:.1f} s; all from the cache {found.cache}"
    files = "1 file" if found.counted == 1 else f"{found.counted} files"
    return f"{found.seconds:.1f} s, {files} counted; the counts are kept in {found.cache}"
