"""What a model reads of taskcell's own tools before it has done anything: short, and with every fact that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateways import OWN_TOOLS
from taskcell.config.settings import Settings
from taskcell.schema.published import published
from taskcell.tools.catalog import build_tools
from taskcell.tools.tool import Tool

#: Characters of all names, descriptions and schemas' descriptions. Each request of a model pays for them.
MOST = 3680
TOOLS = build_tools(Settings(), [])


def described(schema: Any) -> Iterator[str]:
    for key, value in schema.items():
        if key == "description" and isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from described(value)


def read_of(tool: Tool) -> str:
    return " ".join([tool.name, tool.description, *described(published(tool.input_schema))])


def size_of(tool: Tool) -> int:
    return len(tool.name) + len(tool.description) + sum(map(len, described(published(tool.input_schema))))


def test_the_texts_of_all_tools_stay_short(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {name: size_of(tool) for name, tool in TOOLS.items()}
    with capsys.disabled():
        print("", *(f"{name}: {size}" for name, size in sizes.items()), f"all: {sum(sizes.values())}", sep="\n")
    assert list(sizes) == OWN_TOOLS
    assert sum(sizes.values()) <= MOST


@pytest.mark.parametrize(
    ("tool", "facts"),
    [
        ("terminal", "own Linux container"),
        ("terminal", "Working directory and exported variables carry over"),
        ("terminal", "/workspace are shared with all skills"),
        ("terminal", "No network"),
        ("terminal", "Memory: 2 GiB"),
        ("terminal", "includes stderr"),
        ("terminal", "non-zero exit code is not a tool error"),
        ("terminal", "all it started are killed; output so far is kept"),
        ("terminal", "still running goes on under `process`"),
        ("terminal", "Without `stdin`, `process` can write to it"),
        ("terminal", "Default: where the last command ended"),
        ("process", "cursor to continue from"),
        ("process", "until the sandbox closes or 64 newer commands have finished"),
        ("process", "kill it and all it started"),
        ("process", "default 50"),
        ("sandbox", "/workspace stays"),
        ("sandbox", "delete its files, unless the workspace is persistent"),
        ("read_file", "line numbers"),
        ("read_file", "PNG, JPEG, GIF, WebP"),
        ("read_file", "relative to /workspace"),
        ("write_file", "at most 4 MiB"),
        ("write_file", "atomically and keeps its mode"),
        ("write_file", "base64 for other bytes"),
        ("edit_file", "exactly `count` times"),
        ("edit_file", "without line numbers"),
        ("edit_file", "CRLF"),
        ("edit_file", "or none if the number is wrong"),
        ("list_files", "at most 1000"),
        ("list_files", "not followed"),
        ("list_files", "Hidden files match"),
    ],
)
def test_a_tools_texts_say_what_a_model_acts_on(tool: str, facts: str) -> None:
    assert facts in read_of(TOOLS[tool])
