"""The Inspector's command line: a server for each call, `--strict` for the list. Any Python runs this."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from probe import Call, Seen, Server, run_checks

PROGRAM = ("node_modules/node/bin/node", "node_modules/.bin/mcp-inspector")


class Client:
    gaps: ClassVar[dict[str, str]] = {
        "progress": "it shows none",
        "cancel": "a person ends it, and with it its server",
        "time-out": "it waits as long as the person does",
        "resources": "its server has just started, and no task is open in it",
    }
    default_timeout = None
    cancels_what_it_gives_up = True

    def __init__(self, server: Server) -> None:
        self._server = server

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, timeout: float | None) -> AsyncIterator[Client]:
        yield cls(server)

    async def _inspect(self, *words: str) -> Any:
        home = os.environ["MATRIX_PACKAGES"]
        node, inspector = (os.path.join(home, name) for name in PROGRAM)
        variables = [word for item in self._server.env.items() for word in ("-e", "=".join(item))]
        server = ["--cwd", str(self._server.folder), *variables, "--", self._server.command, *self._server.args]
        process = await asyncio.create_subprocess_exec(
            node, inspector, "--cli", "--format", "json", "--quiet", *words, *server,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, errors = await process.communicate()
        if not said:
            raise RuntimeError(f"exit {process.returncode}: {errors.decode()[-1500:]}")
        return json.loads(said)["result"], process.returncode, errors.decode()

    async def tools(self) -> list[str]:
        listed, code, errors = await self._inspect("--method", "tools/list", "--strict")
        assert code == 0, errors
        return [tool["name"] for tool in listed["tools"]]

    async def run(self, *calls: Call) -> list[Seen]:
        return [await self._one(name, arguments) for name, arguments in calls]

    async def _one(self, name: str, arguments: dict[str, Any]) -> Seen:
        asked = ["--tool-name", name, "--tool-args-json", json.dumps(arguments)]
        result, _, _ = await self._inspect("--method", "tools/call", *asked)
        blocks = result["content"]
        text = "\n".join(block.get("text", "") for block in blocks)
        return Seen(text, sum(block["type"] == "image" for block in blocks), result.get("structuredContent"))


run_checks(Client)
