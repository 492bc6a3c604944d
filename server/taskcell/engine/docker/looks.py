"""What the engine says of images and containers that never changes, asked once. Everything here blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from docker import APIClient

#: Answers of each kind that are remembered; each takes a few kilobytes.
MAX_LOOKS = 256


class Looks:
    """Remembers them by the engine's own ids, which stand for one content or one container."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._images: dict[str, Mapping[str, Any]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}

    def image(self, image_id: str) -> Mapping[str, Any]:
        """The inspection of an image. Raises APIError."""
        return _known(self._images, image_id, self._client.inspect_image)

    def labels(self, container_id: str) -> Mapping[str, str]:
        """The labels of a container. Raises APIError."""

        def look(one: str) -> Mapping[str, str]:
            return self._client.inspect_container(one)["Config"].get("Labels") or {}

        return _known(self._labels, container_id, look)


def _known(found: dict[str, Mapping[str, Any]], key: str, look: Callable[[str], Any]) -> Mapping[str, Any]:
    known = found.get(key)
    if known is None:
        known = found[key] = look(key)
        while len(found) > MAX_LOOKS:
            found.pop(next(iter(found)), None)
    return known
