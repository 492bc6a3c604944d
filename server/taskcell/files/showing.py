"""Shows a picture as every provider of models takes it: whole, upright, and small enough.

The sandbox's own Python decodes it, with Pillow. Where the image does not have that, a picture is shown as it is
stored, or refused if a provider would refuse it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.answers import FileBytes
from taskcell.files.limits import GOOD_SIDE, MAX_PICTURE
from taskcell.files.pictures import BrokenPicture, Looked, look_at_picture, picture_type, too_large
from taskcell.files.reply import Sample, Whole, Window
from taskcell.files.search import NO_PROGRAM, RunProgram
from taskcell.files.store import FileStore, Target
from taskcell.text import shown

_PROGRAM = Path(__file__).with_name("picture_program.py").read_text(encoding="utf-8")
#: What the program exits with where Pillow is missing.
_NO_PILLOW = 3
#: Bytes of its reply beside the picture, and characters of its words that are shown.
_HEADER, _WORDS = 1024, 200
_SMALLER = "make a smaller one with the skill image (`image_convert`) or in the terminal, and read that"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the program says of a picture.

    Arguments:
        data: the new picture; empty: the stored one can be shown.
        width, height: of the stored picture.
        turned: the new one is upright, and the stored one is not.
        refused: why there is none; empty otherwise.
    """

    data: bytes = b""
    width: int = 0
    height: int = 0
    turned: bool = False
    refused: str = ""


async def show_picture(
    store: FileStore, run: RunProgram, target: Target, found: Whole | Sample | Window
) -> tuple[FileBytes, bytes | None]:
    """Return the picture as a model is shown it, and the whole file if it was read. Raises FileRefused."""
    whole = found.data if isinstance(found, Whole) else None
    size = len(found.data) if isinstance(found, Whole) else found.size
    if whole is not None:
        _walked(target, whole)
    drawn = await _drawn(run, target)
    if drawn is not None and drawn.refused:
        raise FileRefused(f"{target.said} is a picture that cannot be shown: {drawn.refused}; {_SMALLER}.")
    if drawn is not None and drawn.data:
        picture = _walked(target, drawn.data)
        if too_large(picture, len(drawn.data)):
            raise _garbled(target)
        return FileBytes(target.shown, drawn.data, picture, _notes(drawn, picture, size)), whole
    if size > MAX_PICTURE:
        raise FileRefused(f"{target.said} is a picture of {size} bytes, too large to show; {_SMALLER}.")
    data = whole if whole is not None else (await store.fetch(target, MAX_PICTURE)).data
    picture = _walked(target, data)
    why = too_large(picture, len(data))
    if why:
        raise FileRefused(f"{target.said} is a picture of {why}; {_SMALLER}.")
    turn = f"It is shown as it is stored, and by its EXIF orientation it is {picture.turn}." if picture.turn else ""
    return FileBytes(target.shown, data, picture, (turn,) if turn else ()), data


def _walked(target: Target, data: bytes) -> Looked:
    mime = picture_type(data)
    try:
        if mime is None:
            raise BrokenPicture("it is another file by now")
        return look_at_picture(data, mime)
    except BrokenPicture as broken:
        raise FileRefused(
            f"{target.said} begins as a picture ({mime}) and cannot be shown: {broken}. Make or copy it again, or look "
            "at its bytes in the terminal (`xxd`)."
        ) from None


async def _drawn(run: RunProgram, target: Target) -> Drawn | None:
    """Return what the sandbox makes of the picture; None if its image cannot decode pictures."""
    words = ("python3", "-I", "-c", _PROGRAM, target.inner, str(MAX_PICTURE), str(GOOD_SIDE))
    done = await run(words, MAX_PICTURE + _HEADER)
    if done.exit_code in (NO_PROGRAM, _NO_PILLOW) and not done.stdout:
        return None
    if done.timed_out or done.exit_code:
        return Drawn(refused="decoding it takes too long or too much memory")
    return parse_drawn(target, done.stdout)


def parse_drawn(target: Target, reply: bytes) -> Drawn:
    """Parse the program's reply, which a hostile sandbox may have written. Raises FileRefused."""
    head, _, data = reply.partition(b"\n")
    try:
        said = json.loads(head[:_HEADER])
        if "refused" in said:
            return Drawn(refused=shown(str(said["refused"]), _WORDS)[1:-1])
        width, height = (int(side) for side in said["sides"])
        if said["size"] == len(data) and 0 < min(width, height) <= max(width, height) < 1 << 32:
            return Drawn(data, width, height, turned=said["turned"] is True)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    raise _garbled(target)


def _garbled(target: Target) -> FileRefused:
    return FileRefused(f"The sandbox's answer about {target.said} is garbled; try the terminal.", code=ErrorCode.LOST)


def _notes(drawn: Drawn, picture: Looked, size: int) -> tuple[str, ...]:
    """Say what was made of the file: a model that points at a pixel must know the scale."""
    stored = f"The file is {drawn.width}x{drawn.height} pixels and {size} bytes"
    turned = ", turned upright" if drawn.turned else ""
    return (f"{stored}; it is shown as {picture.width}x{picture.height}{turned}, and stays as it is.",)
