"""What a real API server checks of every object's metadata and sizes, whatever its kind (apimachinery's validation)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: RFC 1123: a name of objects, and of containers.
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
#: Bytes of all annotations, and of a ConfigMap's or Secret's data; letters of a name, and of a label.
ANNOTATIONS_MAX, DATA_MAX = 256 << 10, 1 << 20
_NAME_MAX, _LABEL_MAX = 253, 63


def faults(made: Mapping[str, Any]) -> Iterator[str]:
    """Why an API server would answer 422; nothing where it takes an object."""
    meta = made["metadata"]
    if not (_SUBDOMAIN.fullmatch(meta["name"]) and len(meta["name"]) <= _NAME_MAX):
        yield f"metadata.name: {meta['name']!r} is not a lowercase RFC 1123 subdomain"
    for kind in ("labels", "annotations"):
        for key, value in (meta.get(kind) or {}).items():
            prefix, _, name = key.rpartition("/")
            is_name = _VALUE.fullmatch(name) and 0 < len(name) <= _LABEL_MAX
            if not (is_name and (not prefix or _SUBDOMAIN.fullmatch(prefix))):
                yield f"metadata.{kind}: {key!r} is not a qualified name"
            if not isinstance(value, str):
                yield f"metadata.{kind}: {key} is not a string"
    for key, value in (meta.get("labels") or {}).items():
        if not (isinstance(value, str) and _VALUE.fullmatch(value) and len(value) <= _LABEL_MAX):
            yield f"metadata.labels: {key} may not be {value!r}"
    if _size(meta.get("annotations")) > ANNOTATIONS_MAX:
        yield "metadata.annotations: too long: must have at most 262144 bytes"
    if _size(made.get("data")) + _size(made.get("binaryData")) > DATA_MAX:
        yield "data: too long: must have at most 1048576 bytes"
    names = [one["name"] for one in (made.get("spec") or {}).get("containers") or ()]
    for name in names:
        if not (_LABEL.fullmatch(name) and len(name) <= _LABEL_MAX) or names.count(name) > 1:
            yield f"spec.containers: {name!r} is not a lowercase RFC 1123 label of its own"


def immutable_faults(before: Mapping[str, Any], made: Mapping[str, Any], kind: str) -> Iterator[str]:
    """What of an object must not change."""
    if before.get("immutable") and any(before.get(key) != made.get(key) for key in ("data", "binaryData", "immutable")):
        yield "data: field is immutable when `immutable` is set"
    if kind == "pods":
        for key in ("containers", "volumes", "securityContext", "nodeSelector", "restartPolicy"):
            if (before.get("spec") or {}).get(key) != (made.get("spec") or {}).get(key):
                yield f"spec.{key}: pod updates may not change it"


def _size(table: Mapping[str, Any] | None) -> int:
    return sum(len(key.encode()) + len(str(value).encode()) for key, value in (table or {}).items())
