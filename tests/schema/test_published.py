"""The schemas that clients get hold only what every converter of every client reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from offers import every_offer
from taskcell.schema.published import MAX_BOUND, MAX_CHOICE_CHARS, MAX_CHOICES, published
from taskcell.tools.tool import Tool

#: What OpenAI's strict mode, Anthropic's, Gemini's Schema and llama.cpp's grammars read in the same way.
KEYWORDS = {
    "type", "description", "default", "enum", "minimum", "maximum", "items", "properties", "required",
    "additionalProperties",
}  # fmt: skip
TYPES = {"string", "integer", "number", "boolean", "array", "object"}
TOOLS = every_offer()


def nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from nodes(inner)
    if "items" in schema:
        yield from nodes(schema["items"])


def check(schema: Mapping[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    for node in nodes(schema):
        assert set(node) <= KEYWORDS
        assert node["type"] in TYPES  # one type: Gemini reads no lists of them
        if node["type"] == "object":
            assert node["properties"]  # Gemini refuses an object without any
            assert node["additionalProperties"] is False  # OpenAI's strict mode
            assert set(node.get("required", ())) <= set(node["properties"])
        assert (node["type"] == "array") == ("items" in node)  # Gemini refuses a list without
        for bound in ("minimum", "maximum"):
            assert node["type"] in ("integer", "number") or bound not in node
            assert abs(node.get(bound, 0)) <= MAX_BOUND
        assert node["type"] == "string" or "enum" not in node  # Gemini
        assert all(node.get("enum", [True]))  # Gemini refuses empty text


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_every_tool_publishes_only_what_every_client_reads(tool: Tool) -> None:
    schema = published(tool.input_schema)
    check(schema)
    assert set(schema["properties"]) == set(tool.input_schema["properties"])
    assert schema.get("required", []) == tool.input_schema["required"]


SCALARS = st.one_of(
    st.builds(dict, type=st.just("string"), pattern=st.just("^(?:(?!x).*)$"), maxLength=st.integers(1)),
    st.builds(dict, type=st.just("string"), enum=st.lists(st.text(max_size=3), min_size=1, unique=True)),
    st.builds(dict, type=st.just("integer"), minimum=st.integers(), maximum=st.integers()),
    st.builds(dict, type=st.just("number"), exclusiveMinimum=st.just(0), enum=st.just([1.5, 2])),
    st.builds(dict, type=st.just("boolean"), default=st.booleans()),
)
PROPERTIES = SCALARS | st.builds(dict, type=st.just("array"), maxItems=st.just(10_000), items=SCALARS)


@given(st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), PROPERTIES, min_size=1, max_size=5))
def test_whatever_a_manifest_declares_every_client_reads_what_is_published(properties: dict[str, Any]) -> None:
    check(published({"type": "object", "properties": properties, "required": [], "additionalProperties": False}))


def test_choices_that_cannot_be_published_are_in_the_description() -> None:
    numbers = published({"type": "integer", "description": "Channels.", "enum": [1, 2, 6]})
    assert numbers == {"type": "integer", "description": "Channels. One of 1, 2, 6."}
    texts = published({"type": "string", "description": "Mode.", "enum": ["", "fast"]})
    assert texts == {"type": "string", "description": 'Mode. One of "", "fast".'}


def test_choices_beyond_what_strict_modes_take_are_not_published() -> None:
    assert "enum" not in published({"type": "string", "enum": [str(number) for number in range(MAX_CHOICES + 1)]})
    assert "enum" not in published({"type": "string", "enum": ["x" * (MAX_CHOICE_CHARS + 1)]})
    assert published({"type": "string", "enum": ["a", "b"]})["enum"] == ["a", "b"]


def test_the_server_still_checks_what_it_does_not_publish() -> None:
    assert "pattern" not in str(published(TOOLS["pandoc_convert"].input_schema))
    assert "pattern" in str(TOOLS["pandoc_convert"].input_schema)
