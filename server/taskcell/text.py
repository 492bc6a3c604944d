"""Untrusted text made fit to be shown."""

from __future__ import annotations


def shown(text: str) -> str:
    """Untrusted text fit for a message: quoted, escaped, and short."""
    limit = 80
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def one_line(name: str | None) -> str:
    """A name on one line: one that holds line breaks or control characters is quoted."""
    return repr(name) if name is not None and not name.isprintable() else str(name)
