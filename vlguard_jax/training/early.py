"""What a training's config names, checked before the first source is read, which may take minutes."""

from __future__ import annotations

from vlguard_jax import config
from vlguard_jax.data import cache
from vlguard_jax.data import paths
from vlguard_jax.training import losses
from vlguard_jax.training import probe
from vlguard_jax.training import tracking


def check(settings: config.TrainConfig) -> None:
    """Check all files of the sources, the loss, what draws curves, and what the probes ask.

    Raises:
      UserError: see `paths.check`, `cache.folder`, `losses.get`, `tracking.check` and `probe.check`.
    """
    paths.check(settings)
    cache.folder(settings.data.cache)
    losses.get(settings.loss)
    tracking.check(settings.run)
    probe.check(settings)
