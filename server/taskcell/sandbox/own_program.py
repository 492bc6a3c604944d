"""Runs the supervisor's own program in a sandbox, as whoever commands run as: it is there whatever the image has."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from taskcell.errors import SandboxLost
from taskcell.process.process import Process
from taskcell.sandbox.spawn import Spawner
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel
from taskcell.supervisor.protocol import SpawnFlag


async def run_own(channel: Channel, spawner: Spawner, words: Sequence[str], *, within: float) -> str:
    """Return what the program prints, the beginning of it as far as it is held.

    Raises:
        SpawnFailed: nothing starts in the sandbox.
        SandboxLost: it has ended, or the program has not.

    Arguments:
        words: after the program's name.
        within: seconds.
    """
    process = Process(channel, spawner.output_chars)
    argv = (spawner.container.supervisor, *words)
    request = spawner.request(argv, {}, "/", SpawnFlag(0), within)
    try:
        await process.start(lambda _: request)
        with anyio.fail_after(within + ANSWER_TIMEOUT):
            await process.finished()
    except TimeoutError:
        raise SandboxLost(f"The sandbox is gone: its supervisor's program did not end ({words[0]}).") from None
    finally:
        process.close()
    return process.stdout.held.decode("utf-8", "replace")
