"""One task's tools, as its agent calls them."""

from __future__ import annotations

from typing import Any

import anyio

from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.tools.process_report import ProcessReport

#: Short enough to be waited for in a test, long enough for a shell to start and print.
LIMITS = '[limits]\nwait = "1s"\noutput_chars = 2000\n'


class Task:
    """One task's tools, as its agent calls them."""

    def __init__(self, gateway: Gateway, principal: str = "local", task: str = "t") -> None:
        self.gateway = gateway
        self._principal = principal
        self._task = task

    async def terminal(self, command: str, **arguments: Any) -> ProcessResult:
        arguments = {"command": command, "task_id": self._task, **arguments}
        return await self.gateway.call(ToolCall(self._principal, "terminal", arguments))

    async def cancelled(self, command: str, **arguments: Any) -> None:
        """Give a call up once its command runs."""
        arguments = {"command": command, "task_id": self._task, "wait": 600, **arguments}
        with anyio.CancelScope() as call:
            await self.gateway.call(ToolCall(self._principal, "terminal", arguments), lambda process: call.cancel())
        assert call.cancelled_caught

    async def ended(self, process_id: str) -> ProcessResult:
        """Wait until a process has ended, however long a busy machine takes."""
        while (result := await self.ask("wait", process_id, wait=600)).status.value == "running":
            pass
        return result

    async def call(self, tool: str, **arguments: Any) -> ProcessResult:
        """Call a skill's tool."""
        return await self.gateway.call(ToolCall(self._principal, tool, {"task_id": self._task, **arguments}))

    async def process(self, action: str, process_id: str = "", **arguments: Any) -> ProcessReport:
        named = {"process_id": process_id} if process_id else {}
        arguments = {"action": action, "task_id": self._task, **named, **arguments}
        return await self.gateway.call(ToolCall(self._principal, "process", arguments))

    async def ask(self, action: str, process_id: str, **arguments: Any) -> ProcessResult:
        """`process` for one process: how it stands."""
        result = (await self.process(action, process_id, **arguments)).result
        assert result is not None
        return result

    async def sandbox(self, action: str) -> None:
        await self.gateway.call(ToolCall(self._principal, "sandbox", {"action": action, "task_id": self._task}))
