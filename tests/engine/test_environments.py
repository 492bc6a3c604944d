"""Images with a project of root's are worked on with the default hardening, several at once."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.errors import BadArgument, Denied, EngineError, NoRoom
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall
from taskcell.pool import keeper, upkeep

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

BASE = "taskcell/base:latest"
INSTANCES = ("one", "two", "three")
#: Seconds for what takes a few, on a machine that is busy.
PATIENCE = 300.0
TOML = """
deployment = "swe-test"
manifests = []
[terminal]
memory = "512m"
[workspace]
size = "64m"
[environments.swe]
image = "taskcell/base:latest"
own = ["/testbed", "/opt/private"]
working_dir = "/testbed"
memory = "512m"
setup = "echo set up > /testbed/.git/setup; echo noise"
[policy]
task_images = ["taskcell-test/swe-*"]
"""
DOCKERFILE = """
FROM {base}
USER root
COPY app.py test_app.py /testbed/src/
RUN cd /testbed && git init -q . && git -c user.name=a -c user.email=a@b add . \
    && git -c user.name=a -c user.email=a@b commit -qm {name} && echo {name} > .git/name \
    && mkdir -p /opt/private/deep && echo x > /opt/private/deep/f && chown -R 4242:4242 /opt/private \
    && chmod -R go-rwx /opt/private && echo root > /root.txt && ln -s /root.txt /testbed/link && chmod 600 /root.txt \
    && ln -s /etc /testbed/etc && ln -s /testbed /linked
"""
FILES = {
    "app.py": "def add(a, b):\n    return a - b\n",
    "test_app.py": "from app import add\nassert add(1, 2) == 3\nprint('passed')\n",
}

#: What a task makes of its folders: changed, made, deleted, moved and linked files, modes, a hole, a folder of mode 0.
WORK = """
cd /testbed/src && echo new > new && rm test_app.py && mv app.py 'moved
app.py' && ln new hard && ln -s ../.git soft && chmod 750 new && touch -d @1000000000 new && mkfifo pipe
truncate -s 100M sparse && mkdir -p locked/in && chmod 0 locked && rm /opt/private/deep/f && echo kept > /workspace/f
rm /testbed/.git/setup; export KEPT=yes
"""
#: What of it can be seen, in the same words for every copy.
LOOK = """
pwd; echo $KEPT; cat /workspace/f; cd /testbed
find . /opt/private -path ./.git -prune -o -type d -printf '%p d %m\\n' -o -printf '%p %y %m %n %s %l\\n' | sort
stat -c %Y src/new; du -k src/sparse | cut -f1; git status --short; git -C /testbed fsck 2>&1; ls .git; cat .git/name
"""


def build(client: docker.APIClient, name: str) -> str:
    tag, context = f"taskcell-test/swe-{name}:1", io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in {**FILES, "Dockerfile": DOCKERFILE.format(base=BASE, name=name)}.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    context.seek(0)
    for line in client.build(fileobj=context, custom_context=True, tag=tag, rm=True, decode=True):
        assert "error" not in line, line
    return tag


@pytest.fixture(scope="module")
def images(docker_api: docker.APIClient) -> Iterator[dict[str, str]]:
    """An image for each instance: a repository of root's in /testbed."""
    yield {name: build(docker_api, name) for name in INSTANCES}
    for name in INSTANCES:
        docker_api.remove_image(f"taskcell-test/swe-{name}:1", force=True)


async def opened(gw: Gateway, task: str, **what: Any) -> str:
    call = ToolCall("local", "sandbox", {"action": "open", "task_id": task, **what})
    return (await gw.call(call)).said()


async def test_three_images_are_edited_tested_and_diffed_at_once(
    gateway: GatewayFactory, images: dict[str, str], docker_api: docker.APIClient
) -> None:
    async with gateway(TOML) as gw:

        async def work(name: str) -> None:
            task = Task(gw, task=name)
            assert "Commands start in /testbed" in await opened(gw, name, environment="swe", image=images[name])
            assert (await task.terminal("cat .git/name .git/setup; pwd")).stdout == f"{name}\nset up\n/testbed\n"
            status = await task.terminal("git status --short -uno")
            assert (status.exit_code, status.stdout) == (0, "")  # no "dubious ownership"
            assert (await task.terminal("python3 src/test_app.py")).exit_code == 1
            found = await task.call("search", pattern="return", path="/testbed")
            assert "/testbed/src/app.py" in found.output()
            await task.call("edit_file", path="/testbed/src/app.py", edits=[{"old": "a - b", "new": "a + b"}])
            assert (await task.terminal("cd src && python3 test_app.py")).stdout == "passed\n"
            diff = (await task.terminal("git -C /testbed diff | tee /workspace/fix.patch")).stdout
            assert "-    return a - b\n+    return a + b\n" in diff
            made = "git -c user.name=a -c user.email=a@b commit -qam fix && git log --oneline | wc -l"
            assert (await task.terminal(made)).stdout == "2\n"

        async with anyio.create_task_group() as tasks:
            for name in INSTANCES:
                tasks.start_soon(work, name)
        slots = {slot.task.task: slot.sandbox for slot in gw.pool.slots if slot.sandbox}
        for name in INSTANCES:
            inspected = docker_api.inspect_container(slots[name].container.id)
            host, config = inspected["HostConfig"], inspected["Config"]
            assert host["CapDrop"] == ["ALL"]
            assert host["NetworkMode"] == "none"
            assert any("no-new-privileges" in option for option in host["SecurityOpt"])
            assert config["Image"].startswith("sha256:") or config["Image"] == images[name]


async def test_only_what_is_named_becomes_the_users_and_through_no_link(
    gateway: GatewayFactory, images: dict[str, str]
) -> None:
    async with gateway(TOML) as gw:
        await opened(gw, "t", environment="swe", image=images["one"])
        task = Task(gw)
        listed = await task.terminal(
            "stat -c '%u:%g %n' /testbed /testbed/link /testbed/.git/name /root.txt /etc /etc/passwd"
        )
        assert listed.stdout.splitlines() == [
            "1000:1000 /testbed",
            "1000:1000 /testbed/link",
            "1000:1000 /testbed/.git/name",
            "0:0 /root.txt",
            "0:0 /etc",
            "0:0 /etc/passwd",
        ]
        assert (await task.terminal("cat /opt/private/deep/f")).stdout == "x\n"  # another user's private folder
        refused = await task.terminal("touch /usr/x /opt/x; cat /root.txt; grep CapEff /proc/self/status")
        assert refused.stdout.count("ermission denied") == 3
        assert "CapEff:\t0000000000000000" in refused.stdout


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ("/linked", "/linked: Not a directory"),
        ("/nosuch", "/nosuch: No such file or directory"),
        ("/root.txt", "/root.txt: Not a directory"),
    ],
)
async def test_what_is_no_folder_of_the_image_is_told(
    gateway: GatewayFactory, images: dict[str, str], docker_api: docker.APIClient, own: str, says: str
) -> None:
    toml = TOML.replace('own = ["/testbed", "/opt/private"]', f'own = ["{own}"]')
    async with gateway(toml) as gw:
        with pytest.raises(EngineError) as caught:
            await opened(gw, "t", environment="swe", image=images["one"])
        assert says in str(caught.value)
        assert (await Task(gw).terminal("echo default")).stdout == "default\n"
        left = docker_api.containers(all=True, filters={"label": "taskcell.deployment=swe-test"})
        assert len(left) == 1


async def test_a_setup_that_fails_or_hangs_is_told_with_what_it_printed(
    gateway: GatewayFactory, images: dict[str, str]
) -> None:
    toml = TOML.replace(
        'setup = "echo set up > /testbed/.git/setup; echo noise"', 'setup = "echo no such thing; exit 7"'
    )
    async with gateway(toml) as gw:
        with pytest.raises(EngineError, match=r"setup of .* failed \(exit 7\): .*no such thing.* must correct 'setup'"):
            await opened(gw, "t", environment="swe", image=images["one"])
    toml = toml.replace('"echo no such thing; exit 7"', '"echo begun; sleep 1000"\ntimeout = "1s"')
    async with gateway(toml) as gw:
        with pytest.raises(EngineError, match=r"was ended after 1 s: .*begun"):
            await opened(gw, "t", environment="swe", image=images["one"])


async def test_a_ready_sandbox_of_an_environment_has_been_set_up_and_its_task_comes_back_in_it(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, str]
) -> None:
    monkeypatch.setattr(keeper, "SAVE_AFTER", 0.0)
    monkeypatch.setattr(upkeep, "TICK", 0.02)
    toml = TOML.replace('image = "taskcell/base:latest"', f'image = "{images["two"]}"')
    state = tmp_path / "state"
    async with gateway(toml + '[pool]\non_exit = "keep"\n', warm=1, state=state) as gw:
        await opened(gw, "t", environment="swe")
        await Task(gw).terminal("echo kept > /workspace/f; echo own > /testbed/own")
        with anyio.fail_after(PATIENCE):
            while not any(slot.is_warm and slot.sandbox for slot in gw.pool.slots):
                await anyio.sleep(0.05)
        (warm,) = [slot.sandbox for slot in gw.pool.slots if slot.is_warm]
        await opened(gw, "u", environment="swe")
        assert warm in [slot.sandbox for slot in gw.pool.slots if slot.task.task == "u"]
        assert (await Task(gw, task="u").terminal("cat .git/setup")).stdout == "set up\n"
    async with gateway(toml, state=state) as gw:  # the very container, of the server before
        result = await Task(gw).terminal("cat /workspace/f own .git/name")
        assert result.stdout == "kept\nown\ntwo\n"
        for task in ("t", "u"):
            await Task(gw, task=task).sandbox("close")


async def test_a_secret_is_in_no_part_of_the_container(
    gateway: GatewayFactory, tmp_path: Path, docker_api: docker.APIClient
) -> None:
    (tmp_path / "token").write_text("hunter2-secret-value")
    toml = TOML.replace("[terminal]", f'[terminal]\nsecrets = ["TOKEN=file:{tmp_path / "token"}"]')
    async with gateway(toml) as gw:
        result = await Task(gw).terminal("echo $TOKEN; tr '\\0' '\\n' < /proc/1/environ; cat /proc/*/cmdline")
        assert "********************" in result.stdout
        (sandbox,) = [slot.sandbox for slot in gw.pool.slots if slot.sandbox]
        assert "hunter2" not in str(docker_api.inspect_container(sandbox.container.id))
        assert "hunter2" not in str(docker_api.top(sandbox.container.id, "-ef"))


async def test_an_engine_without_quotas_refuses_a_bound_of_the_disk_with_what_to_do(gateway: GatewayFactory) -> None:
    toml = TOML.replace('memory = "512m"\n[workspace]', 'memory = "512m"\nread_only = false\ndisk = "64m"\n[workspace]')
    async with gateway(toml) as gw:
        try:
            told, result = "", await Task(gw).terminal("head -c 128M /dev/zero > /var/tmp/../big; echo $?")
        except EngineError as error:
            told = str(error)
        if told:
            assert "cannot bound a sandbox's disk" in told
            assert "Leave out 'disk'" in told
        else:  # its storage has quotas, so that they hold
            assert result.stdout != "0\n"


async def test_tasks_of_one_principal_share_a_named_volume_and_nobody_else_has_it(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    toml = TOML.replace("[terminal]", '[terminal]\nvolumes = ["volumes-test:/cache"]').replace(
        "[policy]", '[policy]\nallowed_volumes = ["volumes-*"]'
    )
    try:
        async with gateway(toml, warm=1) as gw:
            assert (await Task(gw, task="one").terminal("echo shared > /cache/f")).exit_code == 0
            assert (await Task(gw, task="two").terminal("cat /cache/f; stat -c %u /cache")).stdout == "shared\n1000\n"
            assert (await Task(gw, "alice", "one").terminal("ls /cache")).stdout == ""
        async with gateway(toml) as gw:
            assert (await Task(gw, task="three").terminal("cat /cache/f")).stdout == "shared\n"
    finally:
        for volume in docker_api.volumes(filters={"label": "taskcell.volume=volumes-test"})["Volumes"] or ():
            docker_api.remove_volume(volume["Name"])


async def test_a_volume_that_the_policy_does_not_name_is_refused(gateway: GatewayFactory) -> None:
    async with gateway(TOML.replace("[terminal]", '[terminal]\nvolumes = ["volumes-test:/cache:ro"]')) as gw:
        with pytest.raises(Denied, match=r"policy.allowed_volumes.*SKILL_WORKDIR}:/cache:ro"):
            await Task(gw).terminal("true")


# --- copies of folders of the image


async def copied(gw: Gateway, task: str, action: str, **more: Any) -> str:
    arguments = {"action": action, "task_id": task, **more}
    return (await gw.call(ToolCall("local", "sandbox", arguments))).said()


async def test_a_snapshot_and_a_fork_have_the_folders_of_the_image_that_are_the_tasks_own(
    gateway: GatewayFactory, images: dict[str, str], tmp_path: Path
) -> None:
    async with gateway(TOML, state=tmp_path / "state") as gw:
        await copied(gw, "one", "open", environment="swe", image=images["one"])
        one = Task(gw, task="one")
        assert (await one.terminal(WORK)).exit_code == 0
        seen = (await one.terminal(LOOK)).stdout
        assert "./src/moved" in seen
        assert "./src/new f 750 2 4" in seen
        assert "test_app.py f" not in seen
        assert "/opt/private/deep/f" not in seen
        await copied(gw, "one", "snapshot", name="then")
        await copied(gw, "one", "fork", to="two")
        two = Task(gw, task="two")
        assert without_blocks((await two.terminal(f"cd /testbed/src; {LOOK}")).stdout) == without_blocks(seen)
        # They share nothing, and each goes on by itself.
        await two.terminal("chmod 700 /testbed/src/locked; rm -r /testbed/src /workspace/f")
        assert (await one.terminal(f"cd /testbed/src; {LOOK}")).stdout == seen
        await copied(gw, "three", "open", environment="swe", image=images["one"])
        for task in ("two", "three"):
            await copied(gw, task, "restore", name="then")
            back = await Task(gw, task=task).terminal(f"cd /testbed/src; {LOOK}")
            assert without_blocks(back.stdout) == without_blocks(seen)
        with pytest.raises(BadArgument, match=r"has '/testbed', '/opt/private' too: open the task first"):
            await copied(gw, "four", "restore", name="then")


def without_blocks(seen: str) -> list[str]:
    """What was seen, but for the blocks of the file with a hole, which the engine's archive fills."""
    return [line for line in seen.splitlines() if not line.isdecimal() or line == "1000000000"]


async def test_folders_that_are_too_large_or_out_of_the_engines_reach_are_refused_and_leave_nothing(
    gateway: GatewayFactory, images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    small = TOML.replace('size = "64m"', 'size = "64m"\nsnapshots_size = "1m"')
    async with gateway(small, state=state) as gw:
        await copied(gw, "one", "open", environment="swe", image=images["one"])
        task = Task(gw, task="one")
        await task.terminal("head -c 4M /dev/urandom > /testbed/large")
        for action in ({"name": "a"}, {"to": "two"}):
            with pytest.raises((EngineError, NoRoom), match=r"too much room|does not fit"):
                await copied(gw, "one", "snapshot" if "name" in action else "fork", **action)
        assert not list(state.rglob("*.snapshot*"))
        assert not [slot for slot in gw.pool.slots if slot.task.task == "two"]
        (sandbox,) = [slot.sandbox for slot in gw.pool.slots if slot.sandbox]
        monkeypatch.setattr("taskcell.pool.own_folders.is_on_this_kernel", lambda *_: False)
        with pytest.raises(EngineError, match="where the engine cannot read it"):
            await copied(gw, "one", "fork", to="two")
        assert sandbox.usable
        assert (await task.terminal("echo on")).stdout == "on\n"
