"""Addresses of hosts and of HTTP servers, as configurations name them."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only programs on the same machine can reach this host: a name or an IP address, also in brackets."""
    if host.lower().rstrip(".") == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    return False


def split_host(text: str) -> tuple[str, str]:
    """Split `HOST[:PORT]`; an IPv6 address keeps its brackets, and the port may be empty."""
    bracket = text.rfind("]")
    host, colon, port = text[bracket + 1 :].rpartition(":")
    return (text[: bracket + 1] + host, port) if colon else (text, "")


def base_address(text: str) -> str:
    """Return the address of a server without a path, as it is. Raises ValueError unless it is `http[s]://HOST:PORT`."""
    with suppress(ValueError):
        parts = urlsplit(text)
        is_bare = text == f"{parts.scheme}://{parts.netloc}" and parts.scheme in ("http", "https")
        if is_bare and parts.hostname and parts.port and not parts.username:
            return text
    raise ValueError("must be an address without a path, such as 'http://10.0.0.7:8765'")


def http_address(text: str) -> str:
    """Return an address as it is. Raises ValueError unless it is `https://…`, or `http://…` on this machine."""
    try:
        parts = urlsplit(text)
        host, has_port = parts.hostname, parts.port is None or parts.port > 0
        is_plain = host and has_port and not (parts.query or parts.fragment or parts.username or parts.password)
        if host and is_plain and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
            return text
    except ValueError:
        pass
    raise ValueError("must be an address such as 'https://auth.example.org/keys'; http only on this machine")
