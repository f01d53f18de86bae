"""Who answers: a model behind an endpoint, or a checkpoint on the engine. Both are asked one text about one picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import hashlib
import io
import pathlib
from typing import Any, Protocol

from PIL import Image

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import limits
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.data import images
from vlguard_jax.endpoints import asking as endpoint_lib
from vlguard_jax.endpoints import client as client_lib
from vlguard_jax.endpoints import request as request_lib

WHERE = "config.endpoint"
FOLDER = "endpoint"  # below the working directory: what was asked and paid
REFUSED, REJECTED, CUT = "refused", "rejected", endpoint_lib.CUT  # finish reasons with a meaning here
SENT_AS_IT_IS = ("JPEG", "PNG")  # formats that every endpoint takes
_JPEG_QUALITY = 92
_NO_REPLY = (client_lib.REJECTED, client_lib.MALFORMED)


@dataclasses.dataclass(frozen=True)
class Request:
    """key: names the answer. name: of the picture, for messages. sha256: of its file when it was scanned."""

    key: str
    text: str
    name: str
    path: pathlib.Path
    sha256: str

    def content(self) -> bytes:
        """The picture's file.

        Raises:
          UserError: it is not the one any more that was scanned: a reply would be kept under the other's name.
        """
        found = files.read_bytes(self.path, limits.PICTURE_BYTES)
        if hashlib.sha256(found).hexdigest() != self.sha256:
            raise errors.UserError(f"{self.path}: was changed while this ran; run this again")
        return found


@dataclasses.dataclass(frozen=True)
class Answer:
    """key: of the request. finish_reason: "stop", or one of the constants above. model: who answered, by its own word.
    prompt_tokens, reply_tokens: None where nobody counted them."""

    key: str
    text: str
    finish_reason: str
    model: str
    prompt_tokens: int | None = None
    reply_tokens: int | None = None


class Answerer(Protocol):
    """Answers requests, in any order."""

    def answer(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Raises UserError where some have no answer; those before have been yielded."""
        ...


class ByEndpoint:
    """A model behind an endpoint."""

    def __init__(self, endpoint: endpoint_lib.Endpoint, config: settings_lib.CurateConfig, form: Any):
        """form: of the reply, for `response_format`; None: any."""
        self._endpoint, self._config = endpoint, config
        self._more = {"response_format": form} if form else {}

    def answer(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """See `Answerer`. What the server rejects, or replies to in no readable form however often it is asked, is an
        answer of its own, once others of the same run were not."""
        failures: list[endpoint_lib.Failure] = []
        works = False
        for outcome in self._endpoint.ask(self._request(one) for one in requests):
            if isinstance(outcome, endpoint_lib.Failure):
                failures.append(outcome)
                continue
            works = True
            reason = REFUSED if outcome.refused else outcome.finish_reason
            yield Answer(outcome.id, outcome.text, reason, outcome.model, outcome.prompt_tokens, outcome.reply_tokens)
        rejected = [one for one in failures if works and one.kind in _NO_REPLY]
        for one in rejected:
            yield Answer(one.id, one.told, REJECTED, self._config.endpoint.model)
        if lost := [one for one in failures if one not in rejected]:
            raise endpoint_lib.unanswered(lost, WHERE)

    def _request(self, one: Request) -> request_lib.Request:
        picture = request_lib.Picture(sent(one.content(), self._config.side, one.path))
        message = request_lib.Message("user", (picture, one.text))
        return request_lib.Request(one.key, (message,), self._config.decode.max_new_tokens, more=self._more)


def sent(content: bytes, side: int, path: pathlib.Path) -> bytes:
    """A picture as it is sent: its own file `content`, or where that is large or of another format, a JPEG of at most
    `side` pixels a side. path: for messages.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.format in SENT_AS_IT_IS and max(opened.size) <= side:
                return content
        picture = images.to_rgb(io.BytesIO(content))
    except (images.Fault, OSError) as e:
        raise errors.UserError(f"{path}: not a readable picture: {images.reason(e)}") from e
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def identity(config: settings_lib.CurateConfig, form: Any) -> str:
    """Hash of all settings that can change an answer, apart from the text and the picture."""
    limit = config.decode.max_new_tokens
    if config.answerer == "endpoint":
        e = config.endpoint
        return fingerprints.of(e.base_url.rstrip("/"), e.model, e.temperature, e.detail, config.side, limit, form)
    return fingerprints.of(config.model, config.precision, config.decode, config.seed)


@contextlib.contextmanager
def opened(config: settings_lib.CurateConfig, folder: pathlib.Path, form: Any, say: Any) -> Iterator[Answerer]:
    """Who answers by these settings. folder: the working directory.

    Raises:
      UserError: as `endpoints.asking.opened`, or of the checkpoint as `from_checkpoint.evaluate`.
    """
    if config.answerer == "checkpoint":
        from vlguard_jax.curating import by_checkpoint  # late: an endpoint needs no jax

        yield by_checkpoint.make(config)
        return
    with endpoint_lib.opened(config.endpoint, folder / FOLDER, where=WHERE) as endpoint:
        for notice in endpoint.notices:
            say(notice)
        try:
            yield ByEndpoint(endpoint, config, form)
        finally:
            say(endpoint.told())
