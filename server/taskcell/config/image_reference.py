"""Read image references, and complete them to the one full form that patterns are matched against."""

from __future__ import annotations

import re

from taskcell.text import shown

#: The reference grammar of the image distribution specification: name at most 255 characters, tag at most 128.
MAX_REFERENCE = 512
MAX_NAME = 255
DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
#: Of the images that taskcell builds, and never pulls.
NAME_PREFIX = "taskcell/"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)??(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,128}))?"
)
_ENGINE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


def full_reference(image: str) -> str:
    """Complete an image reference: `alpine` becomes `docker.io/library/alpine:latest`.

    Raises:
        ValueError: the text is not a reference, or is an engine's image id.
    """
    match = _REFERENCE.fullmatch(image) if len(image) <= MAX_REFERENCE else None
    if match is None:
        raise ValueError(f"{shown(image)} is not an image reference; write it as in 'python:3.12-slim'")
    if _ENGINE_ID.fullmatch(image):
        raise ValueError(f"{shown(image)} is an image's id, which has no name to judge; name the image instead")
    domain, path = _split_domain(image[: match.end("path")])
    if len(path) > MAX_NAME:
        raise ValueError(f"{shown(image)} has a name of more than {MAX_NAME} characters; use a shorter one")
    tag, digest = match["tag"], match["digest"]
    if not tag and not digest:
        tag = DEFAULT_TAG
    return f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def full_pattern(pattern: str) -> str:
    """Complete a pattern as references are: `alpine` is its tag `latest`, `taskcell/*` all of that name on docker.io.

    A pattern that begins with a wildcard stays as it is, because it is meant to match any registry.
    """
    if pattern[:1] in "*?[":
        return pattern
    domain, path = _split_domain(pattern)
    last = path.rsplit("/", 1)[-1]
    bare = not any(mark in last for mark in "*?[:@")
    return f"{domain}/{path}" + (f":{DEFAULT_TAG}" if bare else "")


def _split_domain(name: str) -> tuple[str, str]:
    """Docker's rule: the first part is a registry if it holds a dot or a colon, or is `localhost`."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        domain, path = first.lower(), rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == f"index.{DEFAULT_DOMAIN}":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
