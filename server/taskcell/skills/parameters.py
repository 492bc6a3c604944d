"""Turn a manifest's tables of parameters into JSON Schema, and checked values into the words of a command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from taskcell.config.fields import Count, Prose, Table, as_tuple, faults, fully_visible
from taskcell.config.toml_source import Fault
from taskcell.errors import BadArgument
from taskcell.schema.arguments import encoded, first_flaw
from taskcell.schema.pattern import anchored, check_pattern
from taskcell.schema.properties import MAX_ARGS
from taskcell.skills.template import PARAMETER_NAME

#: Every tool takes this argument in any case.
RESERVED_PARAMETER = "task_id"
#: Characters of a value that is matched against a pattern, unless `max_length` says otherwise: the time of a match
#: grows with the text.
MAX_MATCHED = 4096
#: No float is larger, so that `number` has one range whatever a client's own numbers can hold.
MAX_NUMBER = 10**309
#: The largest integer that is exact in JavaScript and fits the 64 bits of other clients.
MAX_EXACT = (1 << 53) - 1
_NUMERIC = ("integer", "number")


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _portable(value: str) -> str:
    check_pattern(value)
    return value


Number = Annotated[Any, AfterValidator(_number)]


class ValueTable(Table):
    """The keys that shape one value: a parameter's, or an array's items'."""

    type: Literal["string", "integer", "number", "boolean"]
    description: Prose = ""
    enum: Annotated[tuple[Any, ...] | None, BeforeValidator(as_tuple)] = None
    minimum: Number = None
    maximum: Number = None
    pattern: Annotated[Prose, AfterValidator(_portable)] | None = None
    max_length: Count | None = None


class ParameterTable(ValueTable):
    """An entry of `[skills.NAME.tools.TOOL.parameters]`."""

    type: Literal["string", "integer", "number", "boolean", "array"]  # type: ignore[assignment]
    required: bool | None = None
    default: Any = None
    items: ValueTable | None = None
    min_items: Count | None = None
    allow_dash: bool = Field(default=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter without faults.

    Arguments:
        kind: string, integer, number, boolean or array.
        schema: JSON Schema of its values.
        required: a call must give a value.
        default: the value where a call gives none; None means that the parameter is absent then.
        allow_dash: a value may begin an argument with `-`.
    """

    name: str
    kind: str
    schema: Mapping[str, Any]
    required: bool
    default: Any
    allow_dash: bool

    @property
    def always(self) -> bool:
        """Whether it has a value in every call."""
        return self.required or self.default is not None

    @property
    def guarded(self) -> bool:
        """Whether its values are texts that must not begin an argument with `-`."""
        kind = self.schema["items"]["type"] if self.kind == "array" else self.kind
        return kind == "string" and not self.allow_dash

    def words(self, value: Any) -> str | tuple[str, ...]:
        """Return an allowed value as text, or a list as texts. Raises BadArgument if no text can hold it."""
        if self.kind == "array":
            return tuple(_word(f"{self.name}[{index}]", item) for index, item in enumerate(value))
        return _word(self.name, value)

    def fixed(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield every text that the manifest itself offers as a value, with its key in the parameter's table."""
        items = self.schema.get("items", {})
        for key, values in ((("enum",), self.schema.get("enum", ())), (("items", "enum"), items.get("enum", ()))):
            yield from (((*key, index), value) for index, value in enumerate(values) if isinstance(value, str))
        defaults = self.default if isinstance(self.default, list) else [self.default]
        yield from ((("default",), value) for value in defaults if isinstance(value, str))


def _word(name: str, value: Any) -> str:
    """Write booleans as `true` and `false`, and numbers in full, whole ones without a point."""
    if isinstance(value, str):
        encoded(name, value)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise BadArgument(f"'{name}' must be a finite number.")
    if not -MAX_NUMBER < value < MAX_NUMBER:
        raise BadArgument(f"'{name}' is too large a number.")
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    return format(Decimal(repr(value)), "f")


def read_parameters(tables: object) -> tuple[Mapping[str, Parameter | None], list[Fault]]:
    """Read a tool's `parameters`, a faulty one as None.

    Returns them with every fault; the key of each begins at that table.
    """
    if not isinstance(tables, dict):
        return {}, [Fault((), "must be a table: one key for each parameter")]
    found: dict[str, Parameter | None] = {}
    wrong: list[Fault] = []
    for name, data in tables.items():
        faulty = list(_name_faults(name))
        table = None
        try:
            table = ParameterTable.model_validate(data)
        except ValidationError as error:
            faulty += faults(error, ParameterTable)
        else:
            faulty += _contradictions(table)
        found[name] = None
        if table is not None and not faulty:
            found[name], faulty = _parameter(name, table)
        wrong += [Fault((name, *fault.key), fault.sentence) for fault in faulty]
    return MappingProxyType(found), wrong


def _name_faults(name: str) -> Iterator[Fault]:
    if name == RESERVED_PARAMETER:
        yield Fault((), "is an argument of every tool already; choose another name")
    elif not PARAMETER_NAME.fullmatch(name):
        yield Fault((), "the name of a parameter is 1 to 64 letters, digits or '_', no digit first")


def _contradictions(table: ParameterTable) -> Iterator[Fault]:
    """Report keys that have no meaning together."""
    yield from _meaningless(table, table.type)
    given = table.model_fields_set
    if table.items is not None:
        if table.type != "array":
            yield Fault(("items",), f"has no meaning for the type '{table.type}'; only an array has items")
        inner = _meaningless(table.items, table.items.type)
        yield from (Fault(("items", *fault.key), fault.sentence) for fault in inner)
    if table.min_items is not None:
        if table.type != "array":
            yield Fault(("min_items",), f"has no meaning for the type '{table.type}'; only an array has items")
        elif table.min_items > MAX_ARGS:
            yield Fault(("min_items",), f"is more than {MAX_ARGS}, the most that a list may hold")
    if table.required and "default" in given:
        yield Fault(("required",), "is true beside a default, which would never be used; leave one of the two out")
    if table.allow_dash and "string" not in (table.type, _item_type(table) if table.type == "array" else ""):
        yield Fault(("allow_dash",), "has no meaning here: only a string can be read as an option")


def _item_type(table: ParameterTable) -> str:
    return table.items.type if table.items is not None else "string"


def _meaningless(table: ValueTable, kind: str) -> Iterator[Fault]:
    fitting = {"enum": ("string", *_NUMERIC), "minimum": _NUMERIC, "maximum": _NUMERIC}
    fitting |= {"pattern": ("string",), "max_length": ("string",)}
    hint = "; write it into 'items'" if kind == "array" else ""
    for key, kinds in fitting.items():
        value = getattr(table, key)
        if value is None:
            continue
        if kind not in kinds:
            yield Fault((key,), f"has no meaning for the type '{kind}'{hint}")
        elif kind == "integer" and key in ("minimum", "maximum") and not isinstance(value, int):
            yield Fault((key,), "must be a whole number, as the parameter is")
    if kind in _NUMERIC and table.minimum is not None and table.maximum is not None and table.minimum > table.maximum:
        yield Fault(("minimum",), f"is more than the maximum, which is {table.maximum}")


def _parameter(name: str, table: ParameterTable) -> tuple[Parameter | None, list[Fault]]:
    schema, wrong = _schema(table, table.type)
    default = table.default if "default" in table.model_fields_set else None
    if table.type == "array":
        items = table.items or ValueTable(type="string")
        inner, faulty = _schema(items, items.type)
        wrong += [Fault(("items", *fault.key), fault.sentence) for fault in faulty]
        # Last, for a long list is cheaper to count than to check.
        least = {} if table.min_items is None else {"minItems": table.min_items}
        schema |= {**least, "maxItems": MAX_ARGS, "items": inner}
    wrong += _unreadable(table)
    if default is not None:
        if (flaw := first_flaw(schema, default)) is not None:
            wrong.append(Fault(("default", *flaw[0]), f"breaks the parameter's own rules: it {flaw[1]}"))
        wrong += _hidden(("default",), default if isinstance(default, list) else [default])
        schema["default"] = default
    if wrong:
        return None, wrong
    required = table.required if table.required is not None else default is None
    return Parameter(name, table.type, MappingProxyType(schema), required, default, table.allow_dash), []


def _unreadable(table: ParameterTable) -> Iterator[Fault]:
    """Report numbers of the published schema that some clients cannot read."""
    values = table.default if isinstance(table.default, list) else [table.default]
    if any(isinstance(value, int | float) and abs(value) > MAX_EXACT for value in values):
        yield Fault(("default",), f"is beyond {MAX_EXACT}, which not every client can read; leave it out")


def _hidden(key: tuple[str, ...], values: Iterable[object]) -> Iterator[Fault]:
    """Texts among values which a model reads, and a person does not see whole."""
    for value in values:
        try:
            fully_visible(value if isinstance(value, str) else "")
        except ValueError as error:
            yield Fault(key, str(error))


def _schema(table: ValueTable, kind: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return a value's JSON Schema, with what is cheap to check first, and the faults of its `enum`."""
    most = table.max_length or (MAX_MATCHED if table.pattern is not None else None)
    pattern = None if table.pattern is None else anchored(table.pattern)
    rules = {"minimum": table.minimum, "maximum": table.maximum, "maxLength": most, "pattern": pattern}
    schema: dict[str, Any] = {"type": kind}
    if described := table.description.strip():
        schema["description"] = described
    schema |= {key: value for key, value in rules.items() if value is not None}
    if table.enum is None:
        return schema, []
    wrong = list(_hidden(("enum",), table.enum))
    for index, value in enumerate(table.enum):
        if (flaw := first_flaw(schema, value)) is not None:
            wrong.append(Fault(("enum", index), f"breaks the parameter's own rules: it {flaw[1]}"))
        elif value in table.enum[:index]:
            wrong.append(Fault(("enum", index), "is in the list already; leave one of the two out"))
    if not table.enum:
        wrong.append(Fault(("enum",), "is empty, so that no value is allowed; leave it out"))
    return schema | {"enum": list(table.enum)}, wrong
