"""Secrets of a profile are variables of its commands, and nothing that a client or a log gets has their values."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent_task import Task
from gateways import GatewayFactory
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.audit.log import AuditLog
from taskcell.errors import ConfigError, EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.progress import newest_output
from taskcell.model import TaskKey, ToolCall
from taskcell.pool import keeper, upkeep
from taskcell.process.kept_output import read_piece
from taskcell.process.masks import Masks
from taskcell.process.process import Process
from taskcell.supervisor.protocol import Stream
from taskcell.tools.process_calls import find_process

VALUE = "hunter2-secret-value"
STARS = "*" * len(VALUE)
KEY = TaskKey("local", "t")


def toml(path: Path, more: str = "") -> str:
    return f'deployment = "secrets-test"\nmanifests = []\n[terminal]\nsecrets = ["TOKEN=file:{path}"]\n{more}'


@pytest.fixture
def kept_at(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(VALUE + "\n")
    return path


async def whole(gw: Gateway, process_id: str, size: int = 1 << 16) -> bytes:
    """The kept output as a resource reads it, in pieces."""
    _, record = await find_process(gw.pool, KEY, process_id)
    data, piece = b"", None
    while piece is None or piece.end < piece.total:
        piece = await read_piece(record.process, Stream.STDOUT, len(data), size)
        data += piece.data
    return data


@pytest.mark.anyio
async def test_a_command_has_the_value_and_its_output_has_not(gateway: GatewayFactory, kept_at: Path) -> None:
    async with gateway(toml(kept_at), engine="local") as gw:
        task = Task(gw)
        result = await task.terminal(f'[ "$TOKEN" = {VALUE[:9]}"{VALUE[9:]}" ] && echo "is $TOKEN."; echo $TOKEN >&2')
        assert result.stdout == f"is {STARS}.\n{STARS}\n"
        assert await whole(gw, "p1") == result.stdout.encode()
        for size in (1, 3, 7, 64):
            assert VALUE.encode() not in await whole(gw, "p1", size)
            assert await whole(gw, "p1", size) == result.stdout.encode()


@pytest.mark.anyio
async def test_it_is_masked_though_it_is_written_in_pieces(gateway: GatewayFactory, kept_at: Path) -> None:
    async with gateway(toml(kept_at), engine="local") as gw:
        task, seen = Task(gw), []
        half = len(VALUE) // 2
        line = f'printf "${{TOKEN:0:{half}}}"; read; printf "${{TOKEN:{half}}}\\n"; read'
        watched: list[Process] = []
        call = ToolCall("local", "terminal", {"command": line, "task_id": "t", "background": True})
        await gw.call(call, watched.append)
        for pieces in (half, len(VALUE) + 1):
            with anyio.fail_after(60):
                while watched[0].written[0] < pieces:
                    await watched[0].news(watched[0].written)
            seen.append(await newest_output(watched[0]))
            seen.append((await task.ask("poll", "p1", cursor=0)).stdout)
            await task.process("write", "p1", data="\n")
        assert all(VALUE[:half] not in text and VALUE[half:] not in text for text in seen), seen
        assert (await task.ask("wait", "p1", cursor=0)).stdout == STARS + "\n"


@pytest.mark.anyio
async def test_long_output_masks_it_in_head_tail_and_every_page(gateway: GatewayFactory, kept_at: Path) -> None:
    async with gateway(toml(kept_at, "[limits]\noutput_chars = 400\n"), engine="local") as gw:
        task = Task(gw)
        result = await task.terminal('for i in $(seq 9000); do printf "$TOKEN$i "; done')
        assert VALUE not in result.stdout
        assert result.truncated
        data = await whole(gw, "p1")
        assert VALUE.encode() not in data
        assert data.count(STARS.encode()) == 9000
        assert VALUE[4:].encode() not in data


@pytest.mark.anyio
async def test_no_later_command_has_it_because_an_earlier_one_had(gateway: GatewayFactory, kept_at: Path) -> None:
    """So that a value that was replaced is, and what is kept on disk has none."""
    async with gateway(toml(kept_at), engine="local") as gw:
        task = Task(gw)
        await task.terminal("export OTHER=1")
        kept_at.write_text("another-secret-value")
        result = await task.terminal('echo "$OTHER ${#TOKEN} $TOKEN"')
        assert result.stdout == f"1 {len('another-secret-value')} {'*' * len('another-secret-value')}\n"
        assert (await task.terminal("echo hunter2-secret-value")).stdout == STARS + "\n"
        await task.terminal("export TOKEN=mine")
        assert (await task.terminal("echo $TOKEN")).stdout == "mine\n"
        own = {"TOKEN": "of the call"}
        assert (await task.terminal("echo $TOKEN", env=own)).stdout == "of the call\n"


@pytest.mark.anyio
async def test_nothing_that_the_server_writes_has_it(
    gateway: GatewayFactory, kept_at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SAVE_AFTER", 0.0)
    monkeypatch.setattr(keeper, "SAVE_SHARE", 0.0)
    monkeypatch.setattr(upkeep, "TICK", 0.02)
    kept_at = kept_at.rename(tmp_path.parent / f"{tmp_path.name}-token")
    state, audit = tmp_path / "state", AuditLog(tmp_path / "audit.jsonl")
    with capture_logs() as logs:
        async with gateway(toml(kept_at), engine="local", state=state, audit=audit) as gw:
            await Task(gw).terminal("export COPY=$TOKEN; echo $TOKEN")
            assert (await Task(gw).terminal("echo ${#COPY}")).stdout == f"{len(VALUE)}\n"
            with anyio.fail_after(60):
                while not list(state.rglob("*.kept")):
                    await anyio.sleep(0.01)
            profiles = repr([slot.profile for slot in gw.pool.slots])
    written = [path for path in tmp_path.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    assert written == []
    assert VALUE not in json.dumps(logs, default=str) + profiles
    kept_at.unlink()


@pytest.mark.anyio
async def test_a_secret_that_is_gone_fails_the_command_and_says_so(gateway: GatewayFactory, kept_at: Path) -> None:
    async with gateway(toml(kept_at), engine="local") as gw:
        await Task(gw).terminal("true")
        kept_at.unlink()
        with pytest.raises(EngineError, match=r"The secret TOKEN cannot be read from .*No such file"):
            await Task(gw).terminal("true")
        kept_at.write_text(VALUE)
        assert (await Task(gw).terminal("echo ${#TOKEN}")).stdout == f"{len(VALUE)}\n"


@pytest.mark.parametrize(
    ("entry", "content", "says"),
    [
        ("TOKEN=hunter2-secret-value", VALUE, "must be 'NAME=file:/absolute/path' or 'NAME=env:VARIABLE'"),
        ("TOKEN=plain:hunter2-secret-value", VALUE, "the value itself never stands here"),
        ("TOKEN=file:token", VALUE, "must be 'NAME=file:/absolute/path'"),
        ("1TOKEN=env:X", VALUE, "is not the name of an environment variable"),
        ("TASKCELL_X=env:X", VALUE, "begins with TASKCELL_"),
        ("TOKEN=env:NOT_SET", VALUE, "TOKEN is to be in the variable NOT_SET, which the server does not have"),
        ("TOKEN=file:{path}", "short", "has fewer than 8 bytes"),
        ("TOKEN=file:{path}", "x" * 20_000, "has more than 16384 bytes"),
        ("TOKEN=file:{path}", "hunter2\0secret-value", "holds a NUL character"),
        ("TOKEN=file:{path}.none", VALUE, "No such file"),
        ("TOKEN=file:/dev/zero", VALUE, "not a regular file"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_at_the_start_without_its_value(
    tmp_path: Path, entry: str, content: str, says: str
) -> None:
    (tmp_path / "token").write_text(content)
    config = tmp_path / "taskcell.toml"
    config.write_text(f'[environments.swe]\nimage = "a"\nsecrets = ["{entry.format(path=tmp_path / "token")}"]\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(Invocation({}, tmp_path, config))
    assert says in str(caught.value)
    assert "environments.swe.secrets" in str(caught.value)
    assert VALUE not in str(caught.value).replace(entry, "")


def test_a_variable_of_the_server_may_hold_it(tmp_path: Path) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text('[terminal]\nsecrets = ["TOKEN=env:CI_TOKEN"]\n')
    settings = load_settings(Invocation({"CI_TOKEN": VALUE}, tmp_path, config))
    (secret,) = settings.terminal_container.secrets
    assert secret.read() == VALUE
    assert VALUE not in repr(settings) + repr(secret) + str(settings.terminal_container)


def test_lines_of_a_secret_are_masked_alone_and_short_ones_are_not() -> None:
    masks = Masks()
    masks.add("first long line\nab\nsecond long line")
    assert masks.masked(b"second long line\r\nab\r\n") == b"*" * 16 + b"\r\nab\r\n"


@given(st.text(alphabet="abc", min_size=8, max_size=12), st.text(alphabet="abc", max_size=60), st.data())
def test_masking_keeps_every_offset_and_leaves_no_secret(secret: str, text: str, data: st.DataObject) -> None:
    masks = Masks()
    masks.add(secret)
    at = data.draw(st.integers(0, len(text)))
    raw = (text[:at] + secret + text[at:]).encode()
    masked = masks.masked(raw, is_begun=False, is_open=False)
    assert len(masked) == len(raw)
    assert secret.encode() not in masked
    assert masked[at : at + 1] == b"*" or b"*" in masked
