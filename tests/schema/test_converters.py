"""The converters of real clients read every schema that is published. `make test-converters` installs them first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from offers import every_offer
from taskcell.schema.published import published

pytestmark = pytest.mark.converters

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache" / "converters" / "bin" / "python"
#: Seconds; importing the SDKs takes ten.
PATIENCE = 120
TOOLS = every_offer()


def complaints(tools: Sequence[dict[str, Any]]) -> list[list[str]]:
    assert PYTHON.exists(), "run scripts/converters.sh first; make test-converters does"
    program = [PYTHON, ROOT / "tests" / "support" / "converters.py"]
    done = run(program, input=json.dumps(tools), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_every_converter_reads_every_tool() -> None:
    tools = [
        {"name": tool.name, "description": tool.description, "inputSchema": published(tool.input_schema)}
        for tool in TOOLS.values()
    ]
    assert complaints(tools) == []


def test_the_converters_refuse_what_is_not_published() -> None:
    """Otherwise the test above could not fail."""
    tools = [
        {"name": tool.name, "description": tool.description, "inputSchema": dict(tool.input_schema)}
        for tool in TOOLS.values()
    ]
    refused = {(converter, tool) for converter, tool, _ in complaints(tools)}
    assert {("openai_strict", "terminal"), ("gemini", "terminal"), ("grammar", "pandoc_convert")} <= refused
    assert {("llama_cpp", "pandoc_convert"), ("llama_cpp", "ffmpeg_trim")} <= refused
