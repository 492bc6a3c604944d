"""The configuration and the manifests share these types of fields, and these sentences for their faults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from taskcell.config.toml_source import Fault, Key, suggestion
from taskcell.destinations import Pattern
from taskcell.text import hidden_character
from taskcell.units import parse_cores, parse_duration, parse_size

#: A group of hosts.
_PRESET = re.compile(r"@[a-zA-Z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Only the supervisor sets variables whose names begin so.
RESERVED_VARIABLE = "TASKCELL_"


class Table(BaseModel):
    """A TOML table: immutable, no unknown keys, no guessing of types, and no values in its error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def as_tuple(value: object) -> object:
    """Turn TOML's lists into the tuples that frozen tables hold."""
    return tuple(value) if isinstance(value, list) else value


def _printable(value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise ValueError("must not hold control characters")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def fully_visible(value: str) -> str:
    """Pydantic's check of a text that a model reads, and whoever reviews it for the model."""
    if (hidden := hidden_character(value)) is not None:
        raise ValueError(f"holds {hidden}, which a reader does not see; leave it out")
    return value


def _absolute(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError("must be an absolute path, as in '/work'")
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration)]
Bytes = Annotated[int, BeforeValidator(parse_size)]
Cores = Annotated[float, BeforeValidator(parse_cores)]
#: The engine's limit of processes is a 32-bit number in places.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Word = Annotated[str, AfterValidator(_printable)]
Text = Annotated[str, AfterValidator(_no_nul)]
#: What a model reads.
Prose = Annotated[Text, AfterValidator(fully_visible)]
AbsolutePath = Annotated[str, AfterValidator(_printable), AfterValidator(_absolute)]
Words = Annotated[tuple[Word, ...], BeforeValidator(as_tuple)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_tuple)]


def _egress(value: tuple[str, ...]) -> tuple[str, ...]:
    """Give each entry its one spelling: a pattern over hosts, or `@NAME`."""
    return tuple(entry if _PRESET.fullmatch(entry) else str(Pattern.read(entry)) for entry in value)


#: What may be reached by name.
Reachable = Annotated[Words, AfterValidator(_egress)]


def plain_path(value: str) -> str:
    """Pydantic's check of a path that begins at the configuration's folder where it is not absolute."""
    if value.startswith("~"):
        raise ValueError("must be a path, absolute or relative to the configuration's folder, without '~'")
    return value


def check_variable_name(name: str) -> None:
    """Raise ValueError unless `name` may be set in a sandbox's environment."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not the name of an environment variable: letters, digits and '_', no digit first")
    if name.startswith(RESERVED_VARIABLE):
        raise ValueError(f"begins with {RESERVED_VARIABLE}, which the sandbox keeps for itself; use another name")


def faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Put what a validation found into the user's words, without the values, which may be secret."""
    found = error.errors(include_url=False, include_input=False)
    return [Fault(tuple(detail["loc"]), _sentence(detail, model)) for detail in found]


#: Words of `docker run` and of compose files, and the keys that mean the same here.
_ELSEWHERE = {
    "env": "environment", "args": "command", "cmd": "command", "mounts": "volumes", "mount": "volumes",
    "workdir": "working_dir", "mem_limit": "memory", "mem": "memory", "cpu": "cpus", "pids_limit": "pids",
    "network_mode": "network", "networks": "network", "readonly": "read_only", "capabilities": "cap_add",
    "devices": "gpus", "options": "extra_args", "docker_args": "extra_args",
}  # fmt: skip
#: Words of theirs that nothing here means.
_NOWHERE = {
    "ports": "nothing reaches a sandbox from outside, so leave it out",
    "expose": "nothing reaches a sandbox from outside, so leave it out",
    "privileged": "no sandbox is privileged, so leave it out",
    "env_file": "write its variables into 'environment'",
    "build": "build the image beforehand, and name it in 'image'",
}


def _unknown(word: str, valid: tuple[str, ...]) -> str:
    key = word.lower().replace("-", "_")
    if "environment" in valid and key in _NOWHERE:
        return f"unknown key; {_NOWHERE[key]}"
    meant = _ELSEWHERE.get(key, "")
    hint = f"did you mean '{meant}'?" if meant in valid else suggestion(word, valid)
    return f"unknown key; {hint}"


_TYPES = {
    "string_type": "must be a string, in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "missing": "is missing",
}


def _sentence(detail: Any, model: type[BaseModel]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(detail["loc"][-1]), keys_at(model, detail["loc"][:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    return _TYPES.get(kind, f"is not valid: {detail['msg']}")


def keys_at(model: type[BaseModel], key: Key) -> tuple[str, ...]:
    """Return the keys that the table at `key` may hold; none where that is not a table of known keys."""
    annotation: Any = model
    for part in key:
        annotation = _inner(annotation, part)
    return tuple(_tables(annotation))


def _tables(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from annotation.model_fields
    elif get_origin(annotation) is UnionType:
        for choice in get_args(annotation):
            yield from _tables(choice)


def _inner(annotation: Any, part: str | int) -> Any:
    """The type of one member of a table, a mapping or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0], part)
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return None
