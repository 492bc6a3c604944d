"""The tar that the engine builds an image from."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from docker.utils.build import exclude_paths

from taskcell.errors import EngineError
from taskcell.units import format_size

#: Bytes. More than any sources; less than a home folder that was named by mistake.
MAX_CONTEXT = 2 << 30
_IGNORED = ".dockerignore"


def write_context(file: IO[bytes], dockerfile: str, context: Path | None, most: int = MAX_CONTEXT) -> None:
    """Write a Dockerfile and the files of a folder, which all belong to root, without what `.dockerignore` names.

    Raises EngineError: a file cannot be read, or there are more than `most` bytes.
    """
    with tarfile.open(fileobj=file, mode="w") as archive:
        source = dockerfile.encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(source)
        archive.addfile(entry, io.BytesIO(source))
        try:
            for name in _names(context) if context else ():
                if name != "Dockerfile" and context is not None:
                    archive.add(context / name, name, recursive=False, filter=_owned_by_root)
                if file.tell() > most:
                    raise EngineError(
                        f"The folder {context} holds more than {format_size(most)}; name what is not needed in "
                        f"its {_IGNORED}, or put the Dockerfile into a folder of its own."
                    )
        except OSError as error:
            raise EngineError(f"The folder {context} cannot be read: {error}.") from None


def _names(context: Path) -> Iterator[str]:
    """Paths of what the folder holds, relative to it, each folder before what is in it."""
    ignored = context / _IGNORED
    patterns = ignored.read_text(encoding="utf-8", errors="replace").splitlines() if ignored.is_file() else []
    wanted = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    yield from sorted(exclude_paths(str(context), wanted))


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
