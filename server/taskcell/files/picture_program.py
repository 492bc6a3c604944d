"""A program that makes a picture as models can be shown it. It runs in the sandbox, where the picture is.

Decoders of pictures have had holes, and what comes from a sandbox is hostile: so the server does not decode. It gives
this file's text to the sandbox's own Python, with the arguments PATH BYTES SIDE. The reply on standard output is a line
of JSON, and behind it the new picture, if there is one:

    {"sides": [W, H], "turned": false, "size": N}   sides of the stored picture; bytes of the new one, 0: show the file
    {"refused": "why"}

It ends with the exit code 3 where Pillow is missing.
"""

from __future__ import annotations

import json
import resource
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

#: Pixels that are decoded. Of a JPEG they are counted after it was halved while decoding, as often as that may be.
MAX_PIXELS = 64_000_000
#: Bytes of address space, and seconds of processor time: what those pixels take twice over.
_MEMORY, _SECONDS = 1 << 30, 20
#: Bytes of the sandbox's memory that are left to what else runs in it.
_RESERVE = 16 << 20
#: The formats that models are shown.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
#: EXIF's tag for how the camera was held; 1 is upright (Exif 2.3, 4.6.4).
ORIENTATION = 0x0112
NO_PILLOW = 3


class CannotShow(Exception):
    """It cannot be shown; `str` says why."""


def main(path: str, most_bytes: int, most_side: int) -> None:
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # Without this, the kernel would end what the task runs, whichever is larger, when memory is used up.
    most = has + min(_MEMORY, max(0, left()))
    for kind, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CPU, _SECONDS), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (limit, limit))
    try:
        said, data = look(path, most_bytes, most_side)
    except CannotShow as refused:
        said, data = {"refused": str(refused)}, b""
    except MemoryError:
        said, data = {"refused": "it needs more memory than the sandbox has left"}, b""
    except Exception as error:  # Pillow raises whatever its decoders do
        said, data = {"refused": "it is broken: " + " ".join(str(error).split())[:200]}, b""
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + data)


def left() -> int:
    """Return how many bytes of memory the sandbox has left, by its cgroup (version 2 or 1), less a reserve."""
    for folder, limit, usage, idle in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, used = (int(Path(folder, name).read_text()) for name in (limit, usage))
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        return most - used + int(stat.get(idle, 0)) - _RESERVE
    return _MEMORY


def look(path: str, most_bytes: int, most_side: int) -> tuple[dict[str, Any], bytes]:
    """Decode the picture, and make it smaller and upright where it must be."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # they are counted below
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as picture:
        stored, format_ = picture.size, picture.format
        turned = picture.getexif().get(ORIENTATION, 1) in range(2, 9)
        fits = max(stored) <= most_side and file.seek(0, 2) <= most_bytes and not turned
        if not fits and format_ == "JPEG":
            picture.draft("RGB", (most_side, most_side))
        if picture.width * picture.height > MAX_PIXELS:
            raise CannotShow(f"it has {stored[0]}x{stored[1]} pixels, and at most {MAX_PIXELS} can be decoded here")
        picture.load()
        data = b"" if fits else made(picture, format_ == "JPEG", most_bytes, most_side)
    return {"sides": stored, "turned": turned, "size": len(data)}, data


def made(picture: Any, is_photo: bool, most_bytes: int, most_side: int) -> bytes:
    """Return the picture upright, not larger than the sides, and of at most so many bytes."""
    from PIL import Image, ImageOps

    if picture.mode.startswith("I"):  # 16 bits of grey
        picture = picture.point(lambda value: value / 256).convert("L")
    is_clear = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("RGBA" if is_clear else "RGB")
    # Halves come first: each further step then works on a small picture, and all of them take little memory.
    picture = picture.reduce(max(1, max(picture.size) // (2 * most_side)))
    picture = ImageOps.exif_transpose(picture.convert("RGBA" if is_clear else "RGB"))
    side = most_side
    while True:
        small = picture.copy()
        small.thumbnail((side, side), Image.LANCZOS)
        for options in ({"format": "JPEG", "quality": 85},) if is_photo else ({"format": "PNG"}, {"format": "JPEG"}):
            out = BytesIO()
            on_white(small, options["format"] == "JPEG").save(out, **options)
            if out.tell() <= most_bytes:
                return out.getvalue()
        side = side * 3 // 4


def on_white(picture: Any, is_wanted: bool) -> Any:
    """Return the picture without transparency, which JPEG does not have."""
    from PIL import Image

    if not is_wanted or picture.mode != "RGBA":
        return picture
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture)
    return white


if __name__ == "__main__":
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        sys.exit(NO_PILLOW)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
