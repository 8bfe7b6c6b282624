"""The door of the page: what does not come from the reader's own browser, with the token of this run, is turned away before it is read.

Another machine cannot connect, since the page is served on 127.0.0.1 alone. Another program of this machine has no token. A foreign page in
the same browser has neither the cookie (SameSite) nor the right Origin, and where it calls itself by a name that leads to 127.0.0.1 (DNS
rebinding) its Host header is another one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from advisor.page.question import LONGEST_VALUE

LONGEST_QUERY = 20 * LONGEST_VALUE
"""Bytes. Judgement: a form with every field filled in has fewer."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, no script or sheet in the page. The widths of bars are style attributes, which
can fetch nothing under it."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door(NamedTuple):
    """Wraps an application so that it is asked by the reader alone."""

    app: ASGIApp
    token: str
    port: int

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(f"{name}:{self.port}" for name in ("127.0.0.1", "localhost"))

    @property
    def cookie(self) -> str:
        """Of this port: cookies are not kept apart by port (RFC 6265, 8.5)."""
        return f"advise-{self.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing else is served
        answer = self._turned_away(scope) or self._let_in(Request(scope)) or self.app
        await answer(scope, receive, _with_headers(send))

    def _turned_away(self, scope: Scope) -> Response | None:
        """What is refused whoever asks."""
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return _no(405, "this page is only read: GET", {"Allow": "GET, HEAD"})
        if headers.getlist("host") not in [[host] for host in self.hosts]:
            return _no(403, f"this page is http://{self.hosts[0]}, and nothing else")
        if not _all_of(headers.getlist("origin"), [f"http://{host}" for host in self.hosts]):
            return _no(403, "another page may not ask this one")
        if not _all_of(headers.getlist("sec-fetch-site"), ["same-origin", "none"]):
            return _no(403, "another page may not ask this one")
        if len(scope["query_string"]) > LONGEST_QUERY:
            return _no(414, f"the address is longer than {LONGEST_QUERY} bytes")
        return None

    def _let_in(self, request: Request) -> Response | None:
        """None for who has the cookie; the cookie, and the address without the token, for who has the token; else a refusal."""
        if self._is_token(request.cookies.get(self.cookie, "")) and "token" not in request.query_params:
            return None
        if request.scope["path"] == "/" and self._is_token(request.query_params.get("token", "")):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            answer = RedirectResponse(f"/?{urlencode(rest)}" if rest else "/", status_code=303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        return _no(403, "open the address that `advise ui` printed: it holds the token of this run")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.token.encode())


def _all_of(given: Iterable[str], allowed: Iterable[str]) -> bool:
    return set(given) <= set(allowed)


def _no(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"error: {why}\n", status, headers)


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *own]}
        await send(message)

    return sent
