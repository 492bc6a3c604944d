"""Which manifests there are on the disk, and whether they have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

#: A change of a manifest changes this: each file's name, device, inode, size and times.
Stamp = tuple[tuple[object, ...], ...]


def stamp(paths: Sequence[Path]) -> Stamp:
    """Return a stamp of the manifests on the disk. Equal stamps mean the same files with the same content."""
    wrong: list[str] = []
    files = [_file_stamp(file) for file in manifest_files(paths, wrong)]
    return (*files, tuple(wrong))


def _file_stamp(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return (str(file), error.errno)
    return (str(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def manifest_files(paths: Sequence[Path], wrong: list[str]) -> Iterator[Path]:
    """Yield every manifest once, in order. What cannot be read is added to `wrong`, as a sentence."""
    seen = set()
    for path in paths:
        try:
            if path.is_dir():
                files = sorted(file for file in path.glob("*.toml") if file.is_file())
            elif path.is_file():
                files = [path]
            else:
                wrong.append(f"{path}: there is no such file or folder; correct 'manifests' in the configuration")
                continue
        except OSError as error:
            wrong.append(f"{path}: cannot be read: {error.strerror or error}")
            continue
        for file in files:
            if (resolved := file.resolve()) not in seen:
                seen.add(resolved)
                yield file
