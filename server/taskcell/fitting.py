"""Cut what an answer says to the characters that it may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from taskcell.text import ended


def fitting(notes: Iterable[str], room: int, marks: int) -> tuple[str, ...]:
    """Return the notes that fit into `room` characters, with `marks` characters around each; the last may be cut."""
    kept: list[str] = []
    for note in notes:
        room -= marks
        if len(note) <= room:
            kept.append(note)
            room -= len(note)
            continue
        if room > 1:
            kept.append(f"{note[: room - 1]}…")
        break
    return tuple(kept)


def without_middle(text: str, most: int) -> tuple[str, int]:
    """Cut the middle out of a text that is longer than `most` characters; return it, and how many bytes were cut out.

    A line in its place says so; its characters come on top.
    """
    if len(text) <= most:
        return text, 0
    head, tail = text[: most - most // 2], text[len(text) - most // 2 :]
    size = len(text.encode("utf-8", "replace")) - len((head + tail).encode("utf-8", "replace"))
    return f"{ended(head)}[… {size:,} bytes left out …]\n{tail}", size


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits, or 0. All that are smaller than one that fits must fit."""
    if fits(most):
        return most
    fitting_one, too_large = 0, most
    while fitting_one + 1 < too_large:
        middle = (fitting_one + too_large) // 2
        fitting_one, too_large = (middle, too_large) if fits(middle) else (fitting_one, middle)
    return fitting_one
