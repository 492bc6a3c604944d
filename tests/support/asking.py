"""Read answers as clients do: the text for the model, or the fields for a program that asks for them."""

from __future__ import annotations

from typing import Any

from mcp.client.client import Client
from mcp_types import CallToolResult, TextContent

#: The `_meta` of a request that asks for structured content, or for output schemas.
ASKED: Any = {"taskcell/structured": True}


def text_of(result: CallToolResult) -> str:
    """All the text of an answer."""
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def fields_of(result: CallToolResult) -> dict[str, Any]:
    """The structured content of an answer that must have it."""
    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None, result
    return dict(result.structured_content)


async def fields(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a tool and take the answer's fields."""
    return fields_of(await client.call_tool(tool, arguments, meta=ASKED))
