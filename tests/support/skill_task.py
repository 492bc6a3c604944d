"""A task whose agent has the shipped skills."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import anyio

from taskcell.gateway.gateway import Gateway
from taskcell.model import LOCAL_PRINCIPAL, ProcessResult, ToolCall

MANIFESTS = Path(__file__).parents[2] / "manifests"
#: Seconds for one call: a cold container on a busy machine, and work of a second.
PATIENCE = 60.0


class Task:
    """One task of a gateway that has the shipped skills."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def run(self, tool: str, **arguments: Any) -> ProcessResult:
        """Call a tool as the server does."""
        with anyio.fail_after(PATIENCE):
            return await self._gateway.call(ToolCall(LOCAL_PRINCIPAL, tool, arguments))

    async def good(self, tool: str, **arguments: Any) -> str:
        """What a call printed that must succeed."""
        result = await self.run(tool, **arguments)
        assert result.exit_code == 0, (tool, result.stdout, result.stderr)
        return result.stdout

    async def bad(self, tool: str, **arguments: Any) -> str:
        """What a call printed as its error that must fail."""
        result = await self.run(tool, **arguments)
        assert result.exit_code not in (0, None), (tool, result.stdout)
        return result.stderr

    async def put(self, name: str, content: bytes | str) -> None:
        """Write a file of the workspace."""
        data = content.encode() if isinstance(content, str) else content
        line = f'mkdir -p "$(dirname {name})" && base64 -d > {name}'
        await self.good("terminal", command=line, stdin=base64.b64encode(data).decode())

    async def get(self, name: str) -> bytes:
        """Read a small file of the workspace."""
        return base64.b64decode(await self.good("terminal", command=f"base64 {name}"))

    async def files(self) -> list[str]:
        """Every file of the workspace, hidden ones too."""
        return (await self.good("terminal", command="find . -type f | sort | cut -c 3-")).split()
