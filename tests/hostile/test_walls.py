"""What the kernel counts for a user or for all, and what is left in memory: bounded, or given back by a close."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import anyio
import docker
import pytest

from deployment_servers import ORPHAN_TTL, Servers, run
from figures import Figure
from gateways import GatewayFactory
from observe import HOST_TIMEOUT, eventually, marker
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

#: A user that nobody on this machine is: what is counted for a user is taken from nobody.
USER = 'user = "64123:64123"\n'


async def terminal(gw: Gateway, command: str, task: str = "t", **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task, **arguments}))


TAKE_INOTIFY = """
import ctypes, time
libc, taken = ctypes.CDLL(None, use_errno=True), 0
while libc.inotify_init() >= 0: taken += 1
print(taken, ctypes.get_errno(), flush=True)
time.sleep(600)
"""


async def test_inotify_instances_are_shared_by_a_users_sandboxes_alone_and_a_close_gives_them_back(
    gateway: GatewayFactory, figure: Figure
) -> None:
    one_more = "python3 -c 'import ctypes; print(ctypes.CDLL(None).inotify_init() >= 0)'"
    async with gateway(f"[terminal]\n{USER}") as hostile, gateway() as other_user:
        taken = await terminal(hostile, "python3 -u -", "attacker", stdin=TAKE_INOTIFY, wait=3)
        count, error = map(int, taken.stdout.split())
        assert (count > 0, error) == (True, 24)
        assert (await terminal(hostile, one_more, "victim")).stdout == "False\n"
        assert (await terminal(other_user, one_more)).stdout == "True\n"
        await hostile.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "attacker"}))
        assert (await terminal(hostile, one_more, "victim")).stdout == "True\n"
    figure(f"{count} instances")


TAKE_TERMINALS = """
import os, time
taken = []
try:
    while True: taken.append(os.openpty())
except OSError as error: print(len(taken), error.errno, flush=True)
time.sleep(600)
"""


async def test_terminals_that_a_sandbox_takes_are_not_the_last_and_a_close_gives_them_back(
    gateway: GatewayFactory, figure: Figure
) -> None:
    async with gateway() as gw:
        taken = await terminal(gw, "ulimit -n hard; python3 -u -", "attacker", stdin=TAKE_TERMINALS, wait=5)
        count = int(taken.stdout.split()[0])
        on_the_host = os.openpty()
        for descriptor in on_the_host:
            os.close(descriptor)
        await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "attacker"}))
        assert (await terminal(gw, "tty", pty=True)).exit_code == 0
    figure(f"{count} terminals")


async def test_files_that_fill_the_memory_are_named_and_a_reset_frees_them(
    gateway: GatewayFactory, figure: Figure
) -> None:
    keep = "for f in /dev/shm/x /tmp/x /workspace/x; do head -c 400000000 /dev/zero >$f; done 2>/dev/null; "
    use = "python3 -c 'x = bytearray(150_000_000); print(len(x))'"
    async with gateway('[terminal]\nmemory = "256m"\n[workspace]\nsize = "100m"') as gw:
        assert (await terminal(gw, use)).stdout == "150000000\n"
        await terminal(gw, keep + "ipcmk -Q")
        killed = await terminal(gw, use)
        assert killed.status.value == "oom_killed"
        (note,) = killed.notes
        for named in ("/workspace", "/tmp", "/dev/shm", "`ipcs`", "'reset'"):
            assert named in note
        await terminal(gw, "rm /workspace/x")
        await gw.call(ToolCall("local", "sandbox", {"action": "reset", "task_id": "t"}))
        assert (await terminal(gw, use)).stdout == "150000000\n"
    figure("150 MB of 256 are free again")


async def test_a_warm_sandbox_that_nobody_claims_ends_after_orphan_ttl(
    tmp_path: Path, docker_api: docker.APIClient, figure: Figure
) -> None:
    servers = Servers(tmp_path, f"warm-{marker()[:9]}")
    servers.toml = servers.toml.replace("warm = 0", "warm = 1").replace(f'"{ORPHAN_TTL}s"', '"10s"')
    with suppress(BaseExceptionGroup):  # the client's connection ends under it
        async with servers.serve() as (client, pid):
            await run(client, "true")

            def two_are_claimed() -> bool:
                """One that is only made, or not claimed yet, has more time before it ends."""
                found = [docker_api.inspect_container(one) for one in servers.ids(docker_api)]
                return len([one for one in found if one["State"]["Running"] and one["ExecIDs"]]) == 2

            assert await anyio.to_thread.run_sync(eventually, two_are_claimed)
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    none = lambda: not servers.ids(docker_api)  # noqa: E731
    assert await anyio.to_thread.run_sync(eventually, none, 10 + HOST_TIMEOUT)
    figure(f"gone {time.monotonic() - began:.0f} s after its server, with 10 s of orphan_ttl")
