"""Vision features, projections, merged embeddings, logits and losses against the reference."""

import pathlib

import jax
import numpy as np
import pytest

from tests.golden import reference
from vlguard_jax import types
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.training import losses
from vlguard_jax.training import step

TOLERANCE = 1e-4
MERGED_BATCH = "mixed"  # the batch of logits-*.npz that merged_logits.npz was recorded on


def _mask(npz: np.lib.npyio.NpzFile, key: str, shape: tuple[int, ...]) -> np.ndarray:
    return npz[key].astype(bool) if key in npz else np.ones(shape, bool)


def _rows(golden: pathlib.Path, npz: np.lib.npyio.NpzFile, name: str, info: dict, checkpoint) -> list[batches.Sample]:
    """Each row of a recorded batch as our sample: recorded ids without padding, expanded with the pictures it
    consumes."""
    vision = checkpoint.config.vision
    order = reference.read(golden / "images.json")
    ids, index = npz[f"{name}/input_ids"], npz[f"{name}/image_index"]
    mask = _mask(npz, f"{name}/attention_mask", ids.shape)
    labels = npz[f"{name}/labels"] if f"{name}/labels" in npz else np.full_like(ids, types.IGNORE_LABEL)
    consumed, samples = 0, []
    for row in range(len(ids)):
        tokens = types.Tokens(ids[row][mask[row]].astype(np.int32), labels[row][mask[row]].astype(np.int32))
        tags = int((tokens.ids == types.IMAGE_TOKEN).sum())
        used = index[consumed : consumed + tags] if tags else []
        consumed += max(tags, 1)  # a row without a picture consumes a slot too
        pictures = [reference.picture(golden, order[i], info["image_mode"], checkpoint.config) for i in used]
        # The reference's first cut already happened in the collator; merged length is bounded by its second one.
        sample = batches.expand(tokens, [vision.num_patches] * tags, None, None)
        limit = info["max_length"]
        sample = batches.Sample(
            sample.tokens[:limit], sample.labels[:limit], sample.picture[:limit], sample.place[:limit]
        )
        samples.append(reference.with_pictures(sample, pictures))
    return samples


def _batch(
    samples: list[batches.Sample], model: llava_config.LlavaConfig, alike: list[list[batches.Sample]]
) -> types.Batch:
    """One conversation a row, the mean over supervised tokens as loss.

    Of one shape for all of `alike`: one compilation.
    """
    weight = 1.0 / max(sum(s.num_supervised for s in samples), 1)
    rows = [[s] for s in samples] + [[]] * (max(len(other) for other in alike) - len(samples))
    pictures = max(sum(s.num_pictures for s in other) for other in alike)
    return batches.collate(
        rows,
        [[weight] * len(row) for row in rows],
        row_len=max(len(s.tokens) for other in alike for s in other),
        room=family.Room(pictures, pictures * model.vision.num_patches),
        model=model,
    )


def test_vision_features_and_projections(golden: pathlib.Path) -> None:
    seen = 0
    for variant in reference.variants(golden):
        checkpoint = reference.load(golden, f"liuhaotian-{variant}")
        npz = np.load(golden / f"logits-{variant}.npz")
        model = functional.Model(checkpoint.config, "fp32")
        vision = checkpoint.config.vision
        names = reference.read(golden / "images.json")
        pictures = [reference.picture(golden, name, "pad", checkpoint.config) for name in names]
        pixels = np.concatenate([picture.arrays["images"] for picture in pictures])
        with model.precision():
            features = model._merged(checkpoint.params).vision(clip.normalize(jax.numpy.asarray(pixels), vision))
        projected = jax.jit(model.features)(checkpoint.params, {"images": pixels})
        projected = projected.reshape(len(names), vision.num_patches, -1)
        for key, ours in (("vision/features", features), ("vision/projected", projected)):
            if key in npz:
                seen += 1
                np.testing.assert_allclose(
                    np.asarray(ours), npz[key], rtol=0, atol=TOLERANCE, err_msg=f"{variant} {key}"
                )
    assert seen, "no recorded features"


def _check_row(
    npz: np.lib.npyio.NpzFile, name: str, row: int, sample: batches.Sample, logits: np.ndarray, embeds: np.ndarray
) -> float:
    """Labels, embeddings, log-sum-exp, arg max and logits of one row; returns the largest logit difference."""
    valid = np.flatnonzero(_mask(npz, f"{name}/merged_attention_mask", npz[f"{name}/logsumexp"].shape)[row])
    where, ours = f"{name} row {row}", logits[: len(valid)]
    assert len(valid) == len(sample.tokens), where
    if f"{name}/merged_labels" in npz:
        np.testing.assert_array_equal(sample.labels, npz[f"{name}/merged_labels"][row][valid], err_msg=where)
    if f"{name}/inputs_embeds" in npz:
        np.testing.assert_allclose(
            embeds[: len(valid)], npz[f"{name}/inputs_embeds"][row][valid], rtol=0, atol=TOLERANCE, err_msg=where
        )
    lse = np.asarray(jax.nn.logsumexp(ours, axis=-1))
    np.testing.assert_allclose(lse, npz[f"{name}/logsumexp"][row][valid], rtol=0, atol=TOLERANCE, err_msg=where)
    best, theirs = ours.argmax(-1), npz[f"{name}/argmax"][row][valid]
    gap = ours[np.arange(len(valid)), best] - ours[np.arange(len(valid)), theirs]
    assert (gap <= TOLERANCE).all(), f"{where}: arg max differs by {gap.max()}"
    worst = 0.0
    for position, recorded in zip(npz[f"{name}/positions"][row], npz[f"{name}/logits"][row], strict=True):
        if position in valid:
            at = int(np.searchsorted(valid, position))
            np.testing.assert_allclose(
                ours[at], recorded, rtol=0, atol=TOLERANCE, err_msg=f"{where} position {position}"
            )
            worst = max(worst, float(np.abs(ours[at] - recorded).max()))
    return worst


@pytest.mark.parametrize(
    "execution",
    [execution_lib.Execution(), execution_lib.Execution(remat="full", unroll=2)],
    ids=["scan", "remat-unroll"],
)
@pytest.mark.parity
def test_logits_labels_and_losses(golden: pathlib.Path, execution: execution_lib.Execution) -> None:
    worst = []
    for variant in reference.variants(golden):
        checkpoint = reference.load(golden, f"liuhaotian-{variant}")
        npz = np.load(golden / f"logits-{variant}.npz")
        model = functional.Model(checkpoint.config, "fp32", execution=execution)

        def run(
            params: functional.Params, batch: types.Batch, model: functional.Model = model
        ) -> tuple[jax.Array, ...]:
            with model.precision():
                embeds = model._embedded(model._merged(params), batch)
            return (
                model.logits(params, batch),
                embeds,
                losses.cross_entropy(model, params, batch, losses.Extras({}, chunk=2**20))[0],
            )

        infos = reference.read(golden / f"logits-{variant}.json")["batches"]
        assert infos
        rows = {name: _rows(golden, npz, name, info, checkpoint) for name, info in infos.items()}
        compiled = jax.jit(run)
        for name, samples in rows.items():
            total = sum(s.num_supervised for s in samples)
            batch = _batch(samples, checkpoint.config, list(rows.values()))
            logits, embeds, loss = (np.asarray(x) for x in compiled(checkpoint.params, batch))
            worst += [
                _check_row(npz, name, row, sample, logits[row], embeds[row]) for row, sample in enumerate(samples)
            ]
            if f"{name}/loss" in npz:
                # Nothing supervised: the reference's mean over no token is NaN, ours is a sum of nothing.
                recorded = npz[f"{name}/loss"] if total else 0.0
                np.testing.assert_allclose(loss, recorded, rtol=0, atol=TOLERANCE, err_msg=f"{variant} {name}")
    print(f"largest logit difference {max(worst):.2e} in {len(worst)} rows")
    assert any(worst), "no recorded logits"


@pytest.mark.parity
def test_gradients(golden: pathlib.Path) -> None:
    """Loss, norm and sum of every trainable tensor's gradient, and the recorded whole gradients."""
    for variant in reference.variants(golden):
        recorded = reference.read(golden / f"grads-{variant}.json")
        checkpoint = reference.load(golden, f"liuhaotian-{variant}")
        npz = np.load(golden / f"logits-{variant}.npz")
        info = reference.read(golden / f"logits-{variant}.json")["batches"][recorded["batch"]]
        samples = _rows(golden, npz, recorded["batch"], info, checkpoint)
        batch = _batch(samples, checkpoint.config, [samples])
        model = functional.Model(checkpoint.config, "fp32")
        trained, frozen = step.split(checkpoint.params, checkpoint.config, None)

        def loss(
            t: functional.Params, f: functional.Params, b: types.Batch, model: functional.Model = model
        ) -> jax.Array:
            return losses.cross_entropy(model, step.join(t, f), b, losses.Extras({}))[0]

        value, grads = jax.jit(jax.value_and_grad(loss))(trained, frozen, batch)
        np.testing.assert_allclose(float(value), recorded["loss"], rtol=0, atol=TOLERANCE, err_msg=variant)
        ours = {
            name: g.astype(np.float64) for name, g in reference.named_tensors(grads, checkpoint.config, None).items()
        }
        assert set(ours) == set(recorded["norms"]), variant
        for name, norm in recorded["norms"].items():
            np.testing.assert_allclose(np.linalg.norm(ours[name]), norm, rtol=1e-3, err_msg=f"{variant} {name}")
            np.testing.assert_allclose(
                ours[name].sum(), recorded["sums"][name], rtol=0, atol=1e-3 * norm, err_msg=f"{variant} {name}"
            )
        with np.load(golden / f"grads-{variant}.npz") as whole:
            assert whole.files
            for name in whole.files:
                np.testing.assert_allclose(ours[name], whole[name], rtol=0, atol=TOLERANCE, err_msg=f"{variant} {name}")
        norm = np.sqrt(sum(np.linalg.norm(g) ** 2 for g in ours.values()))
        np.testing.assert_allclose(norm, recorded["total_norm"], rtol=1e-3, err_msg=variant)


@pytest.mark.parity
def test_adapters_apart_and_merged_give_the_recorded_logits(golden: pathlib.Path) -> None:
    folders = sorted(path.parent for path in golden.glob("train/*/merged_logits.npz"))
    assert folders, "no recorded adapters"
    for folder in folders:
        base = reference.read(folder / "run.json")["model"]
        variant = base.removeprefix("liuhaotian-")
        apart = load.load(folder, base=str(golden / base), dtype=np.float32)
        batches_ = np.load(golden / f"logits-{variant}.npz")
        info = reference.read(golden / f"logits-{variant}.json")["batches"][MERGED_BATCH]
        samples = _rows(golden, batches_, MERGED_BATCH, info, apart)
        batch = _batch(samples, apart.config, [samples])
        recorded = np.load(folder / "merged_logits.npz")
        for checkpoint in (apart, lora.merge(apart)):
            where = f"{folder.name} {'merged' if checkpoint.lora is None else 'apart'}"
            model = functional.Model(checkpoint.config, "fp32", checkpoint.lora)
            logits = np.asarray(jax.jit(model.logits)(checkpoint.params, batch))
            value = jax.jit(lambda p, b, model=model: losses.cross_entropy(model, p, b, losses.Extras({}))[0])(
                checkpoint.params, batch
            )
            np.testing.assert_allclose(float(value), float(recorded["loss"]), rtol=0, atol=TOLERANCE, err_msg=where)
            for row, sample in enumerate(samples):
                for position, theirs in zip(recorded["positions"][row], recorded["logits"][row], strict=True):
                    if 0 <= position < len(sample.tokens):
                        np.testing.assert_allclose(logits[row, position], theirs, rtol=0, atol=TOLERANCE, err_msg=where)
