"""What an answer costs beside the output in it: each of a model's turns pays for it, most often several times."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.client.client import Client
from mcp_types import CallToolResult

from asking import text_of
from gateways import GatewayFactory
from taskcell.mcp.server import build_server

pytestmark = pytest.mark.anyio

LINES = "".join(f"line {number} of a file\n" for number in range(1, 501))
#: Twenty calls in the order of an agent's work, the output that the model needs of each, and the characters that may
#: stand beside it. The numbers of lines take seven a line; the line of a listing without its name 34.
CALLS: list[tuple[str, dict[str, Any], str, int]] = [
    ("terminal", {"command": "true"}, "", 30),
    ("terminal", {"command": "echo hello"}, "hello\n", 30),
    ("terminal", {"command": "printf hello"}, "hello", 31),
    ("terminal", {"command": "echo no >&2; exit 1"}, "no\n", 30),
    ("terminal", {"command": "seq 1000"}, "".join(f"{number}\n" for number in range(1, 1001)), 30),
    ("terminal", {"command": "kill -SEGV $$"}, "", 220),
    ("terminal", {"command": "echo begun; sleep 9", "timeout": 0.3}, "begun\n", 220),
    ("write_file", {"path": "a.txt", "content": LINES}, "", 60),
    ("read_file", {"path": "a.txt"}, LINES, 500 * 7 + 40),
    ("read_file", {"path": "a.txt", "offset": 11, "limit": 10}, "\n".join(LINES.split("\n")[10:20]), 10 * 7 + 60),
    ("edit_file", {"path": "a.txt", "old": "line 7 of", "new": "line seven of"}, "", 120),
    ("edit_file", {"path": "a.txt", "old": "nowhere", "new": "x"}, "", 140),
    ("read_file", {"path": "none.txt"}, "", 90),
    ("terminal", {"command": "mkdir -p d && cd d && touch $(seq 40) && cd .."}, "", 30),
    ("list_files", {"path": "d"}, "".join(sorted(f"{number}\n" for number in range(1, 41))), 40 * 34 + 20),
    ("list_files", {"glob": "**/*.none"}, "", 20),
    ("terminal", {"command": "sleep 60", "background": True}, "", 260),
    ("process", {"action": "list"}, "", 1200),
    ("sandbox", {"action": "status"}, "", 160),
    ("terminal", {"command": 5}, "", 60),
]


async def test_twenty_typical_answers_cost_little_beside_their_output(gateway: GatewayFactory) -> None:
    beside = []
    async with gateway("manifests = []\n", engine="local") as gw, Client(build_server(gw)) as client:
        for tool, arguments, output, most in CALLS:
            result = await client.session.call_tool(tool, arguments)
            assert isinstance(result, CallToolResult)
            assert result.structured_content is None
            beside.append((tool, arguments, len(text_of(result)) - len(output), most))
    assert len(beside) == 20
    assert [call for call in beside if not 0 <= call[2] <= call[3]] == []
