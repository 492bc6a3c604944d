"""Read arguments in the forms that clients send them: null for what is left out, numbers and lists as text.

Strict clients must send every argument, and small models write numbers as text. A form is taken where it has one
meaning only; everything else stays as it is, for the check against the schema to refuse.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: A key of a property: the calls in which it has a meaning, as values of other properties, such as
#: `{"action": ["write"]}`. In other calls it is ignored.
ONLY_WHEN = "taskcell/only_when"
#: A key of an optional text: True if empty text is a value of its own. Otherwise empty text means the same as nothing,
#: whatever the type.
EMPTY_COUNTS = "taskcell/empty_counts"

#: What JSON calls a number, and a plus sign.
_NUMBER = re.compile(r"\+?(-?(?:0|[1-9][0-9]*))(?:\.0+|(?P<rest>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?))")
#: Characters; the longest number that a parameter may hold has 309 digits.
_MAX_NUMBER = 400
_BOOLEANS = {"true": True, "false": False}


def in_form(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's values in the form of its schema, without those that say nothing. Nothing is checked."""
    properties, required = schema["properties"], schema.get("required", ())
    given = {}
    for name, sent in values.items():
        rule = properties.get(name, {})
        value = _read(rule, sent)
        if value is not None and (value != "" or name in required or _empty_counts(rule)):
            given[name] = value
    return {name: value for name, value in given.items() if _has_meaning(properties, name, given)}


def _has_meaning(properties: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> bool:
    conditions = properties.get(name, {}).get(ONLY_WHEN, {})
    return all(given.get(other, properties[other].get("default")) in fitting for other, fitting in conditions.items())


def _empty_counts(rule: Mapping[str, Any]) -> bool:
    return bool(rule.get(EMPTY_COUNTS)) or "" in rule.get("enum", ())


def _read(rule: Mapping[str, Any], value: Any) -> Any:
    """Return a value in the form of its schema, or as it is if it has no such form."""
    kind = rule.get("type")
    if isinstance(value, str):
        if kind in ("integer", "number"):
            value = _number(value)
        elif kind == "boolean":
            value = _BOOLEANS.get(value.strip().lower(), value)
        elif kind in ("array", "object"):
            value = _document(value)
    if kind == "object" and "properties" not in rule:
        return _pairs(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "array" and isinstance(value, dict) and rule.get("items", {}).get("type") == "object":
        value = [value]
    if kind == "array" and isinstance(value, list) and "items" in rule:
        return [_read(rule["items"], item) for item in value]
    if kind == "object" and isinstance(value, dict) and "properties" in rule:
        return in_form(rule, value)
    return value


def _number(text: str) -> int | float | str:
    found = _NUMBER.fullmatch(text.strip()) if len(text) <= _MAX_NUMBER else None
    if found is None:
        return text
    if not found["rest"]:
        return int(found[1])
    number = float(found[1] + found["rest"])
    return number if math.isfinite(number) else text


def _document(text: str) -> Any:
    """Return the list or the object that a text is in JSON, or else the text."""
    try:
        value = json.loads(text) if text.lstrip().startswith(("[", "{")) else text
    except (ValueError, RecursionError):
        return text
    return value


def _pairs(value: Any) -> Any:
    """Return an object of texts for a list of `NAME=value`, as it is published for strict clients."""
    if not isinstance(value, list) or not all(isinstance(item, str) and "=" in item for item in value):
        return value
    return dict(item.split("=", 1) for item in value)
