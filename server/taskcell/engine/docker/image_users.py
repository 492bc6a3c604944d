"""Who a profile's commands run as, in numbers: names are those of its image. Everything here blocks."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from docker import APIClient
from docker.errors import APIError

from taskcell.model import Profile

#: Where an image says which numbers its users have.
_USERS = "/etc/passwd"
#: Bytes of it that are looked at: as many as the supervisor looks at.
_MOST = 1 << 20
#: Of whom an image does not know: then nothing runs in the sandbox, and the first command says why.
NOBODY_KNOWN = (1000, 1000)


class ImageUsers:
    """Remembers what it has found of each image: its id stands for its content."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._found: dict[tuple[str, str], tuple[int, int]] = {}

    def numbers_of(self, profile: Profile, image: Mapping[str, Any]) -> tuple[int, int]:
        """Return uid and gid of whom the profile's commands run as, in the container. Raises APIError.

        Arguments:
            image: the engine's inspection of the profile's image.
        """
        user, _, group = profile.user.partition(":")
        if user.isdigit():
            return int(user), int(group) if group.isdigit() else int(user)
        key = str(image["Id"]), user
        if key not in self._found:
            self._found[key] = named_in(self._read(key[0]), user)
        uid, gid = self._found[key]
        return uid, int(group) if group.isdigit() else gid

    def _read(self, image: str) -> str:
        """The image's list of users; empty where it has none. A container is made for that, and never started."""
        config = self._client.create_container_config(image, ["-"], entrypoint=["-"], labels={"taskcell.kind": "look"})
        name = f"taskcell-look-{secrets.token_hex(8)}"
        made = self._client.create_container_from_config(config, name)["Id"]
        try:
            return _text_of(self._client, made)
        finally:
            self._client.remove_container(made, force=True, v=True)


def _text_of(client: APIClient, container_id: str) -> str:
    try:
        chunks, _ = client.get_archive(container_id, _USERS)
    except APIError:
        return ""
    data = b"".join(_first(chunks, _MOST))
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
            entry = archive.next()
            file = archive.extractfile(entry) if entry is not None and entry.isfile() else None
            return "" if file is None else file.read().decode("utf-8", "replace")
    except (tarfile.TarError, OSError):
        return ""


def _first(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        most -= len(chunk)
        if most < 0:
            return


def named_in(text: str, user: str) -> tuple[int, int]:
    """Return a user's uid and gid by the lines of an /etc/passwd."""
    for line in text.splitlines():
        name, *fields = line.split(":")
        if name == user and len(fields) > 2 and fields[1].isdigit() and fields[2].isdigit():
            return int(fields[1]), int(fields[2])
    return NOBODY_KNOWN
