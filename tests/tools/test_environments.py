"""A task is opened with an environment, or an image, and has it until it is closed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.config.settings import Settings
from taskcell.environment import Environment
from taskcell.errors import BadArgument, Denied, EngineError, TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey, ToolCall
from taskcell.pool import keeper, upkeep
from taskcell.tools.sandbox import SandboxReport, sandbox_tool

pytestmark = pytest.mark.anyio

TOML = """
deployment = "environments-test"
manifests = []
[terminal]
environment = ["WHERE=default"]
[environments.swe]
image = "swe:1"
environment = ["WHERE=swe"]
shell = ["sh", "-c"]
timeout = "7s"
[environments.other]
image = "other:1"
environment = ["WHERE=other"]
[environments.root]
image = "root:1"
sudo = true
[policy]
allow_sudo = true
task_images = ["instances/*"]
"""
IDLE = TOML + '[pool]\nidle_ttl = "50ms"\n'
#: Seconds for what takes one, on a machine that is busy.
PATIENCE = 120.0
KEY = TaskKey("local", "t")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are saved, and idle sandboxes closed, at the first look after a call."""
    monkeypatch.setattr(keeper, "SAVE_AFTER", 0.0)
    monkeypatch.setattr(keeper, "SAVE_SHARE", 0.0)
    monkeypatch.setattr(upkeep, "TICK", 0.02)


async def opened(gw: Gateway, task: str = "t", principal: str = "local", **what: Any) -> SandboxReport:
    arguments = {"action": "open", "task_id": task, **what}
    report = await gw.call(ToolCall(principal, "sandbox", arguments))
    assert isinstance(report, SandboxReport)
    return report


async def where(gw: Gateway, task: str = "t", principal: str = "local") -> str:
    return (await Task(gw, principal, task).terminal("echo $WHERE")).stdout.strip()


async def refused(gw: Gateway, error: type[TaskcellError] = BadArgument, **what: Any) -> str:
    with pytest.raises(error) as caught:
        await opened(gw, **what)
    return str(caught.value)


def profiles(gw: Gateway, task: str = "t") -> list[str]:
    return sorted(slot.profile.name for slot in gw.pool.slots if slot.task.task == task)


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


async def closed(gw: Gateway) -> None:
    await eventually(lambda: all(slot.is_warm for slot in (*gw.pool.slots, *gw.pool._closing._leaving)))


async def test_the_terminal_and_the_file_tools_are_of_the_environment_that_the_task_was_opened_with(
    gateway: GatewayFactory,
) -> None:
    async with gateway(TOML, engine="local") as gw:
        report = await opened(gw, environment="swe")
        assert "The task has the environment 'swe'." in report.notes[0]
        assert [info.profile for info in report.sandboxes] == ["terminal.swe"]
        assert await where(gw) == "swe"
        await Task(gw).call("write_file", path="f", content="text\n")
        assert (await Task(gw).terminal("cat f; echo $0")).stdout == "text\nsh\n"
        assert profiles(gw) == ["terminal.swe"]
        assert await where(gw, "u") == "default"
        terminal = await gw.tool_of("terminal", KEY)
        assert (terminal.commands(ToolCall("local", "terminal", {"command": "x"}))[0]).timeout == 7


async def test_an_environment_can_be_named_before_the_first_command_only(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        await Task(gw).terminal("true")
        sentence = await refused(gw, environment="swe")
        assert sentence.startswith("The task has the default environment already, so it cannot be opened with")
        assert "'close'" in sentence
        assert await where(gw) == "default"


@pytest.mark.parametrize(
    ("toml", "what", "says"),
    [
        ("", {"environment": "nope"}, "There is no environment 'nope'; none is configured: leave it out, or ask"),
        ("", {"image": "a:1"}, "cannot name its image here: leave `image` out, or ask the person"),
        ("", {"environment": "nope", "image": "a:1"}, "There is no environment 'nope'"),
        ("[environments.root]\nsudo = true\n", {"environment": "root"}, "The policy refuses the environment 'root'"),
        ("[environments.a]\n[environments.root]\nsudo = true\n", {"environment": "root"}, "must be one of 'a'"),
        ("[environments.a]\n", {"image": "a:1"}, "in policy.task_images"),
    ],
)
async def test_what_no_task_can_be_opened_with_here_is_told_with_what_to_do(
    gateway: GatewayFactory, toml: str, what: dict[str, str], says: str
) -> None:
    async with gateway("manifests = []\n" + toml, engine="local") as gw:
        assert says in await refused(gw, **what)


async def test_opening_again_with_the_same_changes_nothing_and_with_another_one_says_how(
    gateway: GatewayFactory,
) -> None:
    async with gateway(TOML, engine="local") as gw:
        first = await opened(gw, environment="swe")
        await Task(gw).terminal("echo 1 > f")
        assert (await opened(gw, environment="swe")).sandboxes[0].container == first.sandboxes[0].container
        assert (await opened(gw)).sandboxes[0].container == first.sandboxes[0].container
        for other in ({"environment": "other"}, {"image": "instances/a:1"}):
            assert "has the environment 'swe' already" in await refused(gw, **other)
        assert (await Task(gw).terminal("cat f")).stdout == "1\n"
        await Task(gw).sandbox("close")
        await opened(gw, environment="other")
        assert await where(gw) == "other"


async def test_a_closed_task_has_the_default_environment_again(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        await opened(gw, environment="swe")
        await Task(gw).sandbox("close")
        assert await where(gw) == "default"
    assert list((tmp_path / "state").rglob("opened/*.json")) == []


async def test_what_is_not_there_is_refused_with_what_is(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        assert "'swe', 'other', 'root'" in await refused(gw, environment="nosuch")
        assert "policy.task_images" in await refused(gw, Denied, image="python:3.12")
        assert "is not an image reference" in await refused(gw, Denied, image="--privileged")
        assert profiles(gw) == []
        assert await where(gw) == "default"


async def test_an_image_within_the_policy_may_be_named_alone_or_with_an_environment(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        await opened(gw, image="instances/a:1")
        await opened(gw, "u", image="instances/a:1", environment="swe")
        assert (await where(gw), await where(gw, "u")) == ("default", "swe")
        assert "has the default environment with the image instances/a:1 already" in await refused(
            gw, environment="swe"
        )
        images = {slot.task.task: slot.profile.image for slot in gw.pool.slots}
        assert images == {"t": "instances/a:1", "u": "instances/a:1"}


async def test_a_task_that_could_not_be_opened_has_not_been(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        assert "has no sudo" in await refused(gw, EngineError, environment="root")
        await opened(gw, environment="swe")
        assert await where(gw) == "swe"


async def test_a_rule_of_the_policy_can_deny_it(gateway: GatewayFactory) -> None:
    rule = '[[policy.rules]]\nname = "no-swe"\ntool = "sandbox"\ncommand = "^open swe"\neffect = "deny"\n'
    async with gateway(TOML + rule, engine="local") as gw:
        assert "no-swe" in await refused(gw, Denied, environment="swe")
        await opened(gw, environment="other")


async def test_the_environment_outlives_the_sandbox_with_the_files(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(IDLE, engine="local", state=tmp_path / "state") as gw:
        await opened(gw, environment="swe")
        await Task(gw).terminal("echo kept > f")
        await closed(gw)
        assert (await Task(gw).terminal("cat f; echo $WHERE")).stdout == "kept\nswe\n"
        await closed(gw)
        assert "has the environment 'swe' already" in await refused(gw, environment="other")


async def test_a_task_that_had_the_default_environment_keeps_it_with_its_files(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(IDLE, engine="local", state=tmp_path / "state") as gw:
        await Task(gw).call("write_file", path="f", content="x")
        await closed(gw)
        assert "has the default environment already" in await refused(gw, environment="swe")


@pytest.mark.parametrize("on_exit", ["keep", "close"])
async def test_the_next_server_opens_the_task_as_it_was(gateway: GatewayFactory, tmp_path: Path, on_exit: str) -> None:
    toml = f'{TOML}[pool]\non_exit = "{on_exit}"\n'
    for what, expected in (({"environment": "swe"}, "swe"), ({"image": "instances/a:1"}, "default")):
        async with gateway(toml, engine="local", state=tmp_path / expected) as gw:
            await opened(gw, **what)
            await Task(gw).terminal("echo kept > f")
            before = profiles(gw)
        async with gateway(toml, engine="local", state=tmp_path / expected) as gw:
            assert (await Task(gw).terminal("cat f; echo $WHERE")).stdout == f"kept\n{expected}\n"
            assert profiles(gw) == before


async def test_an_environment_that_is_not_configured_any_more_is_told(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        await opened(gw, environment="swe")
    async with gateway(
        TOML.replace("[environments.swe]", "[environments.new]"), engine="local", state=tmp_path / "state"
    ) as gw:
        with pytest.raises(BadArgument, match="'swe', which is not configured any more"):
            await Task(gw).terminal("true")
        await Task(gw).sandbox("close")
        assert await where(gw) == "default"


async def test_two_principals_open_tasks_of_one_name_apart(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        await opened(gw, principal="alice", environment="swe")
        await opened(gw, principal="bob", environment="other")
        assert (await where(gw, principal="alice"), await where(gw, principal="bob")) == ("swe", "other")
        await Task(gw, "alice").sandbox("close")
        assert await where(gw, principal="bob") == "other"


async def test_two_servers_that_run_do_not_open_each_others_tasks(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with (
        gateway(TOML, engine="local", state=tmp_path / "state") as one,
        gateway(TOML, engine="local", state=tmp_path / "state") as two,
    ):
        await opened(one, principal="alice", environment="swe")
        assert await where(two, principal="alice") == "default"
        assert await where(one, principal="alice") == "swe"


async def test_calls_at_once_open_a_task_once(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        async with anyio.create_task_group() as calls:
            for _ in range(8):
                calls.start_soon(lambda: opened(gw, environment="swe"))
        assert profiles(gw) == ["terminal.swe"]


async def test_sandboxes_stand_ready_for_each_environment_that_is_used_and_for_no_image_of_a_task(
    gateway: GatewayFactory,
) -> None:
    async with gateway(TOML, engine="local", warm=1) as gw:
        await opened(gw, environment="swe")
        await opened(gw, "u", environment="other")
        await opened(gw, "v", image="instances/a:1")
        await where(gw, "w")

        def ready() -> set[str]:
            return {slot.profile.name for slot in gw.pool.slots if slot.is_warm and slot.sandbox}

        await eventually(lambda: ready() == {"terminal", "terminal.swe", "terminal.other"})
        warm = next(slot.sandbox for slot in gw.pool.slots if slot.is_warm and slot.profile.name == "terminal.swe")
        await opened(gw, "x", environment="swe")
        assert warm in [slot.sandbox for slot in gw.pool.slots if slot.task.task == "x"]


def properties(**tables: Any) -> dict[str, Any]:
    schema = sandbox_tool(Settings.model_validate({"manifests": [], **tables})).input_schema
    return dict(schema["properties"])


def test_nothing_is_offered_that_could_only_be_refused() -> None:
    assert set(properties()) == {"action", "task_id", "name", "to"}
    on_disk = properties(workspace={"persistent": True})
    assert (set(on_disk), "fork" in on_disk["action"]["enum"]) == ({"action", "task_id"}, False)
    assert "open" not in properties()["action"]["enum"]
    named = properties(environments={"swe": {"image": "swe:1"}})
    assert (named["environment"]["enum"], "image" in named, "open" in named["action"]["enum"]) == (["swe"], False, True)
    refused = properties(environments={"swe": {"image": "swe:1"}, "root": {"image": "swe:1", "user": "root"}})
    assert refused["environment"]["enum"] == ["swe"]
    allowed = properties(policy={"task_images": ["instances/*"]})
    assert ("environment" in allowed, "docker.io/instances/*" in allowed["image"]["description"]) == (False, True)


def test_the_name_of_a_profile_says_its_environment() -> None:
    for environment in (Environment(), Environment("swe")):
        assert Environment.of_profile(environment.profile) == environment
    names = [Environment(name, image).profile for name in ("", "swe") for image in ("", "a:1", "b:1")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"terminal(\.[a-zA-Z0-9_-]+){0,2}", name) for name in names)
    assert Environment.of_profile("ffmpeg") is None
