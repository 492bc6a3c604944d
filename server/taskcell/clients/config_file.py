"""A client's configuration file: read whole, kept beside itself before it changes, and replaced in one step."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from taskcell.errors import ConfigError

#: Bytes. Claude Code keeps histories in its file; more than this is not a configuration.
MAX_CONFIG_FILE = 64 << 20
#: Copies of one second; more are made by no person.
MAX_COPIES = 100
#: Copies that are looked at for the one of before a server came in.
MAX_READ = 10
#: Between the name of a file and the time of its copy.
_COPY = ".before-taskcell-"
#: Permissions of a file that was not there before: it may hold tokens of other servers later.
_NEW_FILE = 0o600


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file as it was when it was read. `data` is None where there was none.

    Arguments:
        path: of the file itself, with all links followed, so that a link stays a link.
    """

    path: Path
    data: bytes | None

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read a file. Raises ConfigError if it cannot be read as a file of reasonable size."""
        try:
            real = path.resolve()
            # Without waiting: a FIFO would wait for somebody who writes to it.
            with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigError(f"{path} is not a regular file; move it away, then try again.")
                data = file.read(MAX_CONFIG_FILE + 1)
        except FileNotFoundError:
            return cls(real, None)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{path} cannot be read: {reason}. Mend that, then try again.") from None
        if len(data) > MAX_CONFIG_FILE:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_FILE >> 20} MiB; is it the right file?")
        return cls(real, data)

    @property
    def text(self) -> str:
        """The text; empty where there is no file. Raises ConfigError if it is not UTF-8."""
        try:
            return (self.data or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{self.path} is not UTF-8 text, so it stays as it is; save it as UTF-8.") from None

    def replace(self, text: str) -> Path | None:
        """Write a new text, with the owner and the permissions of the old file.

        Returns:
            Where the old file is kept; None if there was none.

        Raises:
            ConfigError: it cannot be written, or somebody else has changed it meanwhile. The old file is as it was.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
            self._create(made, text.encode("utf-8"))
            try:
                kept = self._keep(self.data) if self.data is not None else None
                if ConfigFile.read(self.path).data != self.data:
                    raise ConfigError(f"{self.path} has just been changed by another program; try again.")
                made.replace(self.path)
            finally:
                made.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}. It is as it was.") from None
        return kept

    def kept(self) -> Iterator[str]:
        """Yield the texts of the copies that are kept beside it and can be read, the newest first."""
        names = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}{_COPY}*"), reverse=True)
        for name in names[:MAX_READ]:
            with contextlib.suppress(ConfigError):
                yield ConfigFile.read(name).text

    def _keep(self, data: bytes) -> Path:
        """Copy the old file beside itself, under a name that no other copy has."""
        name = f"{self.path.name}{_COPY}{datetime.now():%Y%m%d-%H%M%S}"
        for number in range(MAX_COPIES):
            copy = self.path.with_name(f"{name}-{number}" if number else name)
            with contextlib.suppress(FileExistsError):
                self._create(copy, data)
                return copy
        raise ConfigError(f"No copy of {self.path} can be kept beside it; delete old copies, then try again.")

    def _create(self, path: Path, data: bytes) -> None:
        """Write a file that was not there, with the old file's owner and permissions; it is on the disk afterwards."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _NEW_FILE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                # Where there is no file yet, root makes one of the folder's owner.
                old = (self.path if self.data is not None else self.path.parent).stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(handle, old.st_uid, old.st_gid)
                if self.data is not None:
                    os.fchmod(handle, stat.S_IMODE(old.st_mode))
                os.fsync(handle)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
