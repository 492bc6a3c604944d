"""What goes wrong around a pod, on a real cluster whose folder `TASKCELL_TEST_CLUSTER` names (`cluster-up.sh`)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from gateways import GatewayFactory
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: A pod has no bound of its own on processes.
TOML = "[policy]\nallow_unenforced = ['pids']\n"
#: Seconds that the API server is away, and that a call may take with that.
AWAY, LIMIT = 4.0, 90.0


class Program:
    """A program of the cluster, by the pid that was written at its start."""

    def __init__(self, name: str) -> None:
        self._folder = Path(os.environ["TASKCELL_TEST_CLUSTER"])
        self._file = self._folder / "pids" / name
        pid = int(self._file.read_text())
        self._argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]

    def kill(self) -> None:
        os.kill(int(self._file.read_text()), signal.SIGKILL)

    def start(self) -> None:
        with (self._folder / "log" / f"{self._file.name}-again.log").open("ab") as log:
            again = subprocess.Popen(self._argv, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        self._file.write_text(str(again.pid))


async def terminal(gw: Gateway, command: str, **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, **arguments}))


async def test_an_api_server_that_is_killed_under_a_command_costs_nothing(gateway: GatewayFactory) -> None:
    results: list[ProcessResult] = []
    async with gateway(TOML, engine="kubernetes") as gw:
        await terminal(gw, "echo kept > file; export A=1")
        program = Program("apiserver")

        async def long() -> None:
            results.append(await terminal(gw, "echo ran >> runs; for i in $(seq 10); do echo $i; sleep 0.6; done"))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls:
                calls.start_soon(long)
                while (await terminal(gw, "cat runs")).stdout != "ran\n":
                    await anyio.sleep(0.05)
                program.kill()
                await anyio.sleep(AWAY)
                program.start()
                after = await terminal(gw, "cat file runs; echo $A")
        assert results[0].stdout.split() == [str(number) for number in range(1, 11)]
        assert (results[0].status.value, after.stdout, after.notes) == ("exited", "kept\nran\n1\n", ())
