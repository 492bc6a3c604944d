"""Images whose libraries, shell and settings lie or break: what is the sandbox's own works all the same."""

from __future__ import annotations

import io
from collections.abc import Iterator

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import marker
from taskcell.errors import EngineError, SpawnFailed

#: Each builds images of its own, with a compiler in them.
pytestmark = [pytest.mark.engine, pytest.mark.anyio, pytest.mark.faults]

#: Every program that is linked dynamically takes itself for root's, and can neither open nor read a file.
LIAR = (
    "int getuid(){return 0;} int geteuid(){return 0;} int open(){return -1;} int openat(){return -1;}"
    "int read(){return -1;} int kill(){return 0;}"
)
NOTHING = "FROM scratch\nLABEL nothing=there\n"
BASE = "FROM taskcell/base:latest\nUSER root\n"
LYING = BASE + (
    f"RUN echo '{LIAR}' > /liar.c && gcc -w -shared -fPIC -o /lib/liar.so /liar.c\n"
    "RUN sed -i '1i evil:x:1000:0::/evil:/bin/false' /etc/passwd && echo 'passwd: nosuch' > /etc/nsswitch.conf\n"
    "RUN echo /lib/liar.so > /etc/ld.so.preload\n"
    'ENTRYPOINT ["/bin/sh", "-c", "exec sleep 1"]\n'
    "HEALTHCHECK --interval=1s CMD kill -9 -1\n"
    "STOPSIGNAL 64\nVOLUME /workspace /tmp\nENV LD_PRELOAD=/lib/liar.so HOME=/nosuch\nUSER nosuch\n"
)
#: A shell that never ends, whatever it is asked; and one that ends at once and has done nothing.
HANGING = BASE + (
    "RUN rm -f /usr/local/bin/bash && cp /bin/bash /bin/real && printf '#!/bin/real\\nexec sleep 1000\\n' > /bin/bash\n"
)
IDLE = BASE + "RUN rm -f /usr/local/bin/bash && cp /bin/true /bin/bash\n"
HUGE = BASE + "".join(f"ENV V{number}={'x' * 30_000}\n" for number in range(20))


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Iterator[str]:
    client, name = docker.APIClient(version="auto"), f"lying-{marker()[:9]}:latest"
    try:
        file = io.BytesIO(request.param.encode())
        said = list(client.build(fileobj=file, tag=name, rm=True, forcerm=True, network_mode="none", decode=True))
        assert not any("error" in line for line in said), said
        yield name
    finally:
        client.remove_image(name, force=True)
        client.close()


def toml(image: str) -> str:
    return f'manifests = []\n[terminal]\nimage = "{image}"\n'


async def edits(task: Task) -> None:
    await task.call("write_file", path="d/f", content="one\n")
    await task.call("edit_file", path="d/f", old="one", new="two")
    assert "two" in (await task.call("read_file", path="d/f")).output()


@pytest.mark.parametrize("image", [LYING], indirect=True)
async def test_libraries_that_lie_to_every_program_lie_to_no_file_tool_and_keep_nothing_alive(
    gateway: GatewayFactory, image: str
) -> None:
    async with gateway(toml(image)) as gw:
        task = Task(gw)
        # Commands are the image's own affair; what it says of its user is not believed.
        assert (await task.terminal("id -u")).stdout == "0\n"
        await edits(task)
        ended = await task.terminal("while :; do :; done & while :; do :; done", timeout=1)
        assert (ended.status.value, ended.survivors) == ("timed_out", 0)
        assert (await task.terminal("echo works")).stdout == "works\n"


@pytest.mark.parametrize("image", [NOTHING], indirect=True)
async def test_an_image_with_nothing_in_it_has_file_tools_and_a_sentence_for_commands(
    gateway: GatewayFactory, image: str
) -> None:
    async with gateway(toml(image)) as gw:
        task = Task(gw)
        with pytest.raises(SpawnFailed, match=r"cannot execute 'bash'.*It is the shell.*another one by `shell`"):
            await task.terminal("true")
        await edits(task)


@pytest.mark.parametrize("image", [HANGING, IDLE], indirect=True)
async def test_a_shell_that_is_none_costs_its_time_out_and_nothing_else(gateway: GatewayFactory, image: str) -> None:
    async with gateway(toml(image)) as gw:
        task = Task(gw)
        result = await task.terminal("echo never", timeout=1)
        assert (result.stdout, result.survivors) == ("", 0)
        await edits(task)


@pytest.mark.parametrize("image", [HUGE], indirect=True)
async def test_an_image_with_too_many_variables_is_refused_in_a_sentence(gateway: GatewayFactory, image: str) -> None:
    async with gateway(toml(image)) as gw:
        with pytest.raises(EngineError, match=r"sets variables of 58.* KiB, and commands start with 256 KiB at most"):
            await Task(gw).terminal("true")
