"""A PID 1 from which everything is taken: no count is false, and the next call works or has a new sandbox."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import anyio
import docker
import pytest

from figures import Figure
from gateways import GatewayFactory
from observe import alive, eventually, marker
from second_engine import DASH, SecondEngine
from taskcell.engine.docker.standing import CHANNEL
from taskcell.errors import SandboxLost, SpawnFailed
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

#: Seconds from a call to its answer, when a sandbox has to be replaced for it.
REPLACED_WITHIN = 5.0
#: Seconds after which silence alone would count as a loss, and a busy machine.
SILENT = 15.0 + 45.0
GENERATED = "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"
#: As prlimit(1) calls them.
EVERY_LIMIT = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
    *("rttime", "sigpending", "stack"),
)
#: Descriptors that an engine allows to each process of a container; PID 1 takes five for each command.
FEW_DESCRIPTORS = 64


async def terminal(gw: Gateway, command: str, **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, **arguments}))


async def next_works(gw: Gateway) -> float:
    """Seconds until the next call's answer."""
    began = time.monotonic()
    with anyio.fail_after(REPLACED_WITHIN):
        assert (await terminal(gw, "echo works")).stdout == "works\n"
    return time.monotonic() - began


def check_count(result: ProcessResult, mark: str) -> None:
    """Whoever says that nobody survived is right."""
    assert result.status.value in ("timed_out", "lost", "oom_killed", "killed"), result
    if result.survivors == 0:
        assert alive(mark) == [], result


async def test_root_takes_each_limit_of_pid_1_and_no_count_is_false(gateway: GatewayFactory, figure: Figure) -> None:
    slowest = 0.0
    async with gateway(GENERATED) as gw:
        for limit in EVERY_LIMIT:
            mark = marker()
            took = f"sudo prlimit --pid 1 --{limit}=0:0; (setsid sleep {mark} &); sleep {mark}"
            check_count(await terminal(gw, took, timeout=1), mark)
            slowest = max(slowest, await next_works(gw))
            assert await anyio.to_thread.run_sync(eventually, lambda: not alive(mark))  # noqa: B023 - awaited here
    figure(f"{len(EVERY_LIMIT)} limits; the next call took {slowest:.1f} s at most")


@pytest.mark.parametrize("what", ["the supervisor", "its channel"])
async def test_a_signal_stops_what_a_call_needs_and_the_next_one_has_the_files(
    gateway: GatewayFactory, docker_api: docker.APIClient, figure: Figure, what: str
) -> None:
    async with gateway() as gw:
        await terminal(gw, "echo kept > file")
        (slot,) = gw.pool.slots
        assert slot.sandbox is not None
        container = slot.sandbox.container.id
        listed = docker_api.top(container, ps_args="-o pid,args")["Processes"]
        (channel,) = [int(pid) for pid, command in listed if tuple(command.split()) == CHANNEL]
        pid_1 = int(docker_api.inspect_container(container)["State"]["Pid"])
        began = time.monotonic()
        os.kill(pid_1 if what == "the supervisor" else channel, signal.SIGSTOP)
        with anyio.fail_after(SILENT):
            lost = await terminal(gw, "echo never")
        found_out = time.monotonic() - began
        assert lost.status.value == "lost"
        assert "was stopped by a signal" in lost.notes[0]
        took = await next_works(gw)
        assert (await terminal(gw, "cat file")).stdout == "kept\n"
    figure(f"{what}: found out after {found_out:.1f} s; the next call took {took:.1f} s")


#: Leaves files everywhere, and takes what is left by processes that detach themselves.
FILL_MEMORY = """
import os, sys, time
for folder in ("/dev/shm", "/tmp", "/var/tmp", "/workspace"):
    try:
        with open(f"{folder}/full", "wb", 0) as file:
            while True: file.write(bytes(1 << 20))
    except OSError: pass
for _ in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execlp("sleep", "sleep", sys.argv[1])
        held = []
        while True: held.append(bytearray(1 << 20))
time.sleep(float(sys.argv[1]))
"""


async def test_a_sandbox_without_memory_counts_right_and_the_next_call_works(
    gateway: GatewayFactory, figure: Figure
) -> None:
    slowest, statuses = 0.0, []
    async with gateway('[terminal]\nmemory = "200m"\n[workspace]\nsize = "100m"') as gw:
        for _ in range(3):
            mark = marker()
            await terminal(gw, "cat >fill.py", stdin=FILL_MEMORY)
            result = await terminal(gw, f"python3 fill.py {mark}", timeout=3)
            check_count(result, mark)
            statuses.append(result.status.value)
            if result.status.value == "oom_killed":
                assert "use `sandbox` with the action 'reset'" in " ".join(result.notes)
            # What is left in the workspace fills the next sandbox too.
            slowest = max(slowest, await next_works(gw))
            await terminal(gw, "rm -f /workspace/full")
            await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
            assert await anyio.to_thread.run_sync(eventually, lambda: not alive(mark))  # noqa: B023 - awaited here
    figure(f"{', '.join(statuses)}; the next call took {slowest:.1f} s at most")


@pytest.fixture
def engine_of_few_descriptors() -> Iterator[SecondEngine]:
    engine = SecondEngine(options=[f"--default-ulimit=nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}"])
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


async def test_a_sandbox_without_descriptors_says_so_and_counts_every_kill_right(
    gateway: GatewayFactory, engine_of_few_descriptors: SecondEngine, figure: Figure
) -> None:
    mark, started = marker(), []
    async with gateway(DASH, host=engine_of_few_descriptors.host) as gw:
        while len(started) < FEW_DESCRIPTORS:
            try:
                result = await terminal(gw, f"sleep {mark} & sleep {mark}", background=True)
            except SpawnFailed as failure:
                said = str(failure)
                break
            started.append(result.process_id)
        assert 5 < len(started) < FEW_DESCRIPTORS / 2
        assert "Too many open files" in said or "no room" in said
        for process_id in started:
            report = await gw.call(ToolCall("local", "process", {"action": "kill", "process_id": process_id}))
            assert report.result is not None
            assert report.result.survivors == 0
        assert alive(mark) == []
        took = await next_works(gw)
    figure(f"refused after {len(started)} commands; the next call took {took:.1f} s")


async def test_a_sandbox_without_pids_counts_right_and_the_next_call_works(
    gateway: GatewayFactory, figure: Figure
) -> None:
    slowest = 0.0
    async with gateway("[terminal]\npids = 40") as gw:
        for _ in range(3):
            mark = marker()
            fill = f"for i in $(seq 60); do (setsid sleep {mark} &); done 2>/dev/null; sleep {mark}"
            with suppress(SpawnFailed, SandboxLost):
                check_count(await terminal(gw, fill, timeout=2), mark)
            assert await anyio.to_thread.run_sync(eventually, lambda: not alive(mark))  # noqa: B023 - awaited here
            slowest = max(slowest, await next_works(gw))
    figure(f"3 times; the next call took {slowest:.1f} s at most")
