"""What a sandbox is, read off a real one: by a process in it, and by the engine."""

from __future__ import annotations

from pathlib import Path

import anyio
import docker
import pytest

from dash import dash_image
from gateways import GatewayFactory
from observe import HOST_TIMEOUT, containers
from second_engine import DASH, SecondEngine
from taskcell.engine.docker import tcp_memory
from taskcell.errors import EngineError, SpawnFailed
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def output(gw: Gateway, command: str, tool: str = "terminal") -> str:
    result = await gw.call(ToolCall("local", tool, {"command": command}))
    assert result.exit_code == 0, result
    return result.stdout


async def own_status(gw: Gateway) -> dict[str, str]:
    text = await output(gw, "cat /proc/self/status")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def test_a_process_has_no_capability_and_is_the_profiles_user(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        status = await own_status(gw)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 0, name
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4


async def test_a_process_has_no_new_privileges_and_a_seccomp_filter(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        status = await own_status(gw)
    assert int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


async def test_pids_memory_and_cpu_are_bounded_in_the_cgroup(gateway: GatewayFactory) -> None:
    script = """
    cd /sys/fs/cgroup
    if [ -f cgroup.controllers ]; then cat pids.max memory.max; set -- $(cat cpu.max); echo $1; echo $2
    else cat pids/pids.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; fi
    """
    async with gateway() as gw:
        pids, memory, quota, period = map(int, (await output(gw, script)).split())
    assert pids == 256
    assert memory == 2 << 30
    assert quota == period


async def test_what_system_v_ipc_holds_is_bounded_and_its_memory_goes_with_the_last_command(
    gateway: GatewayFactory,
) -> None:
    script = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
message = ctypes.create_string_buffer(8200)
message[0] = 1
def fill(make, bytes_each):
    made = 0
    while (one := make()) >= 0 and made < 2000: made += 1
    print(made * bytes_each >> 20, errno.errorcode.get(ctypes.get_errno()))
def memory():
    one = libc.shmget(0, 4 << 20, 0o1600)
    if one >= 0: ctypes.memset(libc.shmat(one, None, 0), 1, 4 << 20)
    return one
def queue():
    one = libc.msgget(0, 0o1600)
    while one >= 0 and libc.msgsnd(one, message, 8000, 0o4000) == 0: pass
    return one
fill(memory, 4 << 20)
fill(queue, 16 << 10)
fill(lambda: libc.semget(0, 32000, 0o1600), 32000 * 64)
"""
    async with gateway() as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": "python3 -", "stdin": script}))
        assert result.stdout.split() == ["64", "ENOSPC", "16", "ENOSPC", "15", "ENOSPC"], result
        assert await output(gw, "ipcs -m | grep -c 4194304 || ipcs -q | grep -c 16000") == "0\n1024\n"


async def test_shared_memory_that_nobody_holds_stays_while_anything_runs_that_could_take_it(
    gateway: GatewayFactory,
) -> None:
    async with gateway() as gw:
        await output(gw, "ipcmk -M 1000000 -p 0600; setsid sleep 300 >/dev/null 2>&1 &")
        assert await output(gw, "ipcs -m | grep -c 1000000") == "1\n"
        await output(gw, "pkill sleep")
        with anyio.fail_after(HOST_TIMEOUT):  # the sleep may be reaped a moment after the next command has begun
            while await output(gw, "ipcs -m | grep -c 1000000 || true") != "0\n":
                await anyio.sleep(0.02)
        # PID 1 became the owner for a moment, and what it starts has no more rights than before.
        assert await output(gw, "id -u; grep CapEff /proc/self/status") == "1000\nCapEff:\t0000000000000000\n"


@pytest.mark.skipif(not tcp_memory.can_bound(), reason="cgroup v2 counts sockets as memory by itself")
async def test_what_connections_hold_is_bounded_and_they_go_on_at_the_bound(gateway: GatewayFactory) -> None:
    script = """
import pathlib, socket, threading
def used(): return int(pathlib.Path("/sys/fs/cgroup/memory/memory.kmem.tcp.usage_in_bytes").read_text()) >> 20
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
def connected():
    client = socket.create_connection(listener.getsockname(), timeout=20)
    return client, listener.accept()[0]
held, sent = [], 0
while sent < 100 << 20 and len(held) < 150:
    client, server = connected()
    held.append((client, server))
    client.setblocking(False)
    try:
        while sent < 100 << 20: sent += client.send(bytes(65536))
    except BlockingIOError: pass
print(len(held), used())
client, server = connected()
threading.Thread(target=lambda: (client.sendall(bytes(20 << 20)), client.close())).start()
moved = 0
while got := server.recv(1 << 20): moved += len(got)
print(moved >> 20)
"""
    async with gateway('[terminal]\nmemory = "256m"\n[workspace]\nsize = "64m"') as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": "python3 -", "stdin": script}))
    assert result.exit_code == 0, result
    connections, used, moved = map(int, result.stdout.split())
    # The kernel gives each connection a page or two beyond the bound of 32 MiB.
    assert (connections, moved) == (150, 20)
    assert 16 <= used <= 48


async def test_there_is_only_loopback(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        listed = (await output(gw, "cat /proc/net/dev")).splitlines()
    assert [line.split(":")[0].strip() for line in listed if ":" in line] == ["lo"]


async def test_the_root_file_system_is_read_only_and_what_can_be_written_is_bounded(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": "touch /usr/x /etc/x /x /.taskcell/x"}))
        assert result.stdout.count("Read-only file system") == 4
        mounts = await output(gw, "cat /proc/mounts")
        writable = {line.split()[1]: line.split() for line in mounts.splitlines() if line.split()[3].startswith("rw")}
        for target in ("/tmp", "/var/tmp", "/run", "/workspace"):
            kind, options = writable[target][2], writable[target][3].split(",")
            assert kind == "tmpfs"
            assert {"nosuid", "nodev"} <= set(options), target
            assert any(option.startswith("size=") for option in options), target
        on_disk = {
            t for t, fields in writable.items() if fields[2] not in ("tmpfs", "proc", "devpts", "mqueue", "cgroup")
        }
        assert on_disk == set()


async def test_home_and_working_directory_are_the_workspace_and_nothing_of_the_host_is_in_the_environment(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "hunter2")
    async with gateway() as gw:
        assert await output(gw, 'echo "$HOME"; pwd; id -un') == "/workspace\n/workspace\nagent\n"
        env = await output(gw, "cat /proc/self/environ /proc/1/environ 2>/dev/null | tr '\\0' '\\n'; env")
    assert "HOST_SECRET" not in env
    assert "TASKCELL" not in env


async def test_what_runs_in_it_cannot_reach_the_supervisor(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        for attempt in (
            "kill -9 1",
            "ls /run/taskcell",
            ": < /proc/1/mem",
            "readlink /proc/1/exe",
            "readlink /proc/1/root",
            "/.taskcell/supervisor connect --socket /run/taskcell/supervisor.sock < /dev/null",
        ):
            result = await gw.call(ToolCall("local", "terminal", {"command": attempt}))
            assert result.exit_code != 0, attempt
        assert await output(gw, "echo still here") == "still here\n"


async def test_what_runs_in_it_cannot_read_the_supervisors_variables(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": "cat /proc/1/environ"}))
    assert (result.exit_code, "ermission denied" in result.stdout) == (1, True)


async def test_the_engine_sees_the_labels_and_no_task_id(gateway: GatewayFactory, docker_api: docker.APIClient) -> None:
    async with gateway('deployment = "labels-test"') as gw:
        await gw.call(ToolCall("local", "terminal", {"command": "true", "task_id": "Secret plans ../../x"}))
        (container,) = containers(docker_api, taskcell__deployment="labels-test")
        found = docker_api.inspect_container(container)
    labels = found["Config"]["Labels"]
    assert labels["taskcell"] == "1"
    assert labels["taskcell.profile"] == "terminal"
    assert labels["taskcell.instance"]
    assert "Secret" not in str(found)
    assert found["HostConfig"]["AutoRemove"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["Binds"] is None


async def test_closing_leaves_no_container_and_no_volume(gateway: GatewayFactory, docker_api: docker.APIClient) -> None:
    async with gateway('deployment = "leaves-nothing"') as gw:
        for task in ("a", "b"):
            await gw.call(ToolCall("local", "terminal", {"command": "sleep 300 &", "task_id": task}))
            await gw.call(ToolCall("local", "jq", {"args": ["-n", "1"], "task_id": task}))
        assert len(containers(docker_api, taskcell__deployment="leaves-nothing")) == 4
    assert containers(docker_api, taskcell__deployment="leaves-nothing") == []
    volumes = docker_api.volumes(filters={"label": "taskcell.deployment=leaves-nothing"})["Volumes"]
    assert not volumes


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (("toor:x:0:0::/:/bin/sh\n", ""), "commands may not run as root"),
        (("toor:x:1000:0::/:/bin/sh\n", ""), "the image gives it root's group; name another one, as in 'uid:gid'"),
        (("toor:x:1000:1000::/:/bin/sh\n", "root:x:0:other,toor\n"), "the image gives it root's group"),
    ],
)
async def test_a_name_to_which_the_image_gives_root_or_its_group_is_refused(
    gateway: GatewayFactory, docker_api: docker.APIClient, tmp_path: Path, files: tuple[str, str], why: str
) -> None:
    (tmp_path / "image.tar").write_bytes(dash_image(*files))
    docker_api.import_image(str(tmp_path / "image.tar"), repository="taskcell/test-toor", tag="latest")
    toml = '[terminal]\nimage = "taskcell/test-toor:latest"\nshell = ["/bin/sh", "-c"]\nuser = "toor"'
    try:
        async with gateway(toml) as gw:
            with pytest.raises(SpawnFailed, match=why):
                await gw.call(ToolCall("local", "terminal", {"command": "echo $0"}))
    finally:
        docker_api.remove_image("taskcell/test-toor:latest", force=True)


@pytest.mark.parametrize("path", ["/.taskcell", "/.taskcell/x", "/proc", "/proc/sys/../x", "/", "/dev"])
async def test_an_image_with_a_volume_where_a_sandbox_has_its_own_is_refused_in_a_sentence(
    gateway: GatewayFactory, docker_api: docker.APIClient, tmp_path: Path, path: str
) -> None:
    (tmp_path / "image.tar").write_bytes(dash_image())
    changes = [f'VOLUME ["{path}"]']
    docker_api.import_image(
        str(tmp_path / "image.tar"), repository="taskcell/test-volume", tag="latest", changes=changes
    )
    toml = 'deployment = "volume"\n[terminal]\nimage = "taskcell/test-volume:latest"\nshell = ["/bin/sh", "-c"]'
    try:
        async with gateway(toml) as gw:
            with pytest.raises(EngineError, match=r"declares a volume at '/.*'.*; build it without that VOLUME"):
                await gw.call(ToolCall("local", "terminal", {"command": "true"}))
            assert containers(docker_api, taskcell__deployment="volume") == []
    finally:
        docker_api.remove_image("taskcell/test-volume:latest", force=True)


@pytest.mark.parametrize("persistent", [False, True])
async def test_an_image_that_declares_a_volume_leaves_none(
    gateway: GatewayFactory, second_engine: SecondEngine, tmp_path: Path, persistent: bool
) -> None:
    (tmp_path / "image.tar").write_bytes(dash_image())
    api = docker.APIClient(second_engine.host, version="auto")
    api.import_image(
        str(tmp_path / "image.tar"), repository="taskcell/dash", tag="latest", changes=['VOLUME ["/data"]']
    )
    async with gateway(f"{DASH}[workspace]\npersistent = {str(persistent).lower()}", host=second_engine.host) as gw:
        assert await output(gw, "echo works >/data/x; echo works") == "works\n"
    left = [(volume["Labels"] or {}).get("taskcell.kind") for volume in api.volumes()["Volumes"]]
    api.close()
    assert sorted(map(str, left)) == (["data", "supervisor"] if persistent else ["supervisor"])


async def test_the_supervisors_volume_is_filled_again_when_somebody_removes_it_and_older_ones_go(
    gateway: GatewayFactory, second_engine: SecondEngine, tmp_path: Path
) -> None:
    # On an engine of its own: a volume that any other sandbox uses cannot be removed.
    (tmp_path / "image.tar").write_bytes(dash_image())
    api = docker.APIClient(second_engine.host, version="auto")
    api.import_image(str(tmp_path / "image.tar"), repository="taskcell/dash", tag="latest")

    def supervisors() -> set[str]:
        found = api.volumes(filters={"label": "taskcell.kind=supervisor"})["Volumes"] or ()
        return {volume["Name"] for volume in found}

    async with gateway(DASH, host=second_engine.host) as gw:
        await gw.call(ToolCall("local", "terminal", {"command": "true", "task_id": "one"}))
        (own,) = supervisors()
        await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "one"}))
        api.remove_volume(own)
        api.create_volume("taskcell-supervisor-of-an-older-version", labels={"taskcell.kind": "supervisor"})
        result = await gw.call(ToolCall("local", "terminal", {"command": "echo works", "task_id": "two"}))
        assert result.stdout == "works\n"
        assert supervisors() == {own}
    api.close()
