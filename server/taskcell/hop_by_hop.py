"""Which headers of an HTTP message a proxy passes on (RFC 9110, 7.6.1), and how it says a body's length."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]

#: Headers that concern one connection only, and those that a proxy answers itself or writes anew.
_OF_THE_HOP = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authorization", b"proxy-authenticate", b"expect", b"host"),
    )
)


def passed_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that are not about this connection alone, without the length of the body.

    Arguments:
        headers: with names in lower case.
    """
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    return [
        (name, value)
        for name, value in headers
        if name not in _OF_THE_HOP and name not in named and name != b"content-length"
    ]


def framing_of(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return how long the body is, said in one way only."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return [(b"Transfer-Encoding", b"chunked")]
    return [(name, value) for name, value in headers if name == b"content-length"][:1]
