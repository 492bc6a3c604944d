"""The validator of JSON Schema, apart from what uses it: importing it takes a tenth of a server's start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from taskcell.schema.pattern import matches


def _matches(validator: Any, rule: str, instance: object, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not matches(rule, instance):
        yield ValidationError("does not match")


#: Patterns are checked as `pattern` says, not as Python's `re.search` would: that lets a line break pass at the end.
_Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _matches}
)


def validator_of(schema: Mapping[str, Any]) -> Draft202012Validator:
    """Return the validator of a schema without references. Raises SchemaError if it is not a schema."""
    Draft202012Validator.check_schema(schema)
    return _Validator(schema, registry=Registry())
