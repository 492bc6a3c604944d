"""Which names a server answers to, and which web pages may call it: the headers Host and Origin.

Without these checks a web page in the user's browser could reach a server on the user's own machine (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from taskcell.addresses import is_loopback, split_host
from taskcell.config.http_table import HttpSettings
from taskcell.http.refuse import refusal

#: What scripts of an allowed page may send and read.
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
_EXPOSED = ("Mcp-Session-Id", "WWW-Authenticate", "Retry-After")


class Hosts:
    """Refuses requests for another host, or from a web page that is not allowed. Answers the others' preflights.

    Arguments:
        asks_for_tokens: nobody gets anywhere without a token, so that pages of this machine may try. Where nobody has
            to sign in only those of the server's own address may: a page of a sandbox's server, at another port of this
            machine, is one of the others.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, *, host: str, asks_for_tokens: bool) -> None:
        own = [urlsplit(url).netloc for url in (settings.public_url, settings.peer_url) if url]
        self._hosts = {name.lower() for name in (host, *own, *settings.allowed_hosts)}
        self._origins = {name.lower().rstrip("/") for name in settings.allowed_origins}
        self._app = app
        self._trusts_own = asks_for_tokens
        self._shared = CORSMiddleware(
            app, allow_origin_regex=".*", allow_methods=_METHODS, allow_headers=["*"], expose_headers=_EXPOSED
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not is_named(hosts[0], self._hosts):
            sentence = "This server does not answer to the name in the header Host; the operator lists its names in "
            await refusal(421, f"{sentence}http.allowed_hosts.")(scope, receive, send)
        elif origins and not (len(origins) == 1 and self._may_call(origins[0], hosts[0])):
            sentence = "Pages of this origin may not call the server; the operator lists those that may in "
            await refusal(403, f"{sentence}http.allowed_origins.")(scope, receive, send)
        else:
            # Only for pages: other clients send no Origin, and read no headers for sharing.
            await (self._shared if origins else self._app)(scope, receive, send)

    def _may_call(self, origin: str, host: str) -> bool:
        if origin.lower() in self._origins:
            return True
        try:
            parts = urlsplit(origin.lower())
            # The server's own address: what it serves of sandboxes has no origin (CSP `sandbox`).
            is_own = parts.netloc == host.lower()
            return (
                parts.scheme in ("http", "https") and (is_own or self._trusts_own) and is_loopback(parts.hostname or "")
            )
        except ValueError:
            return False


def is_named(header: str, names: Collection[str]) -> bool:
    """Whether the header Host names this machine, or one of `names`: `HOST`, with any port, or `HOST:PORT`."""
    host, _ = split_host(header.lower())
    return is_loopback(host) or header.lower() in names or host in names
