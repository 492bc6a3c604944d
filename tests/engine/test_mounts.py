"""Host folders in real sandboxes: what was checked is what is mounted, whatever happens to its name meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from gateways import GatewayFactory
from observe import containers
from taskcell.config.policy_tables import PolicySettings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.connection import Connection
from taskcell.engine.docker.endpoint import Endpoint
from taskcell.engine.docker.engine import DockerEngine
from taskcell.engine.docker.image_users import ImageUsers
from taskcell.engine.docker.looks import Looks
from taskcell.engine.docker.mounted import check_mounted, seen_at
from taskcell.engine.docker.supervisor_volume import SupervisorVolumes
from taskcell.engine.docker.traits import Traits
from taskcell.errors import Denied
from taskcell.gateway.gateway import Gateway
from taskcell.host_folder import HostFolder
from taskcell.model import MIB, Profile, ToolCall
from taskcell.mounts import Mount
from taskcell.policy.policy import AuthorizedProfile, Policy

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

DEPLOYMENT = "mounts-test"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter: commands in a sandbox are another one."""
    made = Path(tempfile.mkdtemp(prefix="taskcell-mounts-"))
    made.chmod(0o755)
    for name in ("data", "secret"):
        (made / name).mkdir()
        (made / name / "name.txt").write_text(name)
    (made / "data").chmod(0o777)
    yield made
    shutil.rmtree(made)


def toml(folder: Path, volume: str, policy: str = "", extra: str = "") -> str:
    return (
        f'deployment = "{DEPLOYMENT}"\n[terminal]\nvolumes = ["{volume}"]\n{extra}\n'
        f'[policy]\nallowed_mount_roots = ["{folder}"]\nblocked_mount_paths = ["{folder}/secret"]\n{policy}\n'
    )


async def run(gw: Gateway, command: str) -> str:
    return (await gw.call(ToolCall("local", "terminal", {"command": command}))).stdout


async def test_an_allowed_folder_is_mounted_and_can_be_written(gateway: GatewayFactory, folder: Path) -> None:
    async with gateway(toml(folder, f"{folder}/data:/data")) as gw:
        assert await run(gw, "cat /data/name.txt; echo new > /data/new; echo $?") == "data0\n"
    assert (folder / "data" / "new").read_text() == "new\n"


async def test_a_read_only_folder_and_a_single_file_are_mounted_so(gateway: GatewayFactory, folder: Path) -> None:
    async with gateway(toml(folder, f"{folder}/data:/data:ro")) as gw:
        assert "Read-only file system" in await run(gw, "touch /data/new; cat /data/name.txt")
    async with gateway(toml(folder, f"{folder}/data/name.txt:/srv/name.txt:ro")) as gw:
        assert await run(gw, "cat /srv/name.txt") == "data"


async def test_a_folder_given_as_an_engine_option_is_mounted_like_one_of_volumes(
    gateway: GatewayFactory, folder: Path
) -> None:
    options = f'extra_args = ["-v{folder}/data:/option:ro", "--tmpfs=/cache:size=1m"]'
    async with gateway(toml(folder, "${SKILL_WORKDIR}:/again", extra=options)) as gw:
        assert await run(gw, "cat /option/name.txt; df -k /cache | tail -1 | awk '{print $2}'") == "data1024\n"


async def test_what_else_is_mounted_below_a_folder_does_not_come_with_it(gateway: GatewayFactory) -> None:
    # /dev/shm is a file system of its own below /dev, on every Linux.
    text = (
        f'deployment = "{DEPLOYMENT}"\n[terminal]\nvolumes = ["/dev:/data:ro"]\n'
        '[policy]\nallowed_mount_roots = ["/dev"]\nblocked_mount_paths = []\n'
    )
    async with gateway(text) as gw:
        assert await run(gw, "test -d /data/shm && grep -c ' /data' /proc/self/mounts") == "1\n"


async def test_a_link_is_mounted_as_what_it_leads_to(
    gateway: GatewayFactory, folder: Path, docker_api: docker.APIClient
) -> None:
    (folder / "link").symlink_to("data")
    async with gateway(toml(folder, f"{folder}/link:/data")) as gw:
        assert await run(gw, "cat /data/name.txt") == "data"
        (container,) = containers(docker_api, taskcell__deployment=DEPLOYMENT)
        mounts = docker_api.inspect_container(container)["Mounts"]
    assert [one["Source"] for one in mounts if one["Type"] == "bind"] == [f"{folder}/data"]


async def test_a_link_that_is_exchanged_after_it_was_allowed_is_judged_again(
    gateway: GatewayFactory, folder: Path, docker_api: docker.APIClient
) -> None:
    link = folder / "link"
    link.symlink_to("data")
    async with gateway(toml(folder, f"{folder}/link:/data")) as gw:
        assert await run(gw, "cat /data/name.txt") == "data"
        link.unlink()
        link.symlink_to("secret")
        # The sandbox that runs has what was checked; its successor is judged afresh.
        assert await run(gw, "cat /data/name.txt") == "data"
        with pytest.raises(Denied, match="blocked-mount-paths"):
            await gw.call(ToolCall("local", "sandbox", {"action": "reset"}))
    assert containers(docker_api, taskcell__deployment=DEPLOYMENT) == []


class Exchanging(docker.APIClient):  # type: ignore[misc]
    """The real engine, with something that happens right before it is asked to create, or to start."""

    before_create: Callable[[], None] | None = None
    before_start: Callable[[], None] | None = None

    def create_container_from_config(self, *args: Any, **keywords: Any) -> Any:
        body: Mapping[str, Any] = args[0]
        if self.before_create is not None and body["Labels"].get("taskcell") == "1":
            self.before_create()
        return super().create_container_from_config(*args, **keywords)

    def start(self, *args: Any, **keywords: Any) -> Any:
        if self.before_start is not None:
            self.before_start()
        return super().start(*args, **keywords)


def engine_at(client: docker.APIClient, endpoint: Endpoint, traits: Traits = Traits()) -> DockerEngine:  # noqa: B008
    connection = Connection(client, endpoint, SupervisorVolumes(client), traits, ImageUsers(client), Looks(client))
    return DockerEngine(Calls("", {}, connection))


@pytest.mark.parametrize("moment", ["before_create", "before_start"])
@pytest.mark.parametrize("by", ["link", "folder"])
async def test_a_folder_exchanged_between_the_check_and_the_mount_is_not_given_to_anybody(
    moment: str, by: str, folder: Path, docker_api: docker.APIClient
) -> None:
    def exchange() -> None:
        (folder / "data").rename(folder / "was-data")
        if by == "link":
            (folder / "data").symlink_to("secret")
        else:
            (folder / "secret").rename(folder / "data")

    client = Exchanging(version="auto")
    setattr(client, moment, exchange)
    endpoint = Endpoint("unix:///var/run/docker.sock", "a test")
    engine = engine_at(client, endpoint)
    profile = authorized(folder)
    try:
        with pytest.raises(Denied, match=r"mounts.*(was exchanged in between)"):
            await engine.start(spec(profile))
        assert os.path.lexists(folder / "was-data"), "the exchange happened"
        assert containers(docker_api, taskcell__deployment=DEPLOYMENT) == []
    finally:
        await engine.aclose()


async def test_an_engine_on_another_machine_mounts_no_folder_of_this_one(
    folder: Path, docker_api: docker.APIClient
) -> None:
    client = docker.APIClient(version="auto")
    endpoint = Endpoint("tcp://192.0.2.1:2376", "a test")
    engine = engine_at(client, endpoint)
    try:
        with pytest.raises(Denied, match=r"tcp://192\.0\.2\.1:2376 is not on this machine"):
            await engine.start(spec(authorized(folder)))
        assert containers(docker_api, taskcell__deployment=DEPLOYMENT) == []
    finally:
        await engine.aclose()


@pytest.mark.parametrize("allowed", [False, True])
async def test_an_engine_in_a_virtual_machine_mounts_a_folder_only_where_the_operator_allows_that(
    folder: Path, docker_api: docker.APIClient, allowed: bool
) -> None:
    client = docker.APIClient(version="auto")
    endpoint = Endpoint("unix:///var/run/docker.sock", "a test")
    engine = engine_at(client, endpoint, Traits(same_kernel=False))
    profile = authorized(folder, mounts_in_vm=allowed)
    try:
        if allowed:
            await engine.remove(await engine.start(spec(profile)))
        else:
            with pytest.raises(Denied, match=r"runs in a virtual machine.*policy\.mounts_in_vm = true"):
                await engine.start(spec(profile))
        assert containers(docker_api, taskcell__deployment=DEPLOYMENT) == []
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("owner", "says"), [((65534, 65534), "maps users"), ((0, 0), "is rootless"), ((12345, 12345), "")]
)
async def test_a_folder_whose_owner_is_another_user_in_the_sandbox_is_refused(
    folder: Path, owner: tuple[int, int], says: str
) -> None:
    class Looking:
        """The engine's answer to the look, as one that maps users gives it."""

        def exec_create(self, *words: Any, **more: Any) -> dict[str, str]:
            return {"Id": "1"}

        def exec_start(self, _: str) -> bytes:
            found = (folder / "data").stat()
            device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
            return f"{device} {found.st_ino} {owner[0]}:{owner[1]}\n".encode()

    asked = HostFolder(f"{folder}/data", (12345, 12345))
    with authorized(folder).host_mounts() as mounts:
        if says:
            with pytest.raises(Denied, match=says):
                check_mounted(Looking(), "1", mounts, asked, same_kernel=True)
        check_mounted(Looking(), "1", mounts, None if says else asked, same_kernel=True)


async def test_a_link_of_the_image_in_the_place_of_a_mount_is_not_followed_by_the_look(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway(f'deployment = "{DEPLOYMENT}"') as gw:
        assert await run(gw, "ln -s /workspace /tmp/link; test -d /tmp/link/. && echo leads") == "leads\n"
        (container,) = containers(docker_api, taskcell__deployment=DEPLOYMENT)
        paths = ["/workspace", "/tmp/link", "/tmp/none", "/usr//bin"]
        found = [seen and seen.identity for seen in seen_at(docker_api, container, paths)]
        known = [
            tuple(map(int, line.split()))
            for line in (await run(gw, "stat -c '%d %i' /workspace /usr/bin")).splitlines()
        ]
    assert found == [known[0], None, None, known[1]]


def authorized(folder: Path, *, mounts_in_vm: bool = False) -> AuthorizedProfile:
    rules = PolicySettings.model_validate(
        {
            "allowed_mount_roots": [str(folder)],
            "blocked_mount_paths": [f"{folder}/secret"],
            "mounts_in_vm": mounts_in_vm,
        }
    )
    mounts = (Mount(f"{folder}/data", "/data"),)
    return Policy(rules).authorize_profile(Profile("terminal", "taskcell/base:latest", "terminal", mounts=mounts))


def spec(profile: AuthorizedProfile) -> ContainerSpec:
    labels = {"taskcell": "1", "taskcell.deployment": DEPLOYMENT}
    return ContainerSpec(profile, "taskcell-mounts-test", Workspace(MIB), labels, 60.0)


@pytest.mark.parametrize(
    ("namespace", "option"), [("uts", "--uts=host"), ("ipc", "--ipc=host"), ("user", "--userns=host")]
)
async def test_a_namespace_that_the_policy_names_is_the_hosts(
    gateway: GatewayFactory, namespace: str, option: str
) -> None:
    text = (
        f'deployment = "{DEPLOYMENT}"\n[terminal]\nextra_args = ["{option}"]\n'
        f'[policy]\nallow_host_namespaces = ["{namespace}"]\n'
    )
    async with gateway(text) as gw:
        assert (await run(gw, f"readlink /proc/self/ns/{namespace}")).strip() == os.readlink(
            f"/proc/self/ns/{namespace}"
        )
        assert (await run(gw, "id -u; grep CapBnd /proc/self/status")).split() == ["1000", "CapBnd:", "0" * 16]


async def test_a_sandbox_sees_no_cgroup_of_the_host(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        paths = [line.split(":", 2)[2] for line in (await run(gw, "cat /proc/self/cgroup")).splitlines()]
    assert set(paths) == {"/"}
