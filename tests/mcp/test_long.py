"""Commands that take long, through a real client: handed off in time, told of as they run, and read as resources."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from pathlib import Path

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, TextResourceContents

from asking import ASKED, fields, fields_of, text_of
from gateways import GatewayFactory
from http_door import client_as, serving_http
from raw_client import LOCAL, raw_client
from serving import serving
from taskcell.mcp.progress import HEARTBEAT, newest_lines
from taskcell.mcp.server import build_server
from timed_out import TIMEOUTS

pytestmark = pytest.mark.anyio

TOML = 'manifests = []\n[engine]\nkind = "local"\n[limits]\nwait = "1s"\noutput_chars = 1000\n'
#: Seconds for what takes milliseconds, or for the short builds here, on a busy machine.
PATIENCE = 90.0


@pytest.fixture(params=["legacy", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> str:
    era: str = request.param
    return era


async def test_a_build_under_a_client_that_gives_up_is_answered_in_time_and_fetched(
    gateway: GatewayFactory, era: str
) -> None:
    """In the small what a client does that gives up after 60 seconds, with a wait of 50."""
    gives_up = 4.0
    async with (
        gateway(TOML, engine="local") as gw,
        Client(build_server(gw), mode=era, read_timeout_seconds=gives_up) as client,
    ):
        began = time.monotonic()
        line = "for i in $(seq 18); do echo step $i; sleep 0.25; done; echo built > result; exit 3"
        first = await fields(client, "terminal", {"command": line})
        assert first["status"] == "running"
        text, found = first["stdout"], first
        while found["status"] == "running":
            asked = {"action": "wait", "process_id": first["process_id"], "cursor": found["cursor"]}
            found = await fields(client, "process", asked)
            text += found["stdout"]
        assert time.monotonic() - began > gives_up
        assert (found["status"], found["exit_code"]) == ("exited", 3)
        assert text == "".join(f"step {n}\n" for n in range(1, 19))
        assert (await fields(client, "terminal", {"command": "cat result"}))["stdout"] == "built\n"


async def test_the_answers_text_says_how_to_go_on(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw)) as client:
        line = "echo so far; sleep 600"
        for number, wait in enumerate(TIMEOUTS, 1):  # noqa: B007
            result = await client.call_tool("terminal", {"command": line, "wait": wait})
            if text_of(result).startswith("so far"):  # else a busy machine had not begun
                break
        assert text_of(result).startswith(
            f"so far\n[still running after {wait:g} s as process p{number}; cursor 7]\n[note: It goes on"
        )
        assert not result.is_error
        listed = (await fields(client, "process", {"action": "list"}))["processes"]
        assert [one["command"] for one in listed] == [line] * number
        killed = await client.call_tool("process", {"action": "kill", "process_id": f"p{number}"}, meta=ASKED)
        assert (killed.is_error, fields_of(killed)["status"]) == (False, "killed")
        wrong = await client.session.call_tool("process", {"action": "poll", "process_id": "p7"})
        assert wrong.is_error


async def test_a_timed_out_process_is_an_error_when_it_is_asked_for(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw)) as client:
        await client.call_tool("terminal", {"command": "sleep 60", "background": True, "timeout": 0.2})
        ended = await client.call_tool("process", {"action": "wait", "process_id": "p1"}, meta=ASKED)
        assert (ended.is_error, fields_of(ended)["status"]) == (True, "timed_out")


async def test_progress_brings_the_newest_lines_at_most_ten_times_a_second(tmp_path: Path, era: str) -> None:
    told: list[tuple[float, float, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((time.monotonic(), progress, message or ""))

    line = "for i in $(seq 1200); do echo line $i; sleep 0.001; done; sleep 2"
    async with serving(tmp_path, TOML, mode=era) as (client, _):
        began = time.monotonic()
        result = await client.call_tool(
            "terminal", {"command": line, "wait": 30}, progress_callback=on_progress, meta=ASKED
        )
        seconds = time.monotonic() - began
    assert fields_of(result)["status"] == "exited"
    assert 2 <= len(told) <= seconds * 10 + 1
    # The client runs each callback in a task of its own, in whatever order they get their turn.
    numbers = [progress for _, progress, _ in told]
    assert len(numbers) == len(set(numbers))
    assert max(told, key=lambda one: one[1])[2] == "line 1198\nline 1199\nline 1200"


async def test_progress_of_a_flood_shows_its_end_and_waiting_for_a_process_tells_too(tmp_path: Path) -> None:
    told: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with serving(tmp_path, TOML) as (client, _):
        line = "seq 400000; sleep 1; echo last"
        await client.call_tool("terminal", {"command": line, "wait": 0.7}, progress_callback=on_progress)
        assert told[-1] == "399998\n399999\n400000"
        asked = {"action": "wait", "process_id": "p1", "wait": 20}
        await client.call_tool("process", asked, progress_callback=on_progress)
        assert "400000" in told[-1]


async def test_a_client_hears_of_a_command_that_is_silent_before_it_would_give_up(tmp_path: Path) -> None:
    """The heartbeat as it is set: ten seconds."""
    go = tmp_path / "go"
    told: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")
        # Not at one that says "Still at work": on a busy machine the command may not run yet.
        if re.fullmatch(r"Still running after \d+ s, no output\.", told[-1]):
            go.touch()

    async with serving(tmp_path, TOML) as (client, _):
        # Without a sign of life it would not end before its timeout.
        arguments = {"command": f"until [ -e {go} ]; do sleep 0.1; done", "wait": 6 * HEARTBEAT, "timeout": 90}
        result = await client.call_tool("terminal", arguments, progress_callback=on_progress, meta=ASKED)
    assert (fields_of(result)["status"], fields_of(result)["exit_code"]) == ("exited", 0)
    assert all(message.startswith("Still ") for message in told)


def test_the_newest_lines_are_plain_short_and_whatever_the_bytes_are() -> None:
    assert newest_lines(b"a\n\n b\r\n\x1b[31mc\x1b[0m\nd\n") == " b\nc\nd"
    assert newest_lines(b"10%\r20%\r30%\0") == "30%␀"
    assert len(newest_lines(b"\xff" * 5000)) == 400
    assert newest_lines(b"") == ""


def test_a_client_that_does_not_read_stops_no_command(tmp_path: Path) -> None:
    """Progress for a command that never stops printing, and nobody reads it: others start, run and end meanwhile."""
    done = tmp_path / "done"
    with raw_client(tmp_path, LOCAL) as client:
        client.shake_hands()
        meta = {"progressToken": 1}
        line = "while :; do printf '%0400d\\n' 7; done"
        for _ in range(3):
            client.send("tools/call", name="terminal", arguments={"command": line, "timeout": 90}, _meta=meta)
        client.stop_reading()
        client.send(
            "tools/call", name="terminal", arguments={"command": "sleep 1; head -c 3000000 /dev/zero"}, _meta=meta
        )
        client.start_command(f"sleep 2; touch {done}")
        deadline = time.monotonic() + PATIENCE
        while not done.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def test_the_whole_output_is_a_resource_page_by_page(gateway: GatewayFactory, era: str) -> None:
    wanted = "".join(f"{n} äöü\n" for n in range(1, 150_001)).encode()
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        templates = (await client.list_resource_templates()).resource_templates
        assert "taskcell://tasks/{task_id}/processes/{process_id}/output{?stream,cursor,limit}" in [
            template.uri_template for template in templates
        ]
        line = "seq -f '%.0f äöü' 150000"
        await client.call_tool("terminal", {"command": line, "task_id": "a b/ü"})
        uri, got, pages = "taskcell://tasks/a%20b%2F%C3%BC/processes/p1/output", b"", 0
        while uri:
            contents = (await client.read_resource(uri)).contents
            assert isinstance(contents[0], TextResourceContents)
            assert contents[0].meta is not None
            assert contents[0].meta["taskcell/cursor"] == len(got)
            got += contents[0].text.encode()
            assert len(contents[0].text.encode()) <= 1 << 20
            pages += 1
            uri = contents[1].uri if len(contents) > 1 else ""
    assert pages == 2
    assert hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()


async def test_output_with_nul_is_a_blob(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw)) as client:
        await client.call_tool("terminal", {"command": "printf 'a\\000b'"})
        (blob,) = (await client.read_resource("taskcell://tasks/default/processes/p1/output")).contents
        assert isinstance(blob, BlobResourceContents)
        assert base64.b64decode(blob.blob) == b"a\0b"


async def test_bytes_that_are_no_text_are_a_blob_and_a_piece_can_be_asked_for(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw)) as client:
        await client.call_tool("terminal", {"command": "printf 'abc\\377\\000def'"})
        base = "taskcell://tasks/default/processes/p1/output"
        (blob,) = (await client.read_resource(base)).contents
        assert isinstance(blob, BlobResourceContents)
        assert base64.b64decode(blob.blob) == b"abc\xff\0def"
        (text, more) = (await client.read_resource(f"{base}?cursor=1&limit=2&stream=stdout")).contents
        assert isinstance(text, TextResourceContents)
        assert isinstance(more, TextResourceContents)
        assert (text.text, more.uri) == ("bc", f"{base}?stream=stdout&cursor=3")
        assert (more.meta, "taskcell/source" in (text.meta or {})) == ({"taskcell/source": "server"}, False)
        (err,) = (await client.read_resource(f"{base}?stream=stderr")).contents
        assert isinstance(err, TextResourceContents)
        assert err.text == ""


@pytest.mark.parametrize(
    "uri",
    [
        "taskcell://tasks/default/processes/p2/output",
        "taskcell://tasks/other/processes/p1/output",
        "taskcell://tasks/default/processes/p1/input",
        "taskcell://tasks/default/processes/p1/output?cursor=-1",
        "taskcell://tasks/default/processes/p1/output?limit=0",
        "taskcell://tasks/default/processes/p1/output?limit=2000000",
        "taskcell://tasks/default/processes/p1/output?stream=both",
        "taskcell://tasks/default/processes/p1/output?colour=1",
        "taskcell://tasks/default/nothing/p1",
        "taskcell://tasks//processes/p1/output",
        "http://tasks/default/processes/p1/output",
    ],
)
async def test_what_is_no_resource_is_not_found_in_the_words_of_each_era(
    gateway: GatewayFactory, era: str, uri: str
) -> None:
    async with gateway(TOML, engine="local") as gw, Client(build_server(gw), mode=era) as client:
        await client.call_tool("terminal", {"command": "echo mine"})
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
        assert caught.value.error.code == (-32002 if era == "legacy" else -32602)


async def test_nobody_elses_output_can_be_read(gateway: GatewayFactory) -> None:
    output = "taskcell://tasks/default/processes/p1/output"
    async with (
        gateway(TOML, engine="local") as gw,
        serving_http(build_server(gw)) as app,
        client_as(app, "one") as one,
        client_as(app, "two") as two,
    ):
        await one.call_tool("terminal", {"command": "echo mine"})
        assert (await one.read_resource(output)).contents[0].text == "mine\n"
        with pytest.raises(MCPError):
            await two.read_resource(output)
