"""What a sandbox's server sees of a request at `/ports/`, and what a client sees of its answer.

A sandbox's server is hostile: all sandboxes' pages share the origin of `/mcp` and `/files`. So nothing that stands for
the caller goes in, and nothing that concerns the whole origin comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from taskcell.hop_by_hop import Headers, framing_of, passed_on

#: Credentials of the caller at this server or at a proxy before it, and what such a proxy says about the caller.
_KEPT_OUT = frozenset((b"authorization", b"cookie", b"forwarded", b"via", b"x-real-ip", b"mcp-session-id"))
_FORWARDED = b"x-forwarded-"
#: Headers of an answer that act on the whole origin, or ask for credentials in its name.
_KEPT_IN = frozenset(
    (
        *(b"set-cookie", b"set-cookie2", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed"),
        *(b"alt-svc", b"www-authenticate", b"nel", b"report-to", b"reporting-endpoints", b"origin-agent-cluster"),
    )
)
#: A page gets an origin of its own, so that it can read nothing of this one; and nobody else's page may show it.
_ADDED = (
    (b"content-security-policy", b"sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class PortAddress:
    """Where a request came to, and where it goes.

    Arguments:
        prefix: the path of the port at this server, without a slash at its end.
        target: path and query at the sandbox's server.
        public: scheme and authority that clients use for this server.
    """

    task: str
    port: int
    prefix: str
    target: bytes
    public: tuple[str, str]

    @property
    def who(self) -> str:
        """The other end, in the words of an error."""
        return f"The server on port {self.port}"

    def to_server(self, headers: Headers, upgrade: bytes | None) -> list[tuple[bytes, bytes]]:
        """Return the headers of the request for the sandbox's server.

        Arguments:
            headers: the client's, with names in lower case.
            upgrade: the protocol to change to; None for none.
        """
        scheme, host = self.public
        named = {b"host": f"localhost:{self.port}", b"x-forwarded-host": host, b"x-forwarded-proto": scheme}
        hop = [(b"connection", b"close")] if upgrade is None else _upgrading(upgrade)
        return [
            *((name, value.encode("latin-1", "replace")) for name, value in named.items()),
            (b"x-forwarded-prefix", self.prefix.encode("latin-1", "replace")),
            *(header for header in passed_on(headers) if not _is_kept_out(header[0])),
            *(framing_of(headers) if upgrade is None else ()),
            *hop,
        ]

    def to_client(self, headers: Headers, upgrade: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer for the client."""
        kept = [header for header in passed_on(headers) if header[0] not in _KEPT_IN]
        length = [(name, value) for name, value in framing_of(headers) if name != b"Transfer-Encoding"]
        moved = [(name, self._moved(value) if name == b"location" else value) for name, value in kept]
        return [*moved, *_ADDED, *(length if upgrade is None else _upgrading(upgrade))]

    def _moved(self, location: bytes) -> bytes:
        """Where a redirect leads at this server, if it stays at the sandbox's."""
        text = location.decode("latin-1")
        for own in (f"http://localhost:{self.port}", f"http://127.0.0.1:{self.port}"):
            if text == own or text.startswith((own + "/", own + "?")):
                text = text.removeprefix(own) or "/"
        inside = text.startswith("/") and not text.startswith(("//", "/\\"))
        if inside and not (text + "/").startswith(self.prefix + "/"):
            text = self.prefix + text
        return text.encode("latin-1")


def public_address(public_url: str, scheme: str, host: str) -> tuple[str, str]:
    """Return the scheme and authority by which clients reach the server."""
    parts = urlsplit(public_url)
    return (parts.scheme, parts.netloc) if public_url else (scheme, host)


def _is_kept_out(name: bytes) -> bool:
    return name in _KEPT_OUT or name.startswith(_FORWARDED)


def _upgrading(protocol: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"connection", b"upgrade"), (b"upgrade", protocol)]
