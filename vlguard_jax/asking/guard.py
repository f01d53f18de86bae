"""Who may talk to the page: the browser on this machine, from the page itself.

Against other machines: the program listens on the loopback address. Against pages of other sites that the user's
browser shows: Host (rebound names), Origin and Sec-Fetch-Site (requests in the user's name). Against other users of
this machine: all lies below a secret path.
"""

from __future__ import annotations

from starlette import datastructures
from starlette import responses
from starlette import types as asgi

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
READING = ("GET", "HEAD")


class Guard:
    """Refuses what another site, or a name of somebody else's for this machine, asks for."""

    def __init__(self, app: asgi.ASGIApp, hosts: frozenset[str]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return  # no websockets, no lifespan

        async def send_guarded(message: asgi.Message) -> None:
            if message["type"] == "http.response.start":
                datastructures.MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        why = self.fault(scope["method"], datastructures.Headers(scope=scope))
        answer = responses.PlainTextResponse(f"refused: {why}\n", status_code=403) if why else self._app
        await answer(scope, receive, send_guarded)

    def fault(self, method: str, headers: datastructures.Headers) -> str:
        """Why a request is refused; "" where it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return f"this page answers to {' and '.join(sorted(self._hosts))} alone"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "another site asks"
        origins = headers.getlist("origin")
        if (origins or method not in READING) and origins != [f"http://{hosts[0]}"]:
            return "the request does not come from the page"
        return ""
