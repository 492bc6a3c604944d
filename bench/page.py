"""A page of several sections, each written by a program of its own."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(page: Path, heading: str, section: str) -> None:
    """Put a section in the place of the one with this heading, or at the end; the other sections stay.

    Arguments:
        heading: the section's first line, `## …`; empty: the page's beginning, up to the first such line.
    """
    old = page.read_text("utf-8") if page.exists() else ""
    parts = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    if not heading:
        parts[0] = section
    else:
        found = [place for place, part in enumerate(parts) if part.startswith(f"{heading}\n")]
        place = found[0] if found else len(parts)
        parts[place : place + 1] = [section]
    page.write_text("\n".join(f"{part.strip()}\n" for part in parts if part.strip()), "utf-8")
