"""Recorded checkpoints of the reference: read, carried through every layout, and computed with by transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import json
import pathlib
from typing import Any

import numpy as np
import torch
import transformers

from tests.checkpoints import tiny
from tests.golden import reference
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families.blocks import config_json as blocks_json
from vlguard_jax.families.llava import config_json
from vlguard_jax.types import IMAGE_TOKEN

TOLERANCE = 1e-4  # logits, as golden/README suggests


def checkpoints(golden: pathlib.Path) -> list[pathlib.Path]:
    found = sorted([*golden.glob("liuhaotian-*"), *golden.glob("llava-hf-*")])
    assert found
    return found


def adapters(golden: pathlib.Path) -> list[pathlib.Path]:
    found = sorted(path.parent for path in golden.glob("train/*/adapter_config.json"))
    assert found
    return found


def test_torch_files_are_read_as_torch_reads_them(golden: pathlib.Path) -> None:
    files = sorted(golden.rglob("*.bin"))
    assert files
    for path in files:
        found = {name: tensor.read() for name, tensor in tensors.open_file(path).items()}
        expected = {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
        assert list(found) == list(expected)
        tiny.assert_same_arrays(found, expected)


def test_both_layouts_hold_the_same_model(golden: pathlib.Path) -> None:
    pairs = [(p, p.parent / p.name.replace("llava-hf-", "liuhaotian-")) for p in golden.glob("llava-hf-*")]
    assert pairs
    for hf, original in pairs:
        tiny.assert_same_model(load.load(hf), load.load(original))


def test_the_tower_comes_from_its_folder(golden: pathlib.Path) -> None:
    (tower,) = [path for path in (golden / "vision_tower").iterdir() if path.is_dir()]
    stored = {name: t.read() for name, t in tensors.open_folder(tower).items()}
    for variant in reference.variants(golden):
        path = golden / f"liuhaotian-{variant}"
        model = load.load(path)
        tiny.assert_same_model(load.load(path, vision_tower=str(tower)), model)
        np.testing.assert_array_equal(
            model.params["vision"]["positions"], stored["vision_model.embeddings.position_embedding.weight"]
        )
        tiny.assert_same_model(load.load(path, projector=str(path / "mm_projector.bin")), model)


def test_every_checkpoint_goes_through_every_layout(golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    writers: dict[str, Callable[..., None]] = {"llava": save.save_llava, "hf": save.save_hf, "orbax": save.save_orbax}
    for source in checkpoints(golden):
        model = load.load(source)
        for first, write in writers.items():
            folder = tmp_path / f"{source.name}-{first}"
            write(model, folder)
            carried = load.load(folder)
            tiny.assert_same_model(carried, model)
            save.save_hf(carried, tmp_path / f"{source.name}-{first}-hf")
            tiny.assert_same_model(load.load(tmp_path / f"{source.name}-{first}-hf"), model)
            if source.name.startswith("llava-hf-") and first != "llava":
                tiny.assert_same_arrays(tiny.read_all(tmp_path / f"{source.name}-{first}-hf"), tiny.read_all(source))


def test_adapters_are_saved_as_the_reference_saves_them(golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for source in adapters(golden):
        model = load.load(source)
        folder = tmp_path / source.name
        save_adapters.save_peft(model, folder)
        for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
            found, expected = (tensors.open_file(path / name) for path in (folder, source))
            tiny.assert_same_arrays({k: t.read() for k, t in found.items()}, {k: t.read() for k, t in expected.items()})
        for name in ("adapter_config.json", "config.json"):
            found, expected = (json.loads((path / name).read_text()) for path in (folder, source))
            for config in (found, expected):  # a set, in no order
                config["target_modules"] = sorted(config.get("target_modules", []))
            own = found.pop("vlguard_jax", None)  # says which base this is, and is left alone by others
            assert found == expected and (own == {"base_sha256": model.base.sha256} or name != "config.json")
        base = golden / json.loads((source / "adapter_config.json").read_text())["base_model_name_or_path"]
        tiny.assert_same_model(load.load(folder, base=str(base)), model)


def recorded_rows(
    golden: pathlib.Path, variant: str, batch: str, patches: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(row, offset of its first token, expanded ids, pixels) of a recorded batch, without rows that were cut inside a
    picture."""
    about = reference.read(golden / f"logits-{variant}.json")["batches"][batch]
    arrays, stored = np.load(golden / f"logits-{variant}.npz"), np.load(golden / "pixel_values.npz")
    slots = iter(about["images"])
    input_ids = arrays[f"{batch}/input_ids"]
    masks = arrays[f"{batch}/attention_mask"] if f"{batch}/attention_mask" in arrays else np.ones_like(input_ids)
    for row, (ids, mask) in enumerate(zip(input_ids, masks, strict=True)):
        kept = ids[mask.astype(bool)]
        tags = int((kept == IMAGE_TOKEN).sum())
        pictures = [next(slots) for _ in range(max(tags, 1))][:tags]  # a row without tag takes a slot as well
        expanded = np.repeat(kept, np.where(kept == IMAGE_TOKEN, patches, 1))
        merged = arrays[f"{batch}/argmax"][row] >= 0  # -1 on padding
        cut = expanded[: merged.sum()]
        if (cut == IMAGE_TOKEN).sum() == patches * tags:
            pixels = [stored[f"pixel_values/{about['image_mode']}/{name}"] for name in pictures]
            yield row, int(merged.argmax()), cut, np.array(pixels, np.float32)


def assert_logits(
    golden: pathlib.Path, model: Any, variant: str, batch: str, expected: Mapping[str, np.ndarray]
) -> int:
    """Compare transformers' logits at the recorded positions; returns the number of rows compared."""
    tower = model.config.vision_config
    rows = 0
    for row, offset, ids, pixels in recorded_rows(golden, variant, batch, (tower.image_size // tower.patch_size) ** 2):
        tokens = torch.tensor(np.where(ids == IMAGE_TOKEN, model.config.image_token_index, ids))[None]
        with torch.no_grad():
            found = (
                model(input_ids=tokens, pixel_values=torch.tensor(pixels) if len(pixels) else None).logits[0].numpy()
            )
        positions = expected["positions"][row] - offset
        inside = (positions >= 0) & (positions < len(ids))
        assert inside.any()
        wanted = expected["logits"][row][inside]
        np.testing.assert_allclose(found[positions[inside]][:, : wanted.shape[-1]], wanted, atol=TOLERANCE, rtol=0)
        rows += 1
    return rows


def transformers_model(folder: pathlib.Path) -> Any:
    return transformers.LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def test_transformers_computes_the_recorded_logits(golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for variant in reference.variants(golden):
        save.save_hf(load.load(golden / f"liuhaotian-{variant}"), tmp_path / variant)
        model = transformers_model(tmp_path / variant)
        arrays = np.load(golden / f"logits-{variant}.npz")
        batches = sorted(name.removesuffix("/logits") for name in arrays if name.endswith("/logits"))
        rows = 0
        for batch in batches:
            expected = {name: arrays[f"{batch}/{name}"] for name in ("positions", "logits")}
            rows += assert_logits(golden, model, variant, batch, expected)
        assert rows >= len(batches) // 2
        recorded = golden / f"llava-hf-{variant}"
        if recorded.is_dir():
            states = [{k: v.numpy() for k, v in m.state_dict().items()} for m in (model, transformers_model(recorded))]
            tiny.assert_same_arrays(*states)


def test_merged_adapters_give_the_recorded_logits(golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for source in adapters(golden):
        variant = json.loads((source / "adapter_config.json").read_text())["base_model_name_or_path"].removeprefix(
            "liuhaotian-"
        )
        save.save_hf(lora.merge(load.load(source, dtype=np.float32)), tmp_path / source.name)
        expected = np.load(source / "merged_logits.npz")
        assert assert_logits(golden, transformers_model(tmp_path / source.name), variant, "mixed", expected)


def test_the_processor_of_a_saved_folder(golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Ids of the two added tokens, and the picture constants, as the recorded llava-hf folder has them."""
    for variant in reference.variants(golden):
        model = load.load(golden / f"liuhaotian-{variant}")
        save.save_hf(model, tmp_path / variant)
        tokenizer = transformers.LlamaTokenizer.from_pretrained(tmp_path / variant)
        vocab = model.config.text.vocab_size
        assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [vocab, vocab + 1]
        assert tokenizer.pad_token == "<pad>"
        rows = tiny.read_all(tmp_path / variant)["language_model.lm_head.weight"].shape[0]
        assert rows == config_json.padded(vocab + 2)
        assert trees.flatten(model.params)["text.head.kernel"].shape[1] == vocab
        vision = blocks_json.read_preprocessor(tmp_path / variant)[0]
        for recorded in golden.glob(f"llava-hf-{variant}"):
            assert vision is not None
            expected = json.loads((recorded / "preprocessor_config.json").read_text())
            assert {k: v for k, v in expected.items() if k in vision} == vision


def test_what_others_wrote_is_known_as_checkpoints(golden: pathlib.Path) -> None:
    for folder in (*golden.glob("l*-*ha"), *golden.glob("l*-gqa"), *(golden / "vision_tower").iterdir()):
        assert not place._foreign(folder, place._FILES), folder
