"""What cannot run is not offered until it can, and `[tools]` chooses among the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import structlog
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

from gateways import OWN_TOOLS
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.offer import LOOK_INTERVAL, MISSES, Offer, offer_of
from taskcell.assembly.stack import Loaded, load, load_manifests
from taskcell.engine.local import LocalEngine
from taskcell.errors import ConfigError, EngineUnavailable, UnknownTool
from taskcell.gateway.gateway import Gateway
from taskcell.images.engine import ImageEngine
from taskcell.mcp.server import build_server
from taskcell.model import LOCAL_PRINCIPAL, ToolCall

pytestmark = pytest.mark.anyio

#: Seconds for what takes at most some looks.
PATIENCE = MISSES * LOOK_INTERVAL + 20
SKILL = '[skills.{name}]\nsource = "docker:{image}"\ndocker.entrypoint = ["sh", "-c"]\n'
DRAW = SKILL.format(name="draw", image="taskcell/imagemagick:latest")
PULLED = SKILL.format(name="pulled", image="python:3.12")
REFUSED = SKILL.format(name="refused", image="python:3.12") + 'docker.network = "bridge"\n'


class Images:
    """The images that an engine says it has; None while it does not answer."""

    def __init__(self) -> None:
        self.there: set[str] | None = set()
        self.asked = 0
        self.hangs = False
        self.fails: Exception | None = None

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        if self.hangs:
            await anyio.sleep_forever()
        if self.there is None:
            raise EngineUnavailable("It is away.")
        return {} if reference in self.there else None


class Engine(LocalEngine):
    """The engine without containers, with images."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.images: ImageEngine = images  # type: ignore[assignment]


def loaded_from(folder: Path, skills: str, toml: str = "", environ: Mapping[str, str] | None = None) -> Loaded:
    (folder / "m.toml").write_text(skills)
    (folder / "taskcell.toml").write_text(f'manifests = ["m.toml"]\n{toml}')
    return load(Invocation(environ or {}, folder, folder / "taskcell.toml"))


@asynccontextmanager
async def offering(folder: Path, skills: str, images: Images, toml: str = "") -> AsyncIterator[tuple[Gateway, Offer]]:
    """A gateway whose offer is kept, as `taskcell serve` does it."""
    loaded, engine = loaded_from(folder, skills, toml), Engine(images)
    async with open_gateway(loaded.settings, loaded.tools, engine) as gateway, anyio.create_task_group() as tasks:
        offer = offer_of(gateway, loaded.settings, folder / "state")
        await offer.begin()
        tasks.start_soon(offer.keep)
        yield gateway, offer
        tasks.cancel_scope.cancel()


async def until(gateway: Gateway, *names: str) -> None:
    """Wait until these tools of skills are offered, and no others."""
    with anyio.fail_after(PATIENCE):
        while of_skills(gateway) != list(names):
            await gateway.offered_after(gateway.offered)


def of_skills(gateway: Gateway) -> list[str]:
    return [name for name in gateway.offered if name not in OWN_TOOLS]


async def known(gateway: Gateway) -> None:
    assert gateway.offer_known is not None
    with anyio.fail_after(PATIENCE):
        await gateway.offer_known.wait()


async def test_a_skill_whose_image_is_not_there_is_offered_once_it_is(tmp_path: Path) -> None:
    images = Images()
    async with offering(tmp_path, DRAW + PULLED, images) as (gateway, _), Client(build_server(gateway)) as client:

        async def listed() -> list[str]:
            return [tool.name for tool in (await client.list_tools()).tools]

        assert await listed() == [*OWN_TOOLS, "pulled"]
        images.there = {"taskcell/imagemagick:latest"}
        await until(gateway, "draw", "pulled")
        assert await listed() == [*OWN_TOOLS, "draw", "pulled"]


async def test_the_first_list_waits_for_the_engines_answer(tmp_path: Path) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, DRAW, images) as (gateway, _), Client(build_server(gateway)) as client:
        assert "draw" in [tool.name for tool in (await client.list_tools()).tools]


async def test_the_list_comes_from_a_server_whose_engine_hangs(tmp_path: Path) -> None:
    images = Images()
    images.hangs = True
    async with offering(tmp_path, DRAW, images) as (gateway, _), Client(build_server(gateway)) as client:
        with anyio.fail_after(PATIENCE):
            assert [tool.name for tool in (await client.list_tools()).tools] == OWN_TOOLS


async def test_what_an_earlier_server_knew_is_offered_while_the_engine_is_away(tmp_path: Path) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, DRAW, images) as (gateway, _):
        await until(gateway, "draw")
    images.there = None
    async with offering(tmp_path, DRAW, images) as (gateway, _):
        assert of_skills(gateway) == ["draw"]
        await known(gateway)
        assert of_skills(gateway) == ["draw"]


async def test_an_engine_that_answers_nonsense_ends_no_server(tmp_path: Path) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, DRAW, images) as (gateway, offer):
        await until(gateway, "draw")
        images.fails = KeyError("Config")
        await offer.replace(loaded_from(tmp_path, DRAW + SKILL.format(name="x", image="taskcell/x")).tools)
        assert of_skills(gateway) == ["draw"]


@pytest.mark.parametrize("content", [b"[", b"{}", b"[1, [2]]", b"\xff", b"x" * 300_000, b"[" * 200_000])
async def test_a_spoiled_file_of_the_state_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "images-there").write_bytes(content)
    images = Images()
    images.there = None
    async with offering(tmp_path, DRAW, images) as (gateway, _):
        await known(gateway)
        assert of_skills(gateway) == []


async def test_an_image_that_is_missed_once_is_still_offered_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, DRAW, images) as (gateway, offer):
        await until(gateway, "draw")
        offers = gateway.offered
        images.there = set()
        assert await offer._look({"taskcell/imagemagick:latest"}, 1)
        assert gateway.offered is offers
        await until(gateway)


async def test_a_call_of_a_tool_that_is_not_offered_says_why_it_cannot_run_and_one_that_is_hidden_is_unknown(
    tmp_path: Path,
) -> None:
    toml = '[tools]\nhide = ["edit_file", "draw"]\n'
    async with (
        offering(tmp_path, DRAW + REFUSED, Images(), toml) as (gateway, _),
        Client(build_server(gateway)) as client,
    ):
        await known(gateway)
        assert list(gateway.offered) == [name for name in OWN_TOOLS if name != "edit_file"]
        refused = await client.call_tool("refused", {})
        assert refused.is_error
        assert "allow-networks" in str(refused.content)
        for hidden in ("edit_file", "draw"):
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool(hidden, {"path": "a", "old": "b", "new": "c"})
            with pytest.raises(UnknownTool):
                await gateway.call(ToolCall(LOCAL_PRINCIPAL, hidden, {}))


async def test_files_stay_resources_where_the_file_tools_are_hidden(tmp_path: Path) -> None:
    toml = '[tools]\nonly = ["terminal"]\n'
    async with offering(tmp_path, "", Images(), toml) as (gateway, _), Client(build_server(gateway)) as client:
        await client.call_tool("terminal", {"command": "echo hello > a"})
        content = await client.read_resource("taskcell://tasks/default/files/a")
        assert "hello" in str(content)
        assert "a" in str(await client.read_resource("taskcell://tasks/default/files/"))


async def test_a_selection_that_leaves_nothing_is_logged(tmp_path: Path) -> None:
    for toml, times in (('only = ["nothing_*"]', 1), ('only = ["draw"]', 0)):
        with structlog.testing.capture_logs() as lines:
            async with offering(tmp_path, DRAW, Images(), f"[tools]\n{toml}\n") as (gateway, _):
                assert list(gateway.offered) == []
        assert sum("leaves no tool" in line["event"] for line in lines) == times


async def test_each_reason_is_logged_once_and_so_is_its_end(tmp_path: Path) -> None:
    images = Images()
    with structlog.testing.capture_logs() as lines:
        async with offering(tmp_path, DRAW + REFUSED, images) as (gateway, offer):
            await known(gateway)
            await offer.replace(gateway.tools)
            images.there = {"taskcell/imagemagick:latest"}
            await until(gateway, "draw")
    said = [(line["event"], line["tools"]) for line in lines if "tools" in line]
    assert said == [
        ("Tools are not offered.", ["refused"]),
        ("Tools are not offered.", ["draw"]),
        ("Tools are offered from now on.", ["draw"]),
    ]


async def test_new_manifests_are_offered_as_far_as_they_can_run_in_one_change(tmp_path: Path) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, "", images) as (gateway, offer):
        await known(gateway)
        seen = gateway.offered
        (tmp_path / "m.toml").write_text(DRAW + REFUSED + SKILL.format(name="later", image="taskcell/duckdb:latest"))
        new = load_manifests(Invocation({}, tmp_path, tmp_path / "taskcell.toml"), offer.settings)
        with anyio.fail_after(PATIENCE):
            await offer.replace(new.tools)
            assert await gateway.offered_after(seen) is gateway.offered
        assert of_skills(gateway) == ["draw"]


def test_a_skill_that_lacks_a_variable_is_left_out_and_the_others_are_there(tmp_path: Path) -> None:
    lacking = SKILL.format(name="lacking", image="x") + 'docker.environment = ["A=${TASKCELL_NOPE}"]\n'
    loaded = loaded_from(tmp_path, lacking + PULLED, '[tools]\nhide = ["lacking"]\n')
    assert [skill.name for skill in loaded.skills] == ["pulled"]
    (left_out,) = loaded.left_out
    assert (left_out.name, left_out.tool_names) == ("lacking", ("lacking",))
    assert left_out.reasons[0].startswith(f"{tmp_path}/m.toml:4: skills.lacking.docker.environment[0]: the variable")
    there = loaded_from(tmp_path, lacking + PULLED, environ={"TASKCELL_NOPE": "x"})
    assert [skill.name for skill in there.skills] == ["lacking", "pulled"]


def test_a_variable_that_all_skills_of_a_file_need_leaves_all_of_them_out(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, '[defaults]\nenvironment = ["A=${TASKCELL_NOPE}"]\n' + DRAW + PULLED)
    assert [skill.name for skill in loaded.left_out] == ["draw", "pulled"]
    assert loaded.skills == ()


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('only = ["terminall"]', r"tools\.only names the tool 'terminall'.*did you mean 'terminal'"),
        ('hide = ["draw_"]', r"tools\.hide names the tool 'draw_'.*did you mean 'draw'"),
    ],
)
def test_a_name_in_the_selection_that_no_tool_has_is_an_error_with_the_nearest(
    tmp_path: Path, toml: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded_from(tmp_path, DRAW, f"[tools]\n{toml}\n")


@pytest.mark.parametrize(
    ("toml", "offered"),
    [
        ("", [*OWN_TOOLS, "draw", "pulled"]),
        ('only = ["terminal", "*_file"]', ["terminal", "read_file", "write_file", "edit_file"]),
        ('only = ["draw*"]', ["draw"]),
        ('hide = ["*"]', []),
        ('hide = ["nothing_*", "[a-r]*"]', ["terminal", "sandbox", "write_file", "search"]),
        ('only = ["p*"]\nhide = ["process"]', ["pulled"]),
    ],
)
async def test_patterns_choose_what_is_offered(tmp_path: Path, toml: str, offered: list[str]) -> None:
    images = Images()
    images.there = {"taskcell/imagemagick:latest"}
    async with offering(tmp_path, DRAW + PULLED, images, f"[tools]\n{toml}\n") as (gateway, _):
        await known(gateway)
        assert list(gateway.offered) == offered
