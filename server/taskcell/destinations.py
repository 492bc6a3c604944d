"""Where a connection goes, and patterns over that: hosts in one spelling each, with a port."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

from taskcell.addresses import split_host
from taskcell.text import shown

Address = IPv4Address | IPv6Address

#: Characters: RFC 1035 allows 253 in a name, and a name in other scripts is longer before it is encoded.
MAX_HOST = 253
MAX_PORT = 65535
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
#: A name whose last label is a number is an address to some resolvers: 2130706433, 0x7f.1, 127.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
ANY = "*"
_BELOW = "*."


def read_host(text: str) -> str:
    """Return a host in its one spelling: a name in lower case and ASCII without the last dot, or a plain address.

    Raises ValueError with words that complete "the host … ": an address that is not written plainly, or no name.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        return _read_ipv6(bare)
    if not bare or len(bare) > MAX_HOST + 1 or "[" in text:
        raise ValueError("is not a name")
    name = (bare.lower() if bare.isascii() else _to_ascii(bare)).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if _IPV4.fullmatch(name):
            return name
        raise ValueError("is an address that is not written as four numbers")
    if not name or len(name) > MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("is not a name")
    return name


def _read_ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError("is not an address") from None
    if address.scope_id is not None:
        raise ValueError("is an address with a zone")
    return str(address.ipv4_mapped or address)


def _to_ascii(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("is not a name") from None


def address_of(host: str) -> Address | None:
    """Return the address that a host is in `read_host`'s spelling; None for a name."""
    with suppress(ValueError):
        return ip_address(host)
    return None


@dataclass(frozen=True, slots=True)
class Destination:
    """A host in `read_host`'s spelling, and a port."""

    host: str
    port: int

    @classmethod
    def read(cls, host: str, port: str | int) -> Destination:
        """Raises ValueError with a sentence."""
        words = str(port)
        if not _PORT.fullmatch(words) or not 1 <= int(words) <= MAX_PORT:
            raise ValueError(f"The port {shown(words)} is not a number from 1 to {MAX_PORT}.")
        try:
            return cls(read_host(host), int(words))
        except ValueError as error:
            raise ValueError(f"The host {shown(host)} {error}.") from None

    @property
    def address(self) -> Address | None:
        return address_of(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Hosts that may be reached: one, those below a name, or any with a public address; `port` None: each port."""

    host: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> Pattern:
        """Read `HOST[:PORT]`, where HOST may be `*.NAME` or `*`. Raises ValueError that completes "EGRESS …"."""
        host, port = split_host(text) if text.count(":") <= 1 or "]" in text else (text, "")
        if text.endswith(":") or (port and not (_PORT.fullmatch(port) and 1 <= int(port) <= MAX_PORT)):
            raise ValueError(f"{text!r} has no port from 1 to {MAX_PORT} after its ':'")
        name = host.removeprefix(_BELOW)
        try:
            plain = ANY if host == ANY else host[: -len(name)] + read_host(name)
        except ValueError as error:
            raise ValueError(
                f"{text!r} {error}; write 'git.example.org', '*.example.org:443' or '10.0.0.5:5432'"
            ) from (None)
        if plain.startswith(_BELOW) and address_of(plain.removeprefix(_BELOW)) is not None:
            raise ValueError(f"{text!r} names addresses by a pattern; name each one")
        return cls(plain, int(port) if port else None)

    def matches(self, to: Destination) -> bool:
        return self.port in (None, to.port) and self._has(to.host)

    def names(self, to: Destination) -> bool:
        """Whether it is this very host, and not a pattern that it falls under."""
        return self.host == to.host and self.port in (None, to.port)

    def covers(self, other: Pattern) -> bool:
        """Whether it matches all that the other one does. Nothing but itself covers an address."""
        is_named = address_of(other.host) is None and self._has(other.host)
        return self.port in (None, other.port) and (self.host == other.host or is_named)

    def _has(self, host: str) -> bool:
        if self.host == ANY:
            return True
        if self.host.startswith(_BELOW) and address_of(host) is None:
            return host.endswith(self.host[1:]) and host != ANY
        return self.host == host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"
