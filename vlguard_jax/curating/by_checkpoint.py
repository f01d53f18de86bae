"""A checkpoint of one's own as the model that labels and writes, on the generation engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.checkpoints import load
from vlguard_jax.curating import answering
from vlguard_jax.curating import settings as curate_lib
from vlguard_jax.data import images
from vlguard_jax.families import table
from vlguard_jax.families.chat import conversations
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import model as model_lib


class ByCheckpoint:
    """A loaded model."""

    def __init__(self, model: model_lib.Model, settings: settings_lib.ModelSettings):
        """Raises UserError: it sees no pictures, or has no such template or image mode."""
        if model.sees is None:
            raise errors.UserError(
                f"config.model.path={settings.path}: a language model without a vision tower cannot see the pictures"
            )
        self._model, self._template = model, model.template(settings)
        self._mode = table.image_mode(model.sizes, settings.image_mode)

    def answer(self, requests: Iterable[answering.Request]) -> Iterator[answering.Answer]:
        """See `answering.Answerer`. Raises UserError: a picture that cannot be read, or a prompt beyond the context."""
        lengths: dict[str, int] = {}
        for made in self._model.engine().generate(self._prompts(requests, lengths)):
            text = self._model.tokenizer.decode(made.ids.tolist())
            yield answering.Answer(
                made.id, text, made.finish_reason, self._model.name, lengths.pop(made.id), len(made.ids)
            )

    def _prompts(self, requests: Iterable[answering.Request], lengths: dict[str, int]) -> Iterator[types.Prompt]:
        for one in requests:
            ids = conversations.tokenize_prompt(one.text, 1, self._model.tokenizer, self._template, one.name)
            one.content()  # is it the picture that was scanned?
            picture = images.load(one.path, self._model.sizes, self._mode, origin=one.name)
            lengths[one.key] = len(ids) - 1 + picture.extent.slots
            yield types.Prompt(one.key, ids, (picture,), one.name)


def make(config: curate_lib.CurateConfig) -> ByCheckpoint:
    """Load the model of `config.model`. Raises UserError: as `load.opened`, and as `ByCheckpoint`."""
    m = config.model
    loaded = load.opened(m.path, base=m.base, vision_tower=m.vision_tower, projector=m.projector, as_family=m.family)
    asked = settings_lib.EvalConfig(
        seed=config.seed, model=m, precision=config.precision, decode=config.decode, mesh=config.mesh
    )
    return ByCheckpoint(from_checkpoint.as_model(loaded, asked), m)
