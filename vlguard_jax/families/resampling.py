"""Resizing pictures as the references did, with any version of Pillow."""

from __future__ import annotations

from PIL import Image


def resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """`picture` resized (bicubic) along its rows first, then along its columns.

    Pillow up to version 12 resizes in these two passes. From version 13 on it starts with the columns where that is
    less work, which rounds differently; called separately, the passes give the same pixels with both. In between,
    `width` x the picture's height pixels are in memory.
    """
    for size in ((width, picture.height), (width, height)):
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture
