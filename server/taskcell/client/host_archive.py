"""Folders of this machine as tar archives, in pieces; and archives that a sandbox sends, unpacked with distrust.

Nothing that an archive holds is written outside of the place that was named: no `..`, no absolute name, nothing through
a link that came with it, and no link that leads out.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from taskcell.errors import TaskcellError

#: Where the data of a sparse file is: offsets and sizes.
Sparse = list[tuple[int, int]] | None
#: Bytes that are read at once.
CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)
#: What begins the comment by which the sandbox says why its archive breaks off.
_BROKEN = "taskcell: "


def packed(source: Path, name: str, skipped: Callable[[str], None]) -> Iterator[bytes]:
    """The pieces of an archive of a file or folder. Raises OSError.

    Arguments:
        name: of the entry at its top.
        skipped: called with the path of what is neither a file, a folder nor a link.
    """
    seen: dict[tuple[int, int], str] = {}
    # A folder's names alone are held, and not what comes of them: it may have a million.
    waiting = [iter([(source, name)])]
    while waiting:
        path, inner = next(waiting[-1], (None, ""))
        if path is None:
            waiting.pop()
            continue
        found = path.stat() if path == source else path.lstat()
        if stat.S_ISDIR(found.st_mode):
            yield _header(found, inner, tarfile.DIRTYPE)
            waiting.append(_children(path, inner))
        elif stat.S_ISLNK(found.st_mode):
            yield _header(found, inner, tarfile.SYMTYPE, str(path.readlink()))
        elif not stat.S_ISREG(found.st_mode):
            skipped(str(path))
        elif found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
            yield _header(found, inner, tarfile.LNKTYPE, seen[found.st_dev, found.st_ino])
        else:
            if found.st_nlink > 1:
                seen[found.st_dev, found.st_ino] = inner
            yield from _packed_file(path, inner)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _children(path: Path, inner: str) -> Iterator[tuple[Path, str]]:
    return ((path / child, f"{inner}/{child}") for child in sorted(os.listdir(path)))


def _header(found: os.stat_result, name: str, kind: bytes, link: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _packed_file(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        yield _header(found, name, tarfile.REGTYPE, size=found.st_size)
        left = found.st_size
        while left and (data := file.read(min(CHUNK, left))):
            left -= len(data)
            yield data
        if left:
            raise TaskcellError(f"{path} became shorter while it was read; copy it again.")
        yield bytes(-found.st_size % tarfile.BLOCKSIZE)


class Unpacking:
    """Unpacks one archive.

    Arguments:
        base: the folder that it goes to.
        name: the entry at its top gets this name; empty: its content goes into `base` itself.
        left_out: called with a sentence about each link that leads out.
    """

    def __init__(self, base: Path, name: str, left_out: Callable[[str], None]) -> None:
        self._base = base
        self._name = name
        self._left_out = left_out
        self._modes: list[tuple[Path, int]] = []
        self._folders: set[Path] = {base}

    def unpack(self, stream: IO[bytes]) -> None:
        """Raises TaskcellError: it breaks off, or holds what may not be written; OSError."""
        try:
            with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
                self._take_all(archive)
        except tarfile.TarError as error:
            raise TaskcellError(f"The archive broke off or is damaged ({error}); copy again.") from None
        for path, mode in reversed(self._modes):
            path.chmod(mode)

    def _take_all(self, archive: tarfile.TarFile) -> None:
        try:
            for info in archive:
                self._take(archive, info)
                cast(Any, archive).members = []  # or it would hold a million files' entries
        finally:
            self._check_whole(archive)

    @staticmethod
    def _check_whole(archive: tarfile.TarFile) -> None:
        comment = archive.pax_headers.get("comment", "")
        if comment.startswith(_BROKEN):
            why = "".join(letter if letter.isprintable() else "?" for letter in comment.removeprefix(_BROKEN))
            raise TaskcellError(f"Not all could be read in the sandbox: {why}. What came before it is here.")

    def _place(self, name: str) -> Path:
        """Where an entry goes. Raises TaskcellError for a name that leads anywhere else."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            raise TaskcellError(f"The archive has the name {name!r}, which leads out of it; nothing more was unpacked.")
        top = [self._name] if self._name else []
        return self._base.joinpath(*top, *(parts if name.partition("/")[0] == "." else parts[1:]))

    def _take(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        place = self._place(info.name)
        if info.isdir():
            self._make_folder(place, info.mode)
            return
        self._check_parent(place)
        if info.issym() and not self._leads_in(place, info.linkname):
            self._left_out(f"{place} -> {info.linkname!r} leads out of what is copied, so this link was left out.")
            return
        if place.is_dir() and not place.is_symlink():
            raise TaskcellError(f"{place} is a folder here, and a file in the task; remove it, or name another place.")
        place.unlink(missing_ok=True)
        if info.issym():
            place.symlink_to(info.linkname)
        elif info.islnk():
            other = self._place(info.linkname)
            self._check_parent(other)
            os.link(other, place, follow_symlinks=False)
        elif info.isreg():
            self._write(archive, info, place)
        else:
            raise TaskcellError(f"The archive has a device or pipe at {place}; nothing more was unpacked.")

    def _make_folder(self, place: Path, mode: int) -> None:
        self._check_parent(place)
        if place.is_symlink() or not place.is_dir():
            place.mkdir(mode=0o700)
            self._modes.append((place, mode & 0o777))
        self._folders.add(place)

    def _check_parent(self, place: Path) -> None:
        """Raise TaskcellError unless the folder of an entry came before it, or is there, and is no link."""
        if place == self._base:
            return
        parent = place.parent
        if parent in self._folders:
            return
        self._check_parent(parent)
        if parent.is_symlink() or not parent.is_dir():
            raise TaskcellError(f"{parent} is not a folder, and the archive writes into it; nothing more was unpacked.")
        self._folders.add(parent)

    def _leads_in(self, place: Path, target: str) -> bool:
        """Whether a link stays in what is copied: it may go up first, and down then through whatever stays in it."""
        parts = [part for part in target.split("/") if part not in ("", ".")]
        up = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
        depth = len(place.parent.relative_to(self._base).parts) - (1 if self._name else 0)
        return not posixpath.isabs(target) and ".." not in parts[up:] and up <= depth

    def _write(self, archive: tarfile.TarFile, info: tarfile.TarInfo, place: Path) -> None:
        cast(Any, archive.fileobj).seekable = lambda: True  # forward it is, but it does not say so
        # Without the buffer around it, which reads ahead.
        data: IO[bytes] = cast(Any, archive.extractfile(info)).raw
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
                for offset, size in cast(Sparse, info.sparse) or ((0, info.size),):
                    data.seek(offset)
                    file.seek(offset)
                    _copy(data, file, size)
                file.truncate(info.size)
                os.fchmod(file.fileno(), info.mode & 0o777)
                file.flush()
                os.utime(file.fileno(), (info.mtime, info.mtime))
        except BaseException:
            place.unlink(missing_ok=True)
            raise


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy so many bytes; zeros become holes. Raises tarfile.ReadError when there are fewer."""
    while size:
        piece = source.read(min(CHUNK, size))
        if not piece:
            raise tarfile.ReadError("unexpected end of data")
        size -= len(piece)
        if piece == _ZEROS:
            target.seek(len(piece), os.SEEK_CUR)
        else:
            target.write(piece)
