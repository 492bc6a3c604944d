"""An image so small that a test can make it."""

from __future__ import annotations

import io
import subprocess
import tarfile


def dash_image(passwd: str = "", group: str = "") -> bytes:
    """A root file system's tar: the host's dash and sleep, with the libraries that they are linked to.

    Arguments:
        passwd, group: what stands in /etc/passwd and /etc/group.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        names = {"/bin/sh": "/bin/dash", "/bin/sleep": "/bin/sleep"}
        linked = subprocess.run(["ldd", *names.values()], check=True, capture_output=True, text=True).stdout
        names |= {word: word for word in linked.split() if word.startswith("/") and not word.endswith(":")}
        for name, source in names.items():
            archive.add(source, arcname=name.lstrip("/"))
        for name, text in (("etc/passwd", passwd), ("etc/group", group)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
