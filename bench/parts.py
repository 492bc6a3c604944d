"""What a call is made of: a call that runs nothing, and bash's own start by the supervisor alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mcp.client.client import Client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

from taskcell.assembly.gateway import configured_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load
from taskcell.model import LOCAL_PRINCIPAL, TaskKey, ToolCall
from taskcell.process.process import Process
from taskcell.supervisor import requests
from taskcell.supervisor.protocol import SpawnFlag

Call = Callable[[int], Awaitable[None]]


def empty_call(client: Client) -> Call:
    """`sandbox` `status` of a task that has no sandbox: what the client, the SDK and stdio take."""

    async def call(number: int) -> None:
        arguments = {"action": "status", "task_id": "none"}
        request = CallToolRequest(params=CallToolRequestParams(name="sandbox", arguments=arguments))
        answer = await client.session.send_request(request, CallToolResult)
        if answer.is_error:
            raise SystemExit(f"A call went wrong: {answer}")

    return call


@asynccontextmanager
async def bash_alone(folder: Path) -> AsyncIterator[Call]:
    """`bash -c true` in a sandbox: asked for over the channel, from this process, and nothing more."""
    config = folder / "alone.toml"
    config.write_text("manifests = []\n[pool]\nwarm = 0\n", encoding="utf-8")
    run = Invocation({}, folder, config)
    async with configured_gateway(run, load(run), for_one_call=True) as gateway:
        task = TaskKey(LOCAL_PRINCIPAL, "alone")
        await gateway.call(ToolCall(LOCAL_PRINCIPAL, "terminal", {"command": "true", "task_id": task.task}))
        (sandbox,) = await gateway.pool.sandboxes(task)
        spawner = sandbox.spawner

        def make(number: int) -> requests.Spawn:
            argv, home = ["bash", "-c", "true"], sandbox.container.workspace
            return spawner.request(argv, spawner.base_env(), home, SpawnFlag.MERGE_STDERR, 60.0)

        async def call(number: int) -> None:
            process = Process(sandbox.channel, sandbox.output_chars)
            await process.start(make)
            await process.finished()
            process.close()

        yield call
