"""Judges where a connection may go: by name and port, and then by each address that the name has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_network

from taskcell.destinations import Address, Destination, Pattern

#: Addresses that reach more than they seem to: translations of IPv4 (RFC 6052, 8215), 6to4 and its relay, Teredo,
#: addresses of IPv4 in IPv6's first block, and services of clouds for their machines.
_INDIRECT = tuple(
    map(
        ip_network,
        (
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "2001::/32",
            "::/96",
            "192.88.99.0/24",
            "168.63.129.16/32",
            "192.0.0.0/24",
        ),
    )
)


#: All that is given out of IPv6 for everybody (RFC 4291).
_GLOBAL_UNICAST = ip_network("2000::/3")


class Why(Enum):
    """What kind of failure a connection met."""

    DENIED = "denied"
    ADDRESS = "address"
    MALFORMED = "malformed"
    UNKNOWN_NAME = "unknown_name"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    BOUND = "bound"
    ASKED = "asked"


class NotConnected(Exception):
    """There is no connection; the text is a sentence for whoever asked.

    Arguments:
        to: where it was to go; None if that could not be read.
    """

    def __init__(self, why: Why, sentence: str, to: Destination | None = None) -> None:
        super().__init__(sentence)
        self.why = why
        self.to = to


def is_public(address: Address) -> bool:
    """Whether an address is one that everybody on the internet reaches alike."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if address.version == _GLOBAL_UNICAST.version and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _INDIRECT if network.version == address.version)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one sandbox may reach."""

    patterns: tuple[Pattern, ...]

    def has(self, to: Destination) -> bool:
        """Whether a pattern matches the host and the port."""
        return any(pattern.matches(to) for pattern in self.patterns)

    def judge(self, to: Destination) -> None:
        """Raises NotConnected unless a pattern matches the host and the port."""
        if not self.has(to):
            raise NotConnected(Why.DENIED, f"This sandbox may not reach {to}.", to)
        if to.address is not None:
            self.judged(to, (to.address,))

    def judged(self, to: Destination, found: Iterable[Address]) -> Sequence[Address]:
        """Return the addresses that may be connected to. Raises NotConnected when there is none.

        Arguments:
            found: the addresses of `to`, all of them in this very lookup.
        """
        allowed = [address for address in found if is_public(address) or self.names(address, to.port)]
        if not allowed:
            raise NotConnected(
                Why.ADDRESS, f"The address of {to} is not a public one, and this sandbox may not reach it.", to
            )
        return allowed

    def names(self, address: Address, port: int) -> bool:
        """Whether the operator named this very address."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        literal = Destination(str(mapped or address), port)
        return any(pattern.names(literal) for pattern in self.patterns)
