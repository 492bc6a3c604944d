"""A file system of one folder that answers until it is told to hang, as a network file system without its server does.

It speaks FUSE's protocol itself: nothing has to be installed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path

#: Of linux/fuse.h: operations, and the sizes of what they are answered with.
_GETATTR, _STATFS, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _FORGET, _BATCH_FORGET = 3, 17, 26, 27, 28, 29, 2, 42
_ENOENT, _ENOSYS = 2, 38
_REQUEST = struct.Struct("<IIQQIIII")
_ANSWER = struct.Struct("<IiQ")
_BUFFER = 1 << 17
_MNT_FORCE, _MNT_DETACH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class HangingFolder:
    """Make it as root, `hang` it, and `close` it in any case: what waits for it gets an error then.

    Arguments:
        path: an empty folder, which it is mounted over.
        owner: uid and gid.
    """

    def __init__(self, path: Path, owner: tuple[int, int]) -> None:
        self.path = path
        self._owner = owner
        self._hangs = threading.Event()
        self._fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fd},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
        if _libc.mount(b"taskcell-test", os.fsencode(path), b"fuse.taskcell", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount")
        threading.Thread(target=self._serve, daemon=True).start()

    def hang(self) -> None:
        """Take requests from now on, and answer none."""
        self._hangs.set()

    def close(self) -> None:
        """Give all that waits an error, and unmount it. Once more does nothing."""
        if self._fd >= 0:
            _libc.umount2(os.fsencode(self.path), _MNT_FORCE)  # ends the connection, though it is in use
            _libc.umount2(os.fsencode(self.path), _MNT_DETACH)
            os.close(self._fd)
            self._fd = -1

    def _serve(self) -> None:
        with suppress(OSError):
            fd = self._fd
            while data := os.read(fd, _BUFFER):
                _, operation, unique, *_ = _REQUEST.unpack_from(data)
                if self._hangs.is_set() or operation in (_FORGET, _BATCH_FORGET):
                    continue
                error, body = self._answer(operation)
                os.write(fd, _ANSWER.pack(_ANSWER.size + len(body), -error, unique) + body)

    def _answer(self, operation: int) -> tuple[int, bytes]:
        if operation == _INIT:
            return 0, struct.pack("<IIIIHHII", 7, 31, 0, 0, 12, 10, 4096, 1) + bytes(64 - 32)
        if operation == _GETATTR:
            uid, gid = self._owner
            attributes = struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, uid, gid, 0, 4096, 0)
            return 0, struct.pack("<QII", 0, 0, 0) + attributes
        if operation == _STATFS:
            return 0, struct.pack("<5Q4I", 0, 0, 0, 0, 0, 512, 255, 512, 0) + bytes(24)
        if operation == _OPENDIR:
            return 0, struct.pack("<QII", 0, 0, 0)
        if operation in (_READDIR, _RELEASEDIR):
            return 0, b""
        return (_ENOENT if operation == 1 else _ENOSYS), b""
