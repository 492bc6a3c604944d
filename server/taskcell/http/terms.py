"""The labels and the lifetime of a task, as programs send them and read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from taskcell.deployment.opened import Opening
from taskcell.errors import BadArgument
from taskcell.gateway.lifetimes import MAX_LIFETIME
from taskcell.http.wanted import json_object
from taskcell.schema.arguments import check_visible

_FIELDS = {"labels": "an object of texts", "lifetime": "a number of seconds"}
#: Of one task; and characters of a label's value.
MAX_LABELS, MAX_LABEL_VALUE = 16, 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


def terms_of(body: bytes) -> tuple[Mapping[str, str] | None, float | None]:
    """Return labels, and a lifetime in seconds; None for what is left out. Raises BadArgument."""
    fields = json_object(body, _FIELDS)
    labels, lifetime = fields.get("labels"), fields.get("lifetime")
    if lifetime is not None and (
        isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime <= MAX_LIFETIME
    ):
        raise BadArgument(f"'lifetime' must be a number of seconds above 0, and {MAX_LIFETIME:.0f} at most.")
    return None if labels is None else _labels(labels), lifetime


def _labels(labels: Any) -> Mapping[str, str]:
    if not isinstance(labels, dict) or len(labels) > MAX_LABELS:
        raise BadArgument(f"'labels' must be an object of texts, {MAX_LABELS} at most.")
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            raise BadArgument("A label's name has 1 to 63 letters, digits, and . _ / - between them.")
        if not isinstance(value, str) or len(value) > MAX_LABEL_VALUE:
            raise BadArgument(f"The label {name!r} must be a text of {MAX_LABEL_VALUE} characters at most.")
        check_visible(f"labels.{name}", value)
    return labels


def wanted_labels(query: bytes) -> Mapping[str, str]:
    """Return the labels that a query asks for, each as `label=NAME=VALUE`. Raises BadArgument."""
    found = {}
    for key, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        name, equals, value = text.partition("=")
        if key != "label" or not equals:
            raise BadArgument("The query may have labels alone, each as label=NAME=VALUE.")
        found[name] = value
    return found


def opening_fields(opening: Opening) -> dict[str, Any]:
    """The fields of an answer that say them."""
    return {"labels": dict(opening.labels), "ends_in_s": opening.seconds_left}
