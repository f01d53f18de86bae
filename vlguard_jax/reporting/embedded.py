"""Pictures inside a page."""

from __future__ import annotations

import base64
import dataclasses
import io

from PIL import Image

SIDE = 360  # pixels of a picture's longer side in the page
TINY = 96  # up to here a picture is shown with its pixels enlarged


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture for the page: a data URI and its size there, or why there is none (`trouble`)."""

    uri: str = ""
    width: int = 0
    height: int = 0
    tiny: bool = False
    trouble: str = ""


def embed(picture: Image.Image, side: int = SIDE) -> Picture:
    """An RGB picture as a data URI; one longer than `side` pixels is shrunk, in place."""
    tiny = max(picture.size) <= TINY
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    scale = max(1, 192 // max(picture.size)) if tiny else 1
    buffer = io.BytesIO()
    if tiny:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=82)
    kind = "png" if tiny else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri, picture.width * scale, picture.height * scale, tiny)
