"""Output and input of the worst kind cost the server almost no memory, and the answers are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client

from asking import fields
from serving import peak_memory, serving
from taskcell.process.result import output_room

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: The promise: whatever a command prints or does not read, the server grows by no more than this many bytes.
GROWTH = 50 * 1024 * 1024
LIMIT = 50_000


async def run(client: Client, command: str, **arguments: Any) -> dict[str, Any]:
    return await fields(client, "terminal", {"command": command, **arguments})


def split(text: str) -> tuple[str, str, str]:
    """Head, the words about what is left out, tail."""
    head, _, rest = text.partition("[… ")
    words, _, tail = rest.partition("…]\n")
    return head, words, tail


async def test_floods_of_every_kind_leave_the_server_small_and_the_answers_right(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as (client, pid):
        await run(client, "true")
        before = peak_memory(pid)

        yes = await run(client, "echo first; yes; echo never", timeout=10)
        assert (yes["status"], yes["survivors"], yes["truncated"]) == ("timed_out", 0, True)
        head, _, tail = split(yes["stdout"])
        assert head.startswith("first\ny\ny\n")
        assert set(tail.split()) == {"y"}
        assert len(yes["stdout"]) < LIMIT

        size = 1 << 30
        big = await run(client, f"head -c {size} /dev/zero | tr '\\0' 'x'; echo end", timeout=120)
        head, _, tail = split(big["stdout"])
        assert (big["status"], big["exit_code"]) == ("exited", 0)
        assert set(head.strip()) == {"x"}
        assert tail.endswith("xend\n")
        assert big["omitted_bytes"] == size + 4 - head.rstrip("\n").count("x") - len(tail)

        line = await run(client, "head -c 100000000 /dev/zero | tr '\\0' 'z'")
        shown = line["stdout"].count("z")
        assert output_room(LIMIT) - 200 < shown < LIMIT
        assert line["omitted_bytes"] == 100_000_000 - shown

        stdin = "i" * 200_000
        never = await run(client, "sleep 1; echo did not read", stdin=stdin)
        assert (never["stdout"], never["exit_code"]) == ("did not read\n", 0)
        counted = await run(client, "wc -c; echo done", stdin=stdin)
        assert counted["stdout"] == "200000\ndone\n"

        assert peak_memory(pid) - before < GROWTH


async def test_invalid_utf8_and_nul_bytes_come_through(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as (client, _):
        result = await run(client, r"printf 'a\000b\377\376c\303\251\n'")
        assert result["stdout"] == "a␀b\ufffd\ufffdcé\n"
        assert (result["status"], result["omitted_bytes"]) == ("exited", 0)


async def flood(client: Client, task: str) -> None:
    result = await run(client, "yes", timeout=5, task_id=task)
    assert result["survivors"] == 0


async def test_eight_floods_at_once_do_not_stop_a_small_command(tmp_path: Path) -> None:
    async with serving(tmp_path, '[terminal]\ncpus = "0.2"\nmemory = "1500m"') as (client, pid):
        before = peak_memory(pid)
        async with anyio.create_task_group() as floods:
            for number in range(8):
                floods.start_soon(flood, client, f"flood {number}")
            with anyio.fail_after(60):
                small = await run(client, "echo small", task_id="small")
        assert small["stdout"] == "small\n"
        assert peak_memory(pid) - before < GROWTH
