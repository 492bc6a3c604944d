"""A relative path of a file tool begins at /workspace; an answer says what it would name where the terminal is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.errors import FileRefused
from taskcell.files.answers import FileReport
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

DENIED = """
[[policy.rules]]
name = "no-secrets"
tool = "*_file"
command = "secret"
effect = "deny"
reason = "Secrets are nobody's business."
"""


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
async def task(request: pytest.FixtureRequest, gateway: GatewayFactory) -> AsyncIterator[Task]:
    async with gateway(DENIED, engine=request.param) as gw:
        yield Task(gw)


async def call(task: Task, tool: str, path: str, **arguments: Any) -> str:
    """The notes of an answer, or the sentence of a refusal."""
    try:
        report = await task.gateway.call(ToolCall("local", tool, {"path": path, "task_id": "t", **arguments}))
    except FileRefused as refused:
        return str(refused)
    assert isinstance(report, FileReport)
    return " ".join(report.notes)


async def test_a_file_that_is_where_the_terminal_is_is_named(task: Task) -> None:
    await task.terminal("mkdir -p proj/src proj/secret; cd proj; echo x=1 >calc.py; echo y >src/a; echo z >secret/s")
    begins = "exists, where the terminal is: a relative path begins at /workspace."
    assert (await call(task, "read_file", "calc.py")).endswith(f" '/workspace/proj/calc.py' {begins}")
    assert (await call(task, "read_file", "./src/../calc.py")).endswith(f" '/workspace/proj/calc.py' {begins}")
    assert (await call(task, "edit_file", "src/a", old="y", new="z")).endswith(f" '/workspace/proj/src/a' {begins}")
    assert (await call(task, "list_files", "src")).endswith(f" '/workspace/proj/src' {begins}")
    assert await call(task, "write_file", "src/a", content="new") == f"'/workspace/proj/src/a' {begins}"
    assert (await task.terminal("cat src/a ../src/a")).stdout == "y\nnew"


async def test_nothing_is_named_that_is_not_there_or_that_was_meant(task: Task) -> None:
    await task.terminal("mkdir -p proj/secret; cd proj; echo x=1 >calc.py; echo z >secret/s; echo w >../there.py")
    for path in ("nothing.py", "/workspace/calc.py", "~/calc.py", "../calc.py"):
        assert "where the terminal is" not in await call(task, "read_file", path), path
    assert await call(task, "read_file", "there.py") == ""
    assert await call(task, "write_file", "new.py", content="x") == ""
    assert await call(task, "write_file", "there.py", content="x") == ""
    await task.terminal("cd ..")
    assert "where the terminal is" not in await call(task, "read_file", "calc.py")


async def test_what_the_policy_denies_is_not_named(task: Task) -> None:
    await task.terminal("mkdir -p sec; cd sec; mkdir ret; cd ..; mkdir secret; cd secret; echo x >calc.py")
    assert "where the terminal is" not in await call(task, "read_file", "calc.py")
