"""Convert tools as clients do before a model sees them. Runs in an environment of its own: `scripts/converters.sh`.

    converters.py < TOOLS.json     prints a JSON list of [converter, tool, complaint]

A tool is an object with `name`, `description` and `inputSchema`.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llguidance
from agents.strict_schema import ensure_strict_json_schema
from anthropic import transform_schema
from google.genai import types

[_FOLDER] = (Path(sys.prefix)).glob("llama-*")
sys.path.insert(0, str(_FOLDER))
from llama_grammar import json_schema_to_gbnf  # noqa: E402 - scripts/converters.sh puts it there

Converter = Callable[[Mapping[str, Any]], object]


def openai_strict(tool: Mapping[str, Any]) -> None:
    """The Agents SDK's own conversion to OpenAI's strict mode."""
    strict = ensure_strict_json_schema(copy.deepcopy(tool["inputSchema"]))
    assert set(strict["required"]) == set(strict["properties"])


def gemini(tool: Mapping[str, Any]) -> None:
    """A declaration with Gemini's own `Schema`, which knows a part of JSON Schema and forbids the rest."""
    schema = types.Schema.model_validate(tool["inputSchema"])
    types.FunctionDeclaration(name=tool["name"], description=tool["description"], parameters=schema)


def gemini_from_json(tool: Mapping[str, Any]) -> None:
    """The conversion of google-genai from JSON Schema."""
    schema = types.JSONSchema.model_validate(tool["inputSchema"])
    types.Schema.from_json_schema(json_schema=schema, raise_error_on_unsupported_field=True)


def anthropic_strict(tool: Mapping[str, Any]) -> None:
    """The SDK's own conversion to the strict mode of Anthropic's tools."""
    transform_schema(copy.deepcopy(tool["inputSchema"]))


def grammar(tool: Mapping[str, Any]) -> None:
    """The grammar that llama.cpp, vLLM and SGLang can decode by; its expressions are those of Rust's regex."""
    made = llguidance.LLMatcher.grammar_from_json_schema(tool["inputSchema"])
    failed, said = llguidance.LLMatcher.validate_grammar_with_warnings(made)
    assert not failed, said


def llama_cpp(tool: Mapping[str, Any]) -> None:
    """The grammar of llama.cpp, by its own converter."""
    json_schema_to_gbnf(json.dumps(tool["inputSchema"]))


CONVERTERS: tuple[Converter, ...] = (openai_strict, gemini, gemini_from_json, anthropic_strict, grammar, llama_cpp)


def complaint(convert: Converter, tool: Mapping[str, Any]) -> str | None:
    """Return what a converter says against a tool, or None."""
    try:
        convert(tool)
    except Exception as error:  # whatever it is, the client would lose the tool
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    tools = json.load(sys.stdin)
    found = [(convert.__name__, tool["name"], complaint(convert, tool)) for convert in CONVERTERS for tool in tools]
    json.dump([entry for entry in found if entry[2] is not None], sys.stdout)


if __name__ == "__main__":
    main()
