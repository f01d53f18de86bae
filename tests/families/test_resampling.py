from __future__ import annotations

import math

import numpy as np

from tests.data import stand
from vlguard_jax.families import resampling

BITS = 22  # of Pillow's fixed-point weights


def weight(x: float) -> float:
    """Keys' cubic, a = -0.5."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def one_pass(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pillow's src/libImaging/Resample.c along the first axis, in numpy."""
    if len(pixels) == size:
        return pixels
    scale = len(pixels) / size
    stretch = max(scale, 1.0)
    out = np.empty((size, *pixels.shape[1:]), np.uint8)
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - 2 * stretch + 0.5))
        last = min(len(pixels), int(centre + 2 * stretch + 0.5))
        weights = [weight((x - centre + 0.5) / stretch) for x in range(first, last)]
        fixed = [math.floor(w / sum(weights) * (1 << BITS) + 0.5) for w in weights]
        total = np.tensordot(np.asarray(fixed), pixels[first:last].astype(np.int64), 1) + (1 << (BITS - 1))
        out[i] = np.clip(total >> BITS, 0, 255)
    return out


def test_rows_first_whatever_pillow_does():
    sizes = [(1, 1, 5, 7), (1, 40, 30, 1), (40, 1, 1, 30), (90, 200, 60, 3), (200, 90, 3, 60), (50, 50, 50, 20)]
    sizes += [tuple(four) for four in np.random.default_rng(1).integers(1, 120, (40, 4)).tolist()]
    for width, height, wide, high in sizes:
        picture = stand.noise(width, height, width)
        rows = one_pass(np.asarray(picture).swapaxes(0, 1), wide).swapaxes(0, 1)
        np.testing.assert_array_equal(
            np.asarray(resampling.resize(picture, wide, high)),
            one_pass(rows, high),
            err_msg=f"{width} x {height} to {wide} x {high}",
        )
