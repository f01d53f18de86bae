"""One attempt to ask an endpoint, by OpenAI's own client: what it said, or which fault came in between."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import email.utils
import importlib.util
import time
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import versions
from vlguard_jax.endpoints import bounded
from vlguard_jax.endpoints import journal
from vlguard_jax.endpoints import request as request_lib
from vlguard_jax.endpoints import settings as settings_lib

TIME_OUT, BUSY, BROKEN, CUT = "time-out", "busy (429)", "server error", "connection"
MALFORMED, REJECTED = journal.MALFORMED, "request rejected"
_LONGEST = 300  # characters of a server's message that are shown
_HIDDEN = 8  # characters from which a key is looked for in what the server says: a shorter one is a word
_FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


class Fault(Exception):
    """An attempt without a reply.

    Attributes:
      kind: one of the constants above.
      again: whether another attempt may help.
      wait: seconds after which the server wants to be asked again; None where it does not say.
      paid: whether it may have been paid for.
    """

    def __init__(self, kind: str, told: str, *, again: bool = True, wait: float | None = None, paid: bool = False):
        super().__init__(told)
        self.kind, self.again, self.wait, self.paid = kind, again, wait, paid


@dataclasses.dataclass(frozen=True)
class Client:
    """Asks one endpoint; may be used by several threads."""

    where: str
    settings: settings_lib.EndpointSettings
    _key: str
    _openai: Any

    def ask(self, request: request_lib.Request, key: str) -> journal.Said:
        """One attempt. key: `request.key`; sent too, so that a server that knows such keys bills a repetition once.

        Raises:
          Fault: there is no reply to use.
          UserError: no request can succeed: the key or the model is wrong, or the account is empty.
        """
        import httpx2
        import openai

        try:
            body = request_lib.body(request, self.settings)
        except ValueError as e:
            raise Fault(REJECTED, str(e), again=False) from e
        try:
            return self.said(self._read(body, key))
        except (openai.APITimeoutError, httpx2.TimeoutException) as e:
            raise Fault(TIME_OUT, f"no reply within {self.settings.timeout:g} s", paid=True) from e
        except openai.APIStatusError as e:
            return self._status(e)
        except openai.APIConnectionError as e:
            reached = not isinstance(e.__cause__, httpx2.ConnectError)
            raise Fault(CUT, self._clean(str(e.__cause__ or e)), paid=reached) from e
        except httpx2.HTTPError as e:  # while the reply was read
            raise Fault(CUT, self._clean(str(e)), paid=True) from e

    def close(self) -> None:
        """Close the connections."""
        self._openai.close()

    def _read(self, body: Mapping[str, Any], key: str) -> bytes:
        """The bytes of a reply, of which a slow or endless one is cut."""
        ends, found = time.monotonic() + self.settings.timeout, bytearray()
        create = self._openai.chat.completions.with_streaming_response.create
        with create(**_known(body), extra_headers={"Idempotency-Key": key}) as response:
            for chunk in response.iter_bytes():
                found += chunk
                if len(found) > limits.RECORD_BYTES:
                    raise Fault(MALFORMED, f"more than {limits.RECORD_BYTES:,} bytes", again=False, paid=True)
                if time.monotonic() > ends:
                    raise Fault(TIME_OUT, f"no whole reply within {self.settings.timeout:g} s", paid=True)
        return bytes(found)

    def said(self, body: bytes) -> journal.Said:
        """What a reply's JSON says.

        Raises:
          Fault: it is broken, or has another form.
        """
        try:
            found = files.parse_json(body, "reply")
        except errors.UserError as e:
            raise Fault(MALFORMED, self._clean(str(e)), paid=True) from e
        if isinstance(found, dict) and found.get("error"):  # of a gateway that answers 200
            raise Fault(BROKEN, self._clean(str(_get(found["error"], "message") or found["error"])))
        choices = _get(found, "choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = _get(choice, "message")
        if not isinstance(message, dict):
            raise Fault(MALFORMED, "no choices in the reply", paid=True)
        refusal, text = message.get("refusal"), _text(message.get("content"))
        finish = str(_get(choice, "finish_reason") or "")[: limits.NAME]
        # a model that thinks may reach its limit before it says anything
        if text is None and not refusal and finish not in ("content_filter", "length"):
            raise Fault(MALFORMED, "a message without a text in the reply", paid=True)
        usage = _get(found, "usage")
        return journal.Said(
            text=self._hide(str(refusal or text or "")),
            finish_reason=self._hide(finish),
            refused=bool(refusal) or finish == "content_filter",
            prompt_tokens=_count(_get(usage, "prompt_tokens")),
            reply_tokens=_count(_get(usage, "completion_tokens")),
            model=self._hide(str(_get(found, "model") or "")[: limits.NAME]),
        )

    def _status(self, error: Any) -> journal.Said:
        """What an HTTP status other than 200 means. error: openai.APIStatusError."""
        status, code = error.status_code, str(_get(error.body, "code") or _get(error.body, "type") or "")
        told = self._clean(str(_get(error.body, "message") or error.message))
        server = errors.short(self.settings.base_url)
        if code in _FILTERED:
            return journal.Said("", "content_filter", True, None, None, "")
        if status in (401, 403):
            key = f"the key in ${self.settings.key_env}" if self._key else "requests without a key; name key_env"
            raise errors.UserError(f"{self.where}: {server} refuses {key} ({status}: {told})")
        if status == 404:
            model = errors.short(self.settings.model)
            raise errors.UserError(
                f"{self.where}: {server} knows no model {model}, or base_url is wrong (404: {told}); correct them"
            )
        if status == 402 or code in _NO_MONEY:
            raise errors.UserError(
                f"{self.where}: the account at {server} has no money left ({status}: {told}); fill it, and start the"
                " same command again to go on"
            )
        if status in (408, 409, 429) or status >= 500:
            kind = BUSY if status == 429 else BROKEN
            raise Fault(kind, f"{status}: {told}", wait=_wait(error.response.headers))
        raise Fault(REJECTED, f"{status}: {told}", again=False)

    def _clean(self, text: str) -> str:
        """What a server says, for a message: short, and without the key."""
        text = self._hide(text)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if len(self._key) >= _HIDDEN else text


def connect(settings: settings_lib.EndpointSettings, key: str, where: str) -> Client:
    """A client; nothing is sent yet. where: the section of the config, for messages.

    Raises:
      UserError: the package openai is not installed.
    """
    if importlib.util.find_spec("openai") is None:
        raise errors.UserError(f"{where} needs the package openai: {versions.install('judge')}")
    import openai  # late: it is slow to import, and an extra

    made = openai.OpenAI(
        base_url=settings.base_url,
        api_key=key or "none",  # the client wants one
        max_retries=0,  # asking.py repeats: every attempt counts against the budget
        timeout=settings.timeout,
        http_client=bounded.client(settings.timeout),
    )
    return Client(where, settings, key, made)


_OWN = ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "response_format")


def _known(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as arguments of the client, which takes parameters that it does not know apart."""
    return {name: body[name] for name in _OWN if name in body} | {
        "extra_body": {name: value for name, value in body.items() if name not in _OWN}
    }


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def _text(content: Any) -> str | None:
    """The text of a message, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(str(_get(part, "text") or "") for part in content)
    return content if isinstance(content, str) else None


def _wait(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds: a number of them, or a date (RFC 9110, section 10.2.3)."""
    told = headers.get("retry-after", "").strip()
    try:
        return max(0.0, min(float(told), 1e9)) if told else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None
