"""What the engine's messages mean, in one place.

Messages are not an interface: this module reads those of Docker 20.10 to 29 and Podman 4, and makes a general error
with the engine's own words from any other. It never sees what a command printed.
"""

from __future__ import annotations

from collections.abc import Collection

import requests.exceptions
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from taskcell.errors import EngineError, EngineUnavailable, ImageMissing, TaskcellError
from taskcell.text import MESSAGE_SHOWN, shown


def classify(error: Exception, doing: str) -> TaskcellError:
    """The error for the user.

    Arguments:
        doing: what was being done, as in "start the sandbox".
    """
    if isinstance(error, TaskcellError):
        return error
    if isinstance(error, ImageNotFound):
        return ImageMissing(f"The engine could not {doing}: {_said(error)}.")
    if isinstance(error, APIError):
        return _classify_api(error, doing)
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout | OSError):
        return EngineUnavailable(
            f"The engine could not {doing}: it does not answer. The person who runs the server must start it again, or "
            "see `taskcell doctor` on the host."
        )
    if isinstance(error, DockerException):
        return EngineUnavailable(f"The engine could not {doing}: {_quoted(str(error))}.")
    return EngineError(f"The engine could not {doing}: {type(error).__name__}.")


_NO_FOLDER = (
    "the image has something else where the sandbox mounts a folder",
    " Use an image in which that is a folder, or is missing.",
)
#: What an engine lacks, by words of its message, and what to do about it.
_LACKING = (
    (("unknown runtime",), ("it does not have the configured runtime", "")),
    (("unknown or invalid runtime",), ("it does not have the configured runtime", "")),
    (("could not select device driver",), ("it has no GPU support", "")),
    (("network", "not found"), ("it does not have the profile's network", "")),
    *(
        ((f"merged/etc/{name}",), (f"it cannot read the image's /etc/{name}", " Use an image in which that is a file."))
        for name in ("passwd", "group")
    ),
    (("error mounting", "not a directory"), _NO_FOLDER),
    (("cannot mkdir", "is not a directory"), _NO_FOLDER),
    (
        ("storage-opt",),
        (
            "its storage cannot bound a sandbox's disk",
            " Leave out 'disk', or have the engine keep its data on XFS with the mount option pquota, or on btrfs.",
        ),
    ),
)


def _classify_api(error: APIError, doing: str) -> EngineError:
    said = _said(error)
    lower = str(error.explanation or error).lower()
    if "no space left on device" in lower:
        return EngineError(
            f"The engine could not {doing}: its disk is full. The person who runs the server must make room on the "
            "host (`docker system df`)."
        )
    if lacking := next((what for words, what in _LACKING if all(word in lower for word in words)), None):
        return EngineError(f"The engine could not {doing}: {lacking[0]} ({said}).{lacking[1]}")
    if "opening seccomp profile failed" in lower:
        return EngineError(
            f"The engine could not {doing}: it does not find the file with the filter of system calls that the server "
            f"gave it ({said}); the person who runs the server must set its TMPDIR to a folder that both of them see."
        )
    return EngineError(f"The engine could not {doing}: {said}.")


def is_gone(error: Exception) -> bool:
    """The object is gone, or is being removed."""
    return isinstance(error, NotFound) or (
        isinstance(error, APIError) and error.status_code == 409 and "already in progress" in str(error)
    )


def is_not_running(error: BaseException | None) -> bool:
    """The container exists but does not run."""
    return isinstance(error, APIError) and error.status_code in {404, 409}


def is_paused(error: Exception) -> bool:
    """The container is paused: it cannot be killed before it goes on."""
    return isinstance(error, APIError) and "is paused" in str(error)


def is_in_use(error: Exception) -> bool:
    """Something else still uses the volume or the name."""
    return isinstance(error, APIError) and error.status_code == 409


def is_unlimited(error: Exception) -> bool:
    """The storage of the engine's volumes has no quotas, or the engine is too old to know the option."""
    text = str(error)
    return isinstance(error, APIError) and ("quota" in text or "invalid option" in text)


def lacks_supervisor(error: Exception) -> bool:
    """The supervisor's volume is empty: it was removed after it had been filled."""
    text = str(error)
    return isinstance(error, APIError) and "supervisor" in text and "no such file or directory" in text


def lacks_workspace(error: Exception, holders: Collection[str]) -> bool:
    """The last container with the task's files in memory has gone since they were looked for, and they with it.

    Arguments:
        holders: ids of the containers that had the files.
    """
    text = str(error).lower()
    gone = any(f"no such container: {holder}" in text for holder in holders)
    return isinstance(error, APIError) and bool(holders) and (gone or "no such volume" in text)


def _said(error: APIError) -> str:
    return _quoted(str(error.explanation or error))


def _quoted(text: str) -> str:
    return shown(" ".join(text.split()).rstrip("."), MESSAGE_SHOWN)
