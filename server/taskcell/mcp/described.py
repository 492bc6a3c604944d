"""A tool as `tools/list` describes it."""

from __future__ import annotations

from mcp_types import Tool as McpTool
from mcp_types import ToolAnnotations

from taskcell.schema.published import published
from taskcell.tools.tool import Tool

#: Claude Code puts a result into a file that its model may not read, from a size on that a tool can raise up to this
#: many characters: code.claude.com/docs/en/mcp. It counts them as JSON, where a character may need two.
RESULT_SIZE, RESULT_SIZE_MAX, ESCAPED = "anthropic/maxResultSizeChars", 500_000, 2


def described(tool: Tool, output_chars: int) -> McpTool:
    """Return a tool in MCP's terms.

    Arguments:
        output_chars: characters of all the text of an answer.
    """
    result_size = min(RESULT_SIZE_MAX, ESCAPED * output_chars)
    hints = tool.annotations
    return McpTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=published(tool.input_schema),
        output_schema=dict(tool.output_schema),
        annotations=ToolAnnotations(
            read_only_hint=hints.read_only,
            destructive_hint=hints.destructive,
            idempotent_hint=hints.idempotent,
            open_world_hint=hints.open_world,
        ),
        _meta={RESULT_SIZE: result_size},
    )
