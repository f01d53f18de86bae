"""Makes a golden folder from a Hugging Face folder with transformers and PyTorch, which only this module imports, and
only when asked to: on CPU in fp32, without code of the folder's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
from importlib import metadata
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import outline
from vlguard_jax.families import table
from vlguard_jax.verifying import golden
from vlguard_jax.verifying import questions

_PLAIN = ("USER: {}{} ASSISTANT:", "<image>\n")  # for a folder without a chat template
_TAG = {True: [{"type": "image"}], False: []}


def make(source: str, folder: pathlib.Path) -> golden.Golden:
    """Ask the model of a llava-hf, LLaVA-NeXT or Llama folder (or hub id), and write the golden folder.

    Raises:
      UserError: PyTorch is not installed, the folder is of another layout or transformers cannot load it, or `folder`
        is there already.
    """
    torch, transformers = _libraries()
    where = hub.resolve(source)
    if not (where / "config.json").is_file():
        raise errors.UserError(f"{where}: no config.json; --make_golden takes a folder that transformers loads")
    if folder.exists():
        raise errors.UserError(f"{folder} is there already; remove it, or name another folder")
    sizes = outline.read(where).config
    sees = table.of(sizes).pictures is not None
    with _loading(where), torch.no_grad():
        auto = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        model = auto.from_pretrained(
            where, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False
        ).eval()
        processor = _processor(transformers, where, sees=sees)
        asked = [one for one in questions.QUESTIONS if sees or one.size is None]
        answers = [_answer(torch, model, processor, one, sizes.text.vocab_size) for one in asked]
    golden.write(
        folder,
        answers,
        source=str(source),
        model=type(model).__name__,
        rows=sizes.text.vocab_size,
        stops=_stops(model),
        versions={name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "pillow")},
        files=golden.hashes(where),
    )
    return golden.read(folder)


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as e:
        raise errors.UserError(
            f"--make_golden asks the model with PyTorch, which is not installed here ({e}): pip install torch"
            " transformers, or make the golden folder on another machine and compare here with --golden"
        ) from e
    return torch, transformers


@contextlib.contextmanager
def _loading(where: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except errors.UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as e:
        raise errors.UserError(f"{where}: transformers cannot load or ask this model: {type(e).__name__}: {e}") from e


def _processor(transformers: Any, where: pathlib.Path, *, sees: bool) -> Any:
    """The folder's processor, or its tokenizer: of the class that the folder names, for which AutoTokenizer takes
    another one that leaves out the first space piece."""
    how = {"local_files_only": True, "trust_remote_code": False}
    path = where / "tokenizer_config.json"
    named = files.read_object(path).get("tokenizer_class") if path.is_file() else None
    kind = getattr(transformers, str(named), None)
    words = kind if str(named).endswith(("Tokenizer", "TokenizerFast")) and kind else transformers.AutoTokenizer
    if not sees:
        return words.from_pretrained(where, **how)
    processor = transformers.AutoProcessor.from_pretrained(where, backend="pil", **how)  # resizes as the reference does
    processor.image_processor.__class__ = _rows_first(type(processor.image_processor))
    template, processor.tokenizer = processor.chat_template, words.from_pretrained(where, **how)
    processor.chat_template = template
    return processor


def _rows_first(kind: type[Any]) -> type[Any]:
    """The class of an image processor that resizes along the rows first with any version of Pillow, as those did with
    which the published models were trained (families/resampling.py)."""

    class RowsFirst(kind):
        """See above."""

        def resize(self, image: np.ndarray, size: Any, **options: Any) -> np.ndarray:
            """As transformers; image: [C, H, W]."""
            if size.height:
                image = super().resize(image, type(size)(height=image.shape[1], width=size.width), **options)
            return super().resize(image, size, **options)

    return RowsFirst


def _stops(model: Any) -> list[int]:
    named = model.generation_config.eos_token_id
    found = named if isinstance(named, list) else [] if named is None else [named]
    return [int(id_) for id_ in found]


def _text(processor: Any, question: questions.Question, *, sees: bool) -> tuple[str, bool]:
    """The prompt's text, and whether the folder's chat template wrote it."""
    shown = question.size is not None
    if not getattr(processor, "chat_template", None):
        return _PLAIN[0].format(_PLAIN[1] if shown else "", question.text), False
    content: Any = [*_TAG[shown], {"type": "text", "text": question.text}] if sees else question.text
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False), True


def _inputs(processor: Any, text: str, picture: np.ndarray | None, *, templated: bool, sees: bool) -> Mapping[str, Any]:
    if not sees:
        return processor(text, add_special_tokens=not templated, return_tensors="pt")
    shown = None if picture is None else [Image.fromarray(picture)]
    return processor(text=text, images=shown, return_tensors="pt")


def _answer(torch: Any, model: Any, processor: Any, question: questions.Question, rows: int) -> golden.Answer:
    sees = hasattr(processor, "image_processor")
    picture = questions.drawn(question.size) if question.size else None
    text, templated = _text(processor, question, sees=sees)
    inputs = {name: one for name, one in _inputs(processor, text, picture, templated=templated, sees=sees).items()}
    ids = inputs["input_ids"][0]
    surplus = [i for i in range(rows, model.config.get_text_config().vocab_size)]
    found = model.generate(
        **inputs,
        max_new_tokens=questions.NEW,
        min_new_tokens=1,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        suppress_tokens=surplus or None,
        pad_token_id=0,
        return_dict_in_generate=True,
    )
    answer = found.sequences[0, len(ids) :]
    projected: list[Any] = []
    whole = {**inputs, "input_ids": found.sequences[:, :-1], "attention_mask": torch.ones_like(found.sequences[:, :-1])}
    with _projected(model, projected):
        logits = model(**{name: one for name, one in whole.items() if name != "token_type_ids"}).logits[0, :, :rows]
    first = max(0, len(ids) - 1 - questions.LAST)
    answered = logits[len(ids) - 1 :]
    best = answered.topk(2).values
    pixels = inputs["pixel_values"].reshape(-1, *inputs["pixel_values"].shape[-3:]) if picture is not None else None
    one_each = "image_sizes" not in inputs and projected
    asked = golden.Asked(
        question.name,
        question.text,
        int(picture is not None),
        templated,
        text,
        processor.decode(answer, skip_special_tokens=True),
    )
    return golden.Answer(
        asked,
        ids=_one_each(ids.tolist(), getattr(model.config, "image_token_id", None)),
        answer=answer.numpy().astype(np.int32),
        logits=logits[first:].numpy(),
        margins=(best[:, 0] - best[:, 1]).numpy(),
        picture=picture,
        pixels=None if pixels is None else pixels.numpy(),
        features=projected[0].reshape(-1, projected[0].shape[-1]).numpy() if one_each and picture is not None else None,
    )


@contextlib.contextmanager
def _projected(model: Any, into: list[Any]) -> Iterator[None]:
    """Put what the projector makes into a list."""
    part = next((one for name, one in model.named_modules() if name.endswith("multi_modal_projector")), None)
    if part is None:
        yield
        return
    hook = part.register_forward_hook(lambda module, given, made: into.append(made))
    try:
        yield
    finally:
        hook.remove()


def _one_each(ids: list[int], image: int | None) -> np.ndarray:
    """Ids with one IMAGE_TOKEN for each run of a picture's places."""
    kept: list[int] = []
    for id_ in ids:
        token = types.IMAGE_TOKEN if id_ == image else id_
        if token != types.IMAGE_TOKEN or not kept or kept[-1] != token:
            kept.append(token)
    return np.asarray(kept, np.int32)
