"""What is asked of an endpoint, and the name under which its reply is kept."""

from __future__ import annotations

import base64
from collections.abc import Mapping
import dataclasses
import hashlib
from typing import Any, Literal

from vlguard_jax import fingerprints
from vlguard_jax.endpoints import settings as settings_lib

# First bytes of the formats that endpoints take.
_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_AROUND = 16  # tokens that a chat template may put around a message


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture: the bytes of its file, which is JPEG, PNG, WebP or GIF (`kind`)."""

    content: bytes

    @property
    def kind(self) -> str:
        """Its media type, "" of a file that endpoints do not take."""
        if self.content[:4] == b"RIFF" and self.content[8:12] == b"WEBP":
            return "image/webp"
        return next((kind for start, kind in _KINDS if self.content.startswith(start)), "")

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.content).hexdigest()


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a conversation: texts and pictures in their order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Picture, ...]


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to an endpoint.

    Attributes:
      id: names it for the caller; not sent, and no part of `key`.
      messages: the conversation.
      max_tokens: of the reply.
      again: 0, or how often the same was asked before: a reply of its own is wanted.
      more: further parameters of the request as JSON values, such as {"response_format": {"type": "json_object"}}.
    """

    id: str
    messages: tuple[Message, ...]
    max_tokens: int
    again: int = 0
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def key(request: Request, settings: settings_lib.EndpointSettings) -> str:
    """Names the reply: sha256 over all that can change it, a picture by its sha256. Equal requests have equal keys."""
    told = [(m.role, [p if isinstance(p, str) else {"sha256": p.sha256} for p in m.parts]) for m in request.messages]
    sees = any(isinstance(part, Picture) for message in request.messages for part in message.parts)
    how = {
        "max_tokens": request.max_tokens,
        "temperature": settings.temperature,
        "detail": settings.detail if sees else "",
        "again": request.again,
        "more": request.more,
    }
    return fingerprints.of(settings.base_url.rstrip("/"), settings.model, told, how)


def body(request: Request, settings: settings_lib.EndpointSettings) -> dict[str, Any]:
    """The request as OpenAI's chat completions take it.

    Raises:
      ValueError: a picture in a format that endpoints do not take.
    """
    sent: dict[str, Any] = {"model": settings.model, settings.limit_name: request.max_tokens, **request.more}
    if settings.temperature >= 0:
        sent["temperature"] = settings.temperature
    sent["messages"] = [{"role": m.role, "content": _content(m.parts, settings.detail)} for m in request.messages]
    return sent


def _content(parts: tuple[str | Picture, ...], detail: str) -> Any:
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [{"type": "text", "text": p} if isinstance(p, str) else _picture(p, detail) for p in parts]


def _picture(picture: Picture, detail: str) -> dict[str, Any]:
    if not picture.kind:
        raise ValueError("a picture that is not JPEG, PNG, WebP or GIF, which is what endpoints take")
    url = f"data:{picture.kind};base64,{base64.b64encode(picture.content).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def dollars(prompt_tokens: int, reply_tokens: int, settings: settings_lib.EndpointSettings) -> float:
    """What so many tokens cost."""
    return (prompt_tokens * settings.input_price + reply_tokens * settings.output_price) / 1e6


def most_dollars(request: Request, settings: settings_lib.EndpointSettings) -> float:
    """What one attempt costs at most: no tokenizer makes more tokens than a text has bytes."""
    tokens = 0
    for message in request.messages:
        tokens += _AROUND
        for part in message.parts:
            tokens += len(part.encode("utf-8", "replace")) if isinstance(part, str) else settings.picture_tokens
    return dollars(tokens, request.max_tokens, settings)
