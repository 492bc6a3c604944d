"""An image so small that a test can make it."""

from __future__ import annotations

import io
import subprocess
import tarfile


def dash_image(passwd: str = "") -> bytes:
    """A root file system's tar: the host's dash and sleep, with the libraries that they are linked to.

    Arguments:
        passwd: what stands in /etc/passwd.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        names = {"/bin/sh": "/bin/dash", "/bin/sleep": "/bin/sleep"}
        linked = subprocess.run(["ldd", *names.values()], check=True, capture_output=True, text=True).stdout
        names |= {word: word for word in linked.split() if word.startswith("/") and not word.endswith(":")}
        for name, source in names.items():
            archive.add(source, arcname=name.lstrip("/"))
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, io.BytesIO(passwd.encode()))
    return buffer.getvalue()
