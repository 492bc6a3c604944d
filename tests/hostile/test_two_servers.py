"""Two servers that each have the same task, killed again and again: no file goes without a word."""

from __future__ import annotations

import os
import random
import re
import signal
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from deployment_servers import Servers, run
from figures import Figure
from observe import marker

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

KILLS = 20
#: Seconds from the last answer to the last kill, at most: a server writes down what changed once a second.
WITHIN = 1.5
WRITTEN = {"first\n", "second\n"}


async def kill_two(servers: Servers, chance: random.Random) -> None:
    """Two servers with one task, each killed at any moment after its answer, in any order."""
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (first, first_pid), servers.serve() as (second, second_pid):
            await run(first, "echo first > file")
            servers.unclaim()
            await run(second, "echo second > file")
            pids = [first_pid, second_pid]
            chance.shuffle(pids)
            for pid in pids:
                await anyio.sleep(chance.random() * WITHIN / 2)
                os.kill(pid, signal.SIGKILL)


async def test_of_two_servers_with_one_task_killed_twenty_times_no_file_is_lost_without_a_word(
    tmp_path: Path, figure: Figure
) -> None:
    kept = 0
    for seed in range(KILLS):
        (folder := tmp_path / str(seed)).mkdir()
        servers = Servers(folder, f"two-{marker()[:9]}")
        await kill_two(servers, random.Random(seed))
        async with servers.serve() as (heir, _):
            mine = await run(heir, "cat file 2>/dev/null || :")
            said = " ".join(mine["notes"])
            found = {mine["stdout"]}
            for other in re.findall(r"'(t~\d+)'", said):
                found.add((await run(heir, "cat file", other))["stdout"])
        missing = WRITTEN - found
        kept += len(WRITTEN) - len(missing)
        assert not missing or "lost" in said, f"seed {seed}: {missing} went without a word: {said!r}"
    figure(f"{kept} of {2 * KILLS} files live on after {KILLS} kills of two servers; the answers name the rest")
