"""What calls leave in the audit log, through the whole gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskcell.assembly.gateway import configured_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load
from taskcell.audit.log import AuditFailed
from taskcell.errors import ConfigError, Denied
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n[pool]\nwarm = 0\n'
RULE = '[[policy.rules]]\nname = "no"\ntool = "terminal"\ncommand = "forbidden"\neffect = "deny"\nreason = "No."\n'


@asynccontextmanager
async def opened(folder: Path, more: str = "") -> AsyncIterator[Gateway]:
    (folder / "taskcell.toml").write_text(LOCAL + more)
    run = Invocation({"XDG_STATE_HOME": str(folder / "state")}, folder, folder / "taskcell.toml")
    async with configured_gateway(run, load(run)) as gateway:
        yield gateway


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "state/taskcell/audit.jsonl").read_text().splitlines()]


async def test_a_command_leaves_its_decision_before_it_runs_and_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path, RULE) as gateway:
        arguments = {"command": "echo output-secret; cat; exit 3", "stdin": "stdin-secret", "env": {"K": "env-secret"}}
        await gateway.call(ToolCall("ada", "terminal", arguments))
        decision, end = written(tmp_path)
        assert (decision["event"], decision["effect"], decision["rule"]) == ("decision", "allow", "default")
        assert (decision["principal"], decision["tool"], decision["command"]) == (
            "ada",
            "terminal",
            arguments["command"],
        )
        assert (end["event"], end["status"], end["exit_code"], end["process_id"]) == ("end", "exited", 3, "p1")
        text = (tmp_path / "state/taskcell/audit.jsonl").read_text()
        assert "stdin-secret" not in text
        assert "env-secret" not in text
        with pytest.raises(Denied):
            await gateway.call(ToolCall("ada", "terminal", {"command": "forbidden"}))
        denied = written(tmp_path)[-1]
        assert (denied["effect"], denied["rule"]) == ("deny", "no")


async def test_a_command_that_outlives_its_call_leaves_its_end_when_it_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway:
        report = await gateway.call(ToolCall("ada", "terminal", {"command": "sleep 60", "background": True}))
        assert isinstance(report, ProcessResult)
        assert [line["event"] for line in written(tmp_path)] == ["decision"]
        kill = {"action": "kill", "process_id": report.process_id}
        await gateway.call(ToolCall("ada", "process", kill))
        with anyio.fail_after(10):
            while len(written(tmp_path)) < 3:
                await anyio.sleep(0.01)
        _, action, end = written(tmp_path)
        assert (action["event"], action["tool"], action["action"]) == ("action", "process", "kill")
        assert (end["event"], end["status"]) == ("end", "killed")


async def test_a_cancelled_call_leaves_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway, anyio.create_task_group() as calls:
        started = anyio.Event()
        call = ToolCall("ada", "terminal", {"command": "sleep 60"})
        calls.start_soon(gateway.call, call, lambda process: started.set())
        with anyio.fail_after(10):
            await started.wait()
        calls.cancel_scope.cancel()
    assert [line.get("status") for line in written(tmp_path)] == [None, "cancelled"]


async def test_file_tools_leave_their_path_and_not_what_they_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway:
        await gateway.call(ToolCall("ada", "write_file", {"path": "notes", "content": "content-secret"}))
    (decision,) = written(tmp_path)
    assert "notes" in decision["command"]
    assert "content-secret" not in json.dumps(decision)


async def test_without_its_line_a_command_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    async with opened(tmp_path, '[audit]\npath = "audit"\n') as gateway:
        with pytest.raises(AuditFailed, match="without it nothing is done"):
            await gateway.call(ToolCall("ada", "terminal", {"command": f"touch {tmp_path}/ran"}))
    assert not (tmp_path / "ran").exists()


async def test_without_a_place_for_it_there_is_no_log_and_a_named_file_that_cannot_be_written_is_a_fault(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taskcell.toml").write_text(LOCAL)
    run = Invocation({"XDG_STATE_HOME": str(tmp_path / "file")}, tmp_path, tmp_path / "taskcell.toml")
    async with configured_gateway(run, load(run)) as gateway:
        await gateway.call(ToolCall("ada", "terminal", {"command": "true"}))
    with pytest.raises(ConfigError, match=r"audit\.path cannot be written"):
        async with opened(tmp_path, '[audit]\npath = "file/audit.jsonl"\n'):
            pass
