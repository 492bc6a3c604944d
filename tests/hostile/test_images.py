"""Images that attack the engine itself: what it reads of them before the sandbox's walls stand never ends."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator

import anyio
import docker
import pytest

from dash import dash_image
from figures import Figure
from gateways import GatewayFactory
from observe import containers, eventually
from second_engine import DASH, SecondEngine
from taskcell.engine.docker.engine import START_TIMEOUT
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.pool.leftovers import LIST_TIMEOUT

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

#: Bytes of memory that the engine may use itself: ten times what it takes, and soon used up.
ENGINE_MEMORY = 1 << 30
#: Seconds beyond a bound that a busy machine may take.
SLACK = 15.0
PASSWD, GROUP = "etc/passwd", "etc/group"
HOSTILE = '[terminal]\nimage = "taskcell/hostile:latest"\nshell = ["/bin/sh", "-c"]\n'


def hostile_image(*, fifo: bool, zeros: bool) -> bytes:
    """The small image with a FIFO as its list of users, or a list of groups that is zeros without end."""
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(dash_image())) as plain, tarfile.open(fileobj=made, mode="w") as image:
        for member in plain:
            if member.name not in ((PASSWD,) if fifo else ()) + ((GROUP,) if zeros else ()):
                image.addfile(member, plain.extractfile(member) if member.isfile() else None)
        if fifo:
            entry = tarfile.TarInfo(PASSWD)
            entry.type = tarfile.FIFOTYPE
            image.addfile(entry)
        if zeros:
            device = tarfile.TarInfo("dev/zero")
            device.type, device.devmajor, device.devminor, device.mode = tarfile.CHRTYPE, 1, 5, 0o666
            image.addfile(device)
            link = tarfile.TarInfo(GROUP)
            link.type, link.linkname = tarfile.SYMTYPE, "/dev/zero"
            image.addfile(link)
    return made.getvalue()


@pytest.fixture
def bounded_engine() -> Iterator[SecondEngine]:
    engine = SecondEngine(memory=ENGINE_MEMORY)
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


async def terminal(gw: Gateway, command: str) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command}))


@pytest.mark.parametrize("kind", ["both", "fifo", "zeros"])
async def test_an_image_whose_list_of_users_never_ends_is_answered_in_time_and_leaves_nothing(
    gateway: GatewayFactory, bounded_engine: SecondEngine, figure: Figure, kind: str
) -> None:
    engine = bounded_engine
    engine.import_image("taskcell/hostile", hostile_image(fifo=kind != "zeros", zeros=kind != "fifo"))
    took = []
    async with gateway(f'deployment = "hostile-image"\n{HOSTILE}', host=engine.host) as gw:
        for bound in (START_TIMEOUT + SLACK, LIST_TIMEOUT + SLACK):
            began = time.monotonic()
            with anyio.fail_after(bound):
                try:
                    said = (await terminal(gw, "echo works")).stdout
                except EngineError as error:
                    said = str(error)
            took.append(time.monotonic() - began)
            assert said == "works\n" or "taskcell/hostile:latest" in said or "does not answer" in said, said
    peak = engine.bound.peak if engine.bound else 0
    figure(f"{kind}: answered after {took[0]:.1f} s, then {took[1]:.1f} s; the engine took {peak >> 20} MiB")
    await anyio.to_thread.run_sync(engine.stop)
    await anyio.to_thread.run_sync(engine.start)
    async with gateway(f'deployment = "hostile-image"\n{DASH}', host=engine.host) as gw:
        assert (await terminal(gw, "echo works")).stdout == "works\n"
        api = docker.APIClient(engine.host, version="auto")
        try:
            one_left = lambda: len(containers(api, taskcell__deployment="hostile-image")) == 1  # noqa: E731
            assert await anyio.to_thread.run_sync(eventually, one_left)
        finally:
            api.close()
