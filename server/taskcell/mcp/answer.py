"""Turns reports of tools into MCP results.

The text is the answer: a block with what the program printed, and one with what taskcell says, which alone is marked.
Structured content goes to those who ask for it: many clients hand their model its JSON and drop the text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from taskcell.errors import FileRefused, TaskcellError
from taskcell.files.answers import Picture
from taskcell.fitting import largest
from taskcell.text import ended, plain_line, visible, without_halves
from taskcell.tools.tool import ToolReport

#: In a request's `_meta`: true asks for structured content, and in `tools/list` for output schemas.
STRUCTURED = "taskcell/structured"
#: The `_meta` of the block that taskcell itself has written. Programs and files in a sandbox cannot mark theirs.
OF_SERVER = {"taskcell/source": "server"}

#: In the `_meta` of a refusal's result: its code and sentence, for programs.
ERROR = "taskcell/error"


@dataclass(frozen=True, slots=True)
class Failure:
    """The report of a call that did not run.

    Arguments:
        sentence: tells the model why, and what to do next.
        fields: tell programs: a `code` of ErrorCode's, and the `rule` of a denial.
        excerpt: lines of a file that the sentence is about.
    """

    sentence: str
    fields: Mapping[str, Any]
    excerpt: str

    @classmethod
    def of(cls, error: TaskcellError) -> Failure:
        return cls(str(error), error.fields(), error.excerpt if isinstance(error, FileRefused) else "")

    is_error: ClassVar[bool] = True
    pictures: ClassVar[tuple[Picture, ...]] = ()

    @property
    def extent(self) -> int:
        return len(self.excerpt)

    def cut(self, most: int) -> Failure:
        return replace(self, excerpt=self.excerpt[:most])

    def structured(self) -> dict[str, Any]:
        excerpt = {"excerpt": self.excerpt} if self.excerpt else {}
        return {"error": {**self.fields, "message": self.sentence, **excerpt}}

    def output(self) -> str:
        return ended(self.excerpt)

    def said(self) -> str:
        return plain_line(self.sentence)


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes results of reports.

    Arguments:
        output_chars: characters of all the text of an answer: both blocks, or one and the structured content's JSON.
        structured: every caller gets structured content, without asking.
    """

    output_chars: int
    structured: bool = False

    def asked(self, meta: Mapping[str, Any] | None) -> bool:
        """Whether a request with this `_meta` gets structured content, and output schemas."""
        return self.structured or (meta is not None and meta.get(STRUCTURED) is True)

    def of(self, report: ToolReport, *, structured: bool) -> CallToolResult:
        """Return the result of a call. Structured content must match the output schema; it is not checked here.

        It stands in the place of the block with the output, which is then not there twice.
        """
        measure = _structured_size if structured else _text_size
        kept = report.cut(largest(report.extent, lambda most: measure(report.cut(most)) <= self.output_chars))
        pictures = [
            ImageContent(type="image", data=base64.b64encode(picture.data).decode("ascii"), mime_type=picture.mime)
            for picture in kept.pictures
        ]
        refusal = _writable(replace(kept, excerpt="").structured()) if isinstance(kept, Failure) else None
        # A client checks what it finds, errors too, against the output schemas that an operator had it see.
        fields = _writable(kept.structured()) if structured and not (refusal and self.structured) else None
        output = "" if fields is not None else _writable(kept.output())
        said = _bounded("\n".join(map(plain_line, kept.said().split("\n"))), self.output_chars)
        texts = [TextContent(type="text", text=output)] if output else []
        content: list[ContentBlock] = [*pictures, *texts, TextContent(type="text", text=said, _meta=dict(OF_SERVER))]
        meta = {ERROR: refusal} if refusal else None
        return CallToolResult(content=content, structured_content=fields, is_error=kept.is_error, _meta=meta)


def _text_size(report: ToolReport) -> int:
    return len(report.output()) + len(report.said())


def _structured_size(report: ToolReport) -> int:
    return len(json.dumps(report.structured(), ensure_ascii=False, separators=(",", ":"))) + len(report.said())


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _writable(value: Any) -> Any:
    """Return text that any client can hold: unpaired surrogates are U+FFFD, and control characters their symbols.

    UTF-8, and so a line of JSON, cannot hold the first. Of the others ESC stays, which only a pty's output still has.
    """
    match value:
        case str():
            return visible(without_halves(value), but="\x1b")
        case list():
            return [_writable(item) for item in value]
        case dict():
            return {key: _writable(item) for key, item in value.items()}
        case _:
            return value
