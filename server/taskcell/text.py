"""Make untrusted text fit for messages and listings."""

from __future__ import annotations


def shown(text: str) -> str:
    """Quote, escape and shorten untrusted text for a message."""
    limit = 80
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def one_line(name: str | None) -> str:
    """Put a name on one line: quote it if it holds line breaks or control characters."""
    return repr(name) if name is not None and not name.isprintable() else str(name)
