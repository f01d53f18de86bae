"""Settings of an OpenAI-compatible endpoint: where it is, how it is asked, and what may be spent there."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Annotated, Literal
import urllib.parse

from vlguard_jax import errors
from vlguard_jax.ranges import Range

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
    """A server that speaks OpenAI's chat completions: a company's, or vLLM, SGLang, llama.cpp of one's own."""

    base_url: str = ""  # with /v1, as https://api.openai.com/v1
    model: str = ""  # as the server calls it; name a dated version, which does not change under your results
    key_env: str = ""  # the environment variable that holds the key, never the key itself; empty: none is sent
    # -1: not sent, for models that take none
    temperature: Annotated[float, Range(0, 2, also=(-1,))] = 0.0
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # reasoning models: the second
    detail: Literal["low", "high", "auto"] = "low"  # of pictures; "low" is what VLGuard's authors sent
    concurrency: Annotated[int, Range(1, 256)] = 8  # requests at a time
    timeout: Annotated[float, Range(0.01, 3600)] = 120.0  # seconds, of one attempt
    # attempts after the first, where the server is busy, fails, is too slow or cuts the connection
    retries: Annotated[int, Range(0, 100)] = 5
    first_wait: Annotated[float, Range(0, 600)] = 1.0  # seconds before the second attempt; doubles with each
    longest_wait: Annotated[float, Range(0, 86_400)] = 120.0  # seconds; a Retry-After beyond it is not waited for
    # The budget of a folder, over all runs that go on in it. Every attempt counts as a call.
    max_calls: Annotated[int, Range(0, 10**9)] = 10_000
    max_dollars: Annotated[float, Range(0, 10**6)] = 10.0
    # dollars per million tokens; 0 for a server of your own; -1: not known, and nothing is asked
    input_price: Annotated[float, Range(0, 10**5, also=(-1,))] = -1.0
    output_price: Annotated[float, Range(0, 10**5, also=(-1,))] = -1.0
    picture_tokens: Annotated[int, Range(0, 10**6)] = 3000  # at most, of one picture: what the budget sets aside


def check(settings: EndpointSettings, where: str) -> None:
    """Check what needs no server and no key. where: the section of the config, for messages.

    Raises:
      UserError: no address or model, prices that are not known, or a budget that lets nothing be asked.
    """
    parts = _parts(settings.base_url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.UserError(
            f"{where}.base_url={errors.short(settings.base_url)}: name the server, as https://api.openai.com/v1"
        )
    if parts.username or parts.password:
        raise errors.UserError(f"{where}.base_url holds a password; name the key's environment variable in key_env")
    if parts.query or parts.fragment:  # not shown: it may be a key
        raise errors.UserError(
            f"{where}.base_url has a ? or #, behind which nothing can be called; end it before that, and name a key's"
            " environment variable in key_env"
        )
    if settings.key_env and not _VARIABLE.fullmatch(settings.key_env):
        raise errors.UserError(
            f"{where}.key_env is no name of an environment variable; put the key in one, as OPENAI_API_KEY, and give"
            " its name"
        )
    if not settings.model:
        raise errors.UserError(f"{where}.model is empty: name the model as the server calls it")
    if min(settings.input_price, settings.output_price) < 0:
        raise errors.UserError(
            f"{where}: what {errors.short(settings.model)} costs is not known; set input_price and output_price in"
            " dollars per million tokens (0 for a server of your own)"
        )
    if not settings.max_calls:
        raise errors.UserError(f"{where}.max_calls=0: nothing may be asked; allow some calls, or leave it out")
    if not settings.max_dollars and max(settings.input_price, settings.output_price):
        raise errors.UserError(
            f"{where}.max_dollars=0: nothing may be asked of a server with a price; allow some money, or leave it out"
        )


def _parts(url: str) -> urllib.parse.SplitResult | None:
    try:
        found = urllib.parse.urlsplit(url)
        return None if found.port == 0 else found
    except ValueError:  # a port or an address that is none
        return None


def key(settings: EndpointSettings, where: str, environment: Mapping[str, str]) -> str:
    """The key that `settings` name, "" where the server wants none.

    Raises:
      UserError: the variable is not set, or holds what cannot be a key. No message shows its value.
    """
    if not settings.key_env:
        return ""
    found = environment.get(settings.key_env, "").strip()
    name = errors.short(settings.key_env)
    way = f"set it to the key of {errors.short(settings.base_url)}, or key_env to '' for a server that wants none"
    if not found:
        raise errors.UserError(f"{where}.key_env: the environment variable {name} is not set; {way}")
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise errors.UserError(f"{where}.key_env: the environment variable {name} holds what no key has; {way}")
    return found
