"""What a tool costs: clients put every tool's name, description and input schema into each request of a model."""

from __future__ import annotations

import json
from typing import Any

from taskcell.schema.published import published
from taskcell.tools.tool import Tool

#: Characters of a token, about, in English and JSON.
CHARACTERS_OF_A_TOKEN = 4


def handed_over(tool: Tool) -> dict[str, Any]:
    """Return what clients hand to a model."""
    return {"name": tool.name, "description": tool.description, "inputSchema": published(tool.input_schema)}


def characters(tool: Tool) -> int:
    """Return how many characters that is, as compact JSON."""
    return len(json.dumps(handed_over(tool), ensure_ascii=False, separators=(",", ":")))


def tokens(size: int) -> int:
    """Return about how many tokens a number of characters is."""
    return round(size / CHARACTERS_OF_A_TOKEN)
