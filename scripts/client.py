"""Call this checkout's `taskcell serve` over stdio with a real MCP client; the demo uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(sys.executable).with_name("taskcell")
CONFIG = ROOT / "examples" / "taskcell.toml"
#: Where an engine may be named; the client passes a server little more than HOME and PATH by itself.
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
#: Seconds for one answer. The first call may start a container on a busy machine; the server's own limit is 50.
ANSWER_TIMEOUT = 90.0
#: The `_meta` of a call that asks for the run's fields.
FIELDS: Any = {"taskcell/structured": True}


@dataclass(frozen=True)
class Answer:
    """A tool's answer: the run's fields, its output with what taskcell says of it, and whether it is an error."""

    run: Mapping[str, Any]
    text: str
    is_error: bool

    @property
    def stdout(self) -> str:
        return str(self.run.get("stdout", ""))


@asynccontextmanager
async def connect(log: Path) -> AsyncIterator[Client]:
    """Start the server with its log in `log`, and end it, sandboxes and all, on leaving."""
    environment = {name: os.environ[name] for name in ENGINE_VARIABLES if name in os.environ}
    environment["TASKCELL__POOL__ON_EXIT"] = "close"
    server = StdioServerParameters(
        command=str(SERVER), args=["serve", "--config", str(CONFIG)], env=environment, cwd=ROOT
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as errors:
        async with Client(stdio_client(server, errlog=errors), read_timeout_seconds=ANSWER_TIMEOUT) as client:
            yield client


async def call(client: Client, tool: str, arguments: dict[str, Any], *, fields: bool = True, **options: Any) -> Answer:
    """Call a tool and take its answer apart. Raises MCPError if the server returns an error of the protocol.

    Arguments:
        fields: the run's fields are wanted; without them the answer is the text that a model reads.
    """
    result = await client.call_tool(tool, arguments, meta=FIELDS if fields else None, **options)
    said = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    run = result.structured_content if isinstance(result.structured_content, Mapping) else {}
    return Answer(run, f"{run.get('stdout', '')}{run.get('stderr', '')}{said}", bool(result.is_error))
