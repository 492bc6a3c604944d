"""One server's Lease as another server sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class SeenLease:
    """One server's Lease, and since when (by this server's own clock) it has stood there as it is."""

    lease: Mapping[str, Any]
    since: float

    @property
    def stamp(self) -> str:
        return str(self.lease["spec"].get("renewTime", ""))

    @property
    def life(self) -> int:
        """How often the server was declared dead and lived on."""
        return int(self.lease["spec"].get("leaseTransitions", 0))

    def annotation(self, key: str) -> str:
        return str(self.lease["metadata"].get("annotations", {}).get(key, ""))


def is_address(url: str) -> bool:
    """Whether a server can be reached there at all."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        return False


def micro_time(seconds: float) -> str:
    """A time of the wall's clock as Leases have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
