"""A judge's model on the engine: loaded from its folder when it has something to read, gone from the devices after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import math

import jax
import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import spans
from vlguard_jax.generation import engine as engine_lib
from vlguard_jax.safety.judges import guards
from vlguard_jax.safety.judges import local


class Reader:
    """See local.Reader.

    The folder is read once to name its weights and to refuse it early, and again when the judge reads its first answer:
    between the two its weights take no memory.
    """

    def __init__(self, where: str, settings: judge_settings.LocalJudge, mesh: settings_lib.MeshSettings):
        """where: the settings' name, for messages. Raises UserError: as `load.load`, or no such chat template."""
        self._where, self._settings, self._mesh = where, settings, mesh
        self._compute = settings_lib.on_backend(
            settings_lib.EvalPrecisionSettings(settings.compute), jax.default_backend()
        )
        found = self._load()
        self._sizes, self._weights = found.config, found.weights_sha256
        self.tokenizer = vocabulary.answering(found)
        self.context = vocabulary.context(found.extras)
        self.identity = f"{self._weights[:16]} {self._compute}"
        self.asking, self._stop_ids = self._template()
        self._engine: engine_lib.Engine | None = None

    def answers(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """See local.Reader."""
        asked = (self._prompt(i, ids) for i, ids in enumerate(prompts))
        with self._named():
            said = {one.id: one.ids.tolist() for one in self._made().generate(asked)} if prompts else {}
        return [self.tokenizer.decode(said[str(i)]) for i in range(len(prompts))]

    def shares(self, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]]) -> list[list[float]]:
        """See local.Reader."""
        continuations = [np.asarray(word, np.int32) for word in words]
        with self._named():
            return [
                [math.exp(float(scores.sum())) for scores in self._made().score(self._prompt(i, ids), continuations)]
                for i, ids in enumerate(prompts)
            ]

    def close(self) -> None:
        """See local.Reader."""
        self._engine = None

    def _prompt(self, number: int, ids: Sequence[int]) -> types.Prompt:
        return types.Prompt(str(number), np.asarray(ids, np.int32), origin=f"{self._where}: answer {number + 1}")

    def _load(self) -> checkpoint_lib.Checkpoint:
        with self._named():
            return load.opened(self._settings.path, base=self._settings.base)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the judge's settings in a UserError of checkpoints/ or generation/, which know those of `evaluate`."""
        try:
            yield
        except errors.UserError as e:
            said = str(e).replace("config.decode.batch_size", f"{self._where}.batch_size")
            said = said.replace("config.precision.compute", f"{self._where}.compute")
            raise errors.UserError(said if self._where in said else f"{self._where}: {said}") from e

    def _made(self) -> engine_lib.Engine:
        if self._engine is None:
            found = self._load()
            if found.weights_sha256 != self._weights:
                raise errors.UserError(
                    f"{self._where}: the weights in {self._settings.path} have changed since this command began; start"
                    " it again"
                )
            guard = guards.GUARDS.get(self._settings.kind)
            decode = settings_lib.DecodeSettings(
                max_new_tokens=guard.max_new if guard else 1, batch_size=self._settings.batch_size
            )
            config = settings_lib.EvalConfig(decode=decode, mesh=self._mesh)
            self._engine = engine_lib.of_checkpoint(found, self.tokenizer, self._stop_ids, config, self._compute)
        return self._engine

    def _template(self) -> tuple[Callable[[str], str], tuple[int, ...]]:
        """What asks a text of one's own, and the ids that end an answer."""
        if self._settings.kind != "words" or self._settings.template == local.BARE:
            return str, self.tokenizer.stop_ids
        with self._named():
            chosen = choice.template(self._settings.template, jinja_template.DATE, self._sizes, self.tokenizer)
        end = spans.end_id(self.tokenizer, chosen) if isinstance(chosen, jinja_template.JinjaTemplate) else None
        ends = [*self.tokenizer.stop_ids, *([] if end is None else [end])]
        return (lambda text: chosen.prompt(text, 0)), tuple(dict.fromkeys(ends))


def readers(config: settings_lib.EvalConfig) -> dict[str, Reader]:
    """The models of the local judges that `config.judges` names.

    Raises:
      UserError: as `local.make` and `Reader`.
    """
    named = {name: config.local_judges[name] for name in config.judges if name in config.local_judges}
    for name, settings in named.items():
        local.make(name, settings)  # what is wrong with the settings is said before a weight is read
    found = {name: Reader(f"{local.SECTION}.{name}", settings, config.mesh) for name, settings in named.items()}
    for name, settings in named.items():
        local.make(name, settings, found[name])
    return found
