"""Resizing pictures as the references did, with any version of Pillow."""

from __future__ import annotations

from PIL import Image


def resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """`picture` resized (bicubic) along its rows first, then along its columns.

    Pillow up to version 12 resizes in these two passes. From version 13 on it takes the columns first where that is
    less work, which rounds otherwise: called one by one, the passes give the same pixels with both. On the way `width`
    x the picture's height pixels are held.
    """
    for size in ((width, picture.height), (width, height)):
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture
