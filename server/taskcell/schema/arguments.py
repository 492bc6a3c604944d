"""Check a tool call's arguments: whatever a client sends either fits the schema, or is a BadArgument."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from taskcell.errors import BadArgument
from taskcell.schema.forms import in_form
from taskcell.schema.pattern import plain
from taskcell.text import shown
from taskcell.units import format_seconds

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

#: The types of JSON Schema, as people say them.
TYPE_WORDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
#: What a value looks like whose form cannot be guessed from another one.
_EXAMPLES = {"array": ' such as ["a", "b"]', "object": ' such as {"NAME": "value"} or a list such as ["NAME=value"]'}


def nearest(word: str, options: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` with the option that a wrong word is closest to; empty where none is close."""
    close = difflib.get_close_matches(word[:128], sorted(options), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


class Arguments:
    """A JSON Schema (draft 2020-12, no references) and the check of arguments against it.

    Arguments:
        schema: the schema of an object, whose properties each have a type and a description. Faults are found in the
            order of its keywords, so those that are cheap to check come first.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._properties: Mapping[str, Any] = schema["properties"]

    @cached_property
    def _validator(self) -> Draft202012Validator:
        """Made when it is needed: a server answers its client's first request before it has a validator."""
        from taskcell.schema.validator import validator_of

        return validator_of(self._schema)

    def check(self, tool: str, arguments: object) -> Mapping[str, Any]:
        """Return the arguments in the schema's form if they fit it. Raises BadArgument with the first fault."""
        if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
            raise BadArgument(f"The arguments of '{tool}' must be an object with text for names.")
        self._check_names(tool, arguments)
        try:
            _check_whole(arguments)
        except RecursionError:
            raise BadArgument(f"The arguments of '{tool}' are nested too deeply; send plain values.") from None
        values = in_form(self._schema, arguments)
        try:
            # The first alone: a list of a million wrong elements has a million faults.
            error = next(self._validator.iter_errors(values), None)
        except RecursionError:
            raise BadArgument(f"The arguments of '{tool}' are nested too deeply; send plain values.") from None
        if error is not None:
            raise BadArgument(_sentence(tool, error))
        return values

    def _check_names(self, tool: str, arguments: Mapping[str, Any]) -> None:
        for name in arguments:
            if name not in self._properties:
                hint = nearest(name, self._properties)
                valid = ", ".join(self._properties)
                raise BadArgument(f"'{tool}' has no argument {shown(name)}{hint}; it takes {valid}.")


def _check_whole(value: object, *path: str | int) -> None:
    """Raise BadArgument if a text in a value holds half of a surrogate pair, which no text can."""
    if isinstance(value, str):
        if not value.isascii():
            as_utf8(_spelled(path), value)
    elif isinstance(value, list | Mapping):
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            if isinstance(item, str | list | Mapping):
                _check_whole(item, *path, key)


def first_flaw(schema: Mapping[str, Any], value: object) -> tuple[tuple[str | int, ...], str] | None:
    """Return where a value breaks a schema (without references) and the end of a sentence on what it must be.

    Returns None if the value fits.
    """
    from taskcell.schema.validator import validator_of

    error = next(validator_of(schema).iter_errors(value), None)
    return None if error is None else (tuple(error.absolute_path), _flaw(error))


def _sentence(tool: str, error: ValidationError) -> str:
    """Describe the fault without the value, which may be secret, huge or hostile."""
    if error.validator == "required":
        instance: Any = error.instance
        required: Any = error.validator_value
        missing = next(word for word in required if word not in instance)
        place = _spelled(list(error.absolute_path))
        return f"{shown(place) if place else repr(tool)} needs '{missing}'."
    path = list(error.absolute_path)
    name = shown(_spelled(path)) if path else f"The call of '{tool}'"
    return f"{name} {_flaw(error)}."


def _flaw(error: ValidationError) -> str:
    bound: Any = error.validator_value
    if error.validator == "type":
        kind = "a fraction" if (bound, type(error.instance)) == ("integer", float) else _kind_of(error.instance)
        return f"must be {TYPE_WORDS.get(str(bound), bound)}{_example(str(bound), error.schema)}, not {kind}"
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        known: Mapping[str, Any] = error.schema.get("properties", {})
        wrong = next((name for name in error.instance if name not in known), "")  # type: ignore[union-attr]
        return f"has no {shown(str(wrong))}{nearest(str(wrong), known)}; it takes {', '.join(known)}"
    if error.validator in ("minimum", "maximum", "exclusiveMinimum") and isinstance(error.schema, Mapping):
        return f"must be {_range(error.schema)}"
    sentences = {
        "enum": f"must be one of {', '.join(map(repr, bound)) if isinstance(bound, list) else bound}",
        "pattern": f"must match the regular expression {plain(str(bound))} from beginning to end",
        "minLength": "must not be empty",
        "maxLength": f"is longer than {bound} characters",
        "minItems": f"must have at least {bound} element{'' if bound == 1 else 's'}",
        "maxItems": f"has more than {bound} elements; send fewer in one call, or write them to a file",
        "maxProperties": f"has more than {bound} variables",
    }
    return sentences.get(str(error.validator), f"breaks the rule {error.validator} of its schema")


def _example(kind: str, rule: object) -> str:
    """Return how a value of a type looks, where its schema does not say what is in it."""
    inner = rule.get("items", rule) if isinstance(rule, Mapping) else {}
    if "properties" in inner:
        names = ", ".join(inner["properties"])
        return f" of objects with {names}" if kind == "array" else f" with {names}"
    return _EXAMPLES.get(kind, "")


def _range(schema: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "more than", "minimum": "at least", "maximum": "at most"}
    return " and ".join(f"{word} {schema[key]}" for key, word in words.items() if key in schema)


def _spelled(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, word in ((str, "text"), (int | float, "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return word
    return "something else"


def encoded(name: str, text: str) -> bytes:
    """Return text as UTF-8. Raises BadArgument if it holds NUL, or half of a surrogate pair."""
    if "\0" in text:
        raise BadArgument(f"'{name}' holds a NUL character, which no argument of a program can hold.")
    return as_utf8(name, text)


def as_utf8(name: str, text: str) -> bytes:
    """Return text as UTF-8. Raises BadArgument if it holds half of a surrogate pair."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"{shown(name)} is not valid Unicode at character {error.start}"
        raise BadArgument(f"{what}: send whole characters.") from None


def check_visible(name: str, text: str) -> None:
    """Raise BadArgument if a text that names something holds control characters or broken Unicode."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise BadArgument(f"'{name}' must not hold control characters or line breaks.")


def seconds(name: str, value: float, most: float) -> tuple[float, tuple[str, ...]]:
    """Return a duration of a call, in seconds and at most `most`, and a note if it was longer.

    Raises BadArgument unless it is a finite number from 0 on.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise BadArgument(f"'{name}' must be a finite number of seconds.")
    if value < 0:
        raise BadArgument(f"'{name}' must be at least 0 seconds.")
    if value > most:
        return most, (f"'{name}' was cut to {format_seconds(most)} s, the most that is allowed.",)
    # Compared before it is converted: an integer may be too large for a float.
    return float(value), ()
