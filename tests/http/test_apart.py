"""Large files go by a stream of their own beside the sandbox's channel: whole or not at all, as its user, and no longer
than somebody wants them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import anyio
import docker
import httpx2
import pytest

from gateways import GatewayFactory
from observe import HOST_TIMEOUT, alive, containers, marker
from served_door import served_door
from taskcell.files.apart_stream import LARGE
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = pytest.mark.anyio


class Served:
    """A server with its local door, and one task `t` with a file whose name no other process on this machine has."""

    def __init__(self, gateway: Gateway, door: Path, http: httpx2.AsyncClient) -> None:
        self.gateway, self.door, self.http = gateway, door, http
        self.name = marker()
        self.address = f"/files/t/{self.name}"

    async def run(self, line: str) -> str:
        report = await self.gateway.call(ToolCall("local", "terminal", {"command": line, "task_id": "t"}))
        assert isinstance(report, ProcessResult)
        return report.stdout

    async def make(self, size: int) -> bytes:
        """Have the file of so many bytes, with something at its beginning, in its middle and at its end."""
        data = b"first" + bytes(size // 2 - 5) + b"middle" + bytes(size - size // 2 - 10) + b"last"
        parts = "printf first; head -c {} /dev/zero; printf middle; head -c {} /dev/zero; printf last"
        await self.run(f"({parts.format(size // 2 - 5, size - size // 2 - 10)}) > {self.name}")
        assert len(data) == size
        return data

    def programs(self) -> list[str]:
        """Command lines of the programs that carry the file."""
        return [line for line in alive(self.name) if " apart " in line]

    async def until_programs(self, count: int) -> None:
        with anyio.fail_after(HOST_TIMEOUT):
            while len(self.programs()) != count:
                await anyio.sleep(0.02)


@pytest.fixture
async def served(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Served]:
    async with served_door(gateway, tmp_path / "s") as parts:
        yield Served(*parts)


@pytest.mark.parametrize("more", [0, 1])
async def test_a_file_around_the_bound_goes_in_and_out_whole(served: Served, more: int) -> None:
    data = await served.make(LARGE + more)
    assert (await served.http.get(served.address)).content == data
    put = await served.http.put(f"/files/t/copy-{served.name}", content=data)
    assert (put.status_code, put.json()["size"]) == (200, len(data))
    assert await served.run(f"cmp {served.name} copy-{served.name} && ls -A | wc -l") == "2\n"


async def test_a_large_part_of_a_file_is_that_part(served: Served) -> None:
    data = await served.make(LARGE + 1000)
    got = await served.http.get(served.address, headers={"range": f"bytes=3-{LARGE + 900}"})
    assert (got.status_code, got.content == data[3 : LARGE + 901]) == (206, True)
    assert got.headers["content-range"] == f"bytes 3-{LARGE + 900}/{len(data)}"


async def test_a_large_file_has_a_program_of_its_own_that_goes_with_its_reader(served: Served) -> None:
    await served.run(f"truncate -s {2 * LARGE} {served.name}")
    async with served.http.stream("GET", served.address):
        await served.until_programs(1)
        assert await served.run("echo works") == "works\n"
    await served.until_programs(0)
    assert await served.run("echo works") == "works\n"


async def test_a_file_whose_program_is_killed_never_looks_whole(served: Served) -> None:
    await served.run(f"truncate -s {2 * LARGE} {served.name}")
    async with served.http.stream("GET", served.address) as answer:
        await served.until_programs(1)
        await served.run(f"pkill -KILL -f 'apart .*{served.name}'")
        with pytest.raises(httpx2.RemoteProtocolError):
            await answer.aread()


async def test_a_file_that_becomes_shorter_on_its_way_never_looks_whole(served: Served) -> None:
    await served.run(f"truncate -s {2 * LARGE} {served.name}")
    async with served.http.stream("GET", served.address) as answer:
        await served.until_programs(1)
        await served.run(f"truncate -s {LARGE} {served.name}")
        with pytest.raises(httpx2.RemoteProtocolError):
            await answer.aread()


async def test_a_large_file_that_is_cut_off_on_its_way_in_does_not_become_one(served: Served) -> None:
    stream = await anyio.connect_unix(str(served.door))
    head = f"PUT {served.address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE + 1}\r\n\r\n"
    await stream.send(head.encode() + bytes(100_000))
    await served.until_programs(1)
    await stream.aclose()
    await served.until_programs(0)
    assert await served.run("ls -A") == ""


async def test_a_large_file_that_has_no_place_is_refused_in_the_tools_words(served: Served) -> None:
    await served.run("mkdir folder")
    refused = await served.http.put("/files/t/folder", content=bytes(LARGE + 1))
    assert (refused.status_code, "is a folder" in refused.json()["error"]["message"]) == (409, True)
    await served.run("ln -s / out")
    refused = await served.http.put("/files/t/out/tmp/f", content=bytes(LARGE + 1))
    assert (refused.status_code, "leads out of the workspace" in refused.json()["error"]["message"]) == (400, True)


async def test_archives_go_by_the_channel_however_large(served: Served) -> None:
    await served.run(f"truncate -s {LARGE + 1} {served.name}")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("inner")
        info.size = LARGE + 1
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    put = await served.http.put(
        "/files/t/folder", content=packed.getvalue(), headers={"content-type": "application/x-tar"}
    )
    assert (put.status_code, put.json()["entries"]) == (200, 1)
    got = await served.http.get(served.address, headers={"accept": "application/x-tar"})
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        assert tar.getmember(served.name).size == LARGE + 1


@pytest.mark.engine
async def test_in_a_container_it_is_the_commands_user_without_privileges(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    """What the kernel says of it, and what it can read, is what holds for a command."""
    name = f"apart-{os.getpid()}"
    async with gateway(f'deployment = "{name}"\nmanifests = []\n', engine="docker") as gw:
        made = await gw.call(ToolCall("local", "terminal", {"command": "truncate -s 1G f; cat /proc/self/status"}))
        assert isinstance(made, ProcessResult)
        (container,) = containers(docker_api, taskcell__deployment=name)

        def execute(*words: str) -> str:
            words = ("/.taskcell/supervisor", "apart", *words)
            return str(docker_api.exec_create(container, list(words), user="0:0", stdin=True)["Id"])

        def said(*words: str) -> bytes:
            return bytes(docker_api.exec_start(execute(*words)))

        one = execute("1000:1000", "/workspace", "send", "raw", "0", "1000000000", "f")
        with closing(docker_api.exec_start(one, socket=True)):
            with anyio.fail_after(HOST_TIMEOUT):
                while uid_of(seen := host_status(docker_api, one)) != "1000":
                    await anyio.sleep(0.02)
            assert facts(seen) == facts(made.stdout)
        assert said("1000:1000", "/etc", "send", "raw", "0", "100", "shadow")[:6] == b"\1\1" + (13).to_bytes(
            4, "little"
        )
        assert b"no such user" in said("nobody-here", "/", "send", "raw", "0", "100", "etc/passwd")


def host_status(api: docker.APIClient, executed: str) -> str:
    """`/proc/PID/status` of an exec's process; empty while it has none."""
    try:
        return Path(f"/proc/{api.exec_inspect(executed)['Pid']}/status").read_text()
    except OSError:
        return ""


def uid_of(status: str) -> str:
    return facts(status)["Uid"].split()[0] if status else ""


def facts(status: str) -> dict[str, str]:
    """What `/proc/PID/status` says of a process's rights."""
    names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    return {name: found[name].strip() for name in names}
