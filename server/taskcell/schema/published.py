"""The part of a schema that clients get: what every one of them can read. The server checks the rest.

Clients hand schemas on to converters, each of which reads another part of JSON Schema, and one property that a
converter cannot read costs the client the tool, or the whole list of tools:

- Patterns: OpenAI's strict mode and Rust's regex refuse look-around; a grammar of llama.cpp reads hardly any escape.
- `exclusiveMinimum`: Gemini refuses it.
- Bounds: a grammar counts lengths and repetitions out, and numbers up to 64 bits; strict modes refuse lengths. Only
  those stay that help a model.
- `enum`: Gemini reads texts alone, and none that is empty. OpenAI bounds their number and length. Where they cannot be
  published, the description has them.
- Objects must have `additionalProperties: false`: OpenAI's and Anthropic's strict modes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

#: A larger bound says nothing that a model could use, and neither do -1, 0 and 1; readers of 32 bits fail beyond them.
MAX_BOUND = 10_000
MAX_CHOICES = 500
MAX_CHOICE_CHARS = 7_500
#: Choices that a description spells out where `enum` cannot have them.
MAX_SPELLED = 20

#: A key of a property: the schema to publish in its place.
INSTEAD = "taskcell/published"

_KEPT = ("type", "description", "default")


def published(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema as clients get it, of a schema that the server checks."""
    rule = schema.get(INSTEAD, schema)
    kept = {key: rule[key] for key in _KEPT if key in rule}
    if kept.get("default") is False:
        del kept["default"]  # as every reader takes a switch that nobody mentions
    kept |= {key: rule[key] for key in ("minimum", "maximum") if key in rule and 1 < abs(rule[key]) <= MAX_BOUND}
    choices = rule.get("enum", ())
    if _is_readable(choices):
        kept["enum"] = list(choices)
    elif 0 < len(choices) <= MAX_SPELLED and "description" in kept:
        kept["description"] += f" One of {', '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}."
    if "items" in rule:
        # The list's own description says enough, and each word of a schema is paid for in every request.
        kept["items"] = published({key: value for key, value in rule["items"].items() if key != "description"})
    if rule.get("type") == "object":
        properties = rule.get("properties", {})
        kept["properties"] = {name: published(inner) for name, inner in properties.items()}
        if rule.get("required"):
            kept["required"] = list(rule["required"])
        kept["additionalProperties"] = False
    return kept


def _is_readable(choices: Sequence[Any]) -> bool:
    return (
        0 < len(choices) <= MAX_CHOICES
        and all(isinstance(choice, str) and choice for choice in choices)
        and sum(map(len, choices)) <= MAX_CHOICE_CHARS
    )
