"""Turns reports of tools into MCP results."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from taskcell.files.answers import Picture
from taskcell.tools.tool import ToolReport

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Failure:
    """The report of a call that did not run. The sentence tells the model why and what to do next."""

    sentence: str

    is_error: ClassVar[bool] = True
    pictures: ClassVar[tuple[Picture, ...]] = ()

    def structured(self) -> None:
        return None

    def text(self) -> str:
        return self.sentence


def answer(report: ToolReport) -> CallToolResult:
    """Return the result of a call. Its structured content must match the output schema; it is not checked here."""
    pictures = [
        ImageContent(type="image", data=base64.b64encode(picture.data).decode("ascii"), mime_type=picture.mime)
        for picture in report.pictures
    ]
    content: list[ContentBlock] = [*pictures, TextContent(type="text", text=_writable(report.text()))]
    return CallToolResult(content=content, structured_content=_writable(report.structured()), is_error=report.is_error)


def _writable(value: Any) -> Any:
    """Replace unpaired surrogates by U+FFFD: UTF-8, and so a line of JSON, cannot hold them."""
    match value:
        case str():
            return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
        case list():
            return [_writable(item) for item in value]
        case dict():
            return {key: _writable(item) for key, item in value.items()}
        case _:
            return value
