"""The spans of a call: what its parts are, whose part each is, and that none holds what a command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving import serving

TRACED = Path(__file__).parent / "support/traced_taskcell.py"
TOML = """
manifests = []
[engine]
kind = "local"
[pool]
warm = 0
[[policy.rules]]
name = "no"
tool = "terminal"
command = "secret-one"
effect = "deny"
reason = "The test wants it."
"""


async def spans_of(folder: Path, *commands: str) -> list[dict[str, Any]]:
    written = folder / "spans"
    written.touch()
    async with serving(folder, TOML, env={"TRACED": str(written)}, program=(str(TRACED),)) as (client, _):
        for command in commands:
            await client.call_tool("terminal", {"command": command})
    return [json.loads(line) for line in written.read_text().splitlines()]


@pytest.mark.anyio
async def test_a_calls_spans_are_its_parts_in_their_order(tmp_path: Path) -> None:
    spans = await spans_of(tmp_path, "echo one")
    ours = [(span["name"], span["parent"]) for span in spans if span["name"].startswith("taskcell.")]
    call = "tools/call terminal"
    assert ours == [
        ("taskcell.authorize", call),
        ("taskcell.create", "taskcell.lease"),
        ("taskcell.lease", call),
        ("taskcell.run", call),
    ]
    [run] = [span for span in spans if span["name"] == "taskcell.run"]
    assert run["attributes"] == {"taskcell.tool": "terminal", "taskcell.process": "p1"}


@pytest.mark.anyio
async def test_a_refused_call_has_a_failed_span_and_no_span_holds_a_command_or_its_output(tmp_path: Path) -> None:
    spans = await spans_of(tmp_path, "echo secret-one", "echo secret-$((1 + 1))")
    [refused] = [span for span in spans if "error.type" in span["attributes"] and span["name"] == "taskcell.authorize"]
    assert refused["attributes"]["error.type"] == "Denied"
    assert "secret" not in json.dumps(spans)
