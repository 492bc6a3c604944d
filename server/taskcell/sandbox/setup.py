"""Runs an environment's `setup` in a new sandbox, before any call and as the user that commands run as.

A task that has files already gets these alone: what the setup has made in the new workspace goes before they come.
"""

from __future__ import annotations

import anyio

from taskcell.errors import EngineError, SandboxLost, SpawnFailed
from taskcell.process.process import Process
from taskcell.sandbox.own_program import run_own
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE, UNATTENDED
from taskcell.sandbox.wait import DEADLINE_SLACK
from taskcell.supervisor import protocol
from taskcell.supervisor.protocol import SpawnFlag
from taskcell.text import shown
from taskcell.units import format_seconds

#: Characters of what a failed setup printed that its error shows, from the end, where the reason stands.
_SHOWN = 600
#: Seconds to remove what is in a folder; a hundred thousand files in memory take one.
EMPTY_TIMEOUT = 60.0
_MEND = "The person who runs the server must correct 'setup'."


async def run_setup(sandbox: Sandbox) -> None:
    """Run the profile's setup, if it has one. Raises EngineError: it fails, or takes too long; SandboxLost.

    What it leaves running goes on, and does not keep the sandbox from being idle.
    """
    profile, spawner = sandbox.profile, sandbox.spawner
    if not profile.setup:
        return
    sandbox.give_secrets()
    shell = spawner.shell or profile.shell[0]
    argv = (shell, *profile.shell[1:], profile.setup)
    env = {**UNATTENDED, **spawner.first_env(), **spawner.secrets}
    folder = profile.working_dir or sandbox.container.workspace
    request = spawner.request(argv, env, folder, SpawnFlag.MERGE_STDERR, profile.setup_timeout)
    process = Process(sandbox.channel, spawner.output_chars, masks=sandbox.masks)
    try:
        await process.start(lambda _: request)
        number = process.number
        with anyio.move_on_after(profile.setup_timeout + GRACE + DEADLINE_SLACK):
            await process.finished()
        said = await _end_of(process) if process.has_ended else ""
    except SpawnFailed as failure:
        raise EngineError(f"The setup of '{profile.name}' could not be started: {failure} {_MEND}") from None
    finally:
        process.close()
    sandbox.channel.living.discard(number)
    ended = process.exit
    if ended is None:
        raise SandboxLost(f"The sandbox is gone: its supervisor did not end the setup of '{profile.name}'.")
    if ended.reason is not protocol.Reason.ITSELF:
        within = format_seconds(profile.setup_timeout)
        raise EngineError(f"The setup of '{profile.name}' was ended after {within} s{said}. {_MEND}")
    if ended.exit_code or ended.signal:
        how = f"signal {ended.signal}" if ended.signal else f"exit {ended.exit_code}"
        raise EngineError(f"The setup of '{profile.name}' failed ({how}){said}. {_MEND}")


async def empty_folder(sandbox: Sandbox, folder: str) -> None:
    """Remove what the setup, or the image, has put into a folder of which the task has other files.

    Raises EngineError: something of it cannot be removed; SandboxLost.
    """
    words = ["transfer", "empty", folder]
    try:
        said = await run_own(sandbox.channel, sandbox.spawner, words, within=EMPTY_TIMEOUT)
    except SpawnFailed as failure:
        said = str(failure)
    first = said.partition("\n")[0].removeprefix("0 ")
    if first != "ok":
        why = shown(first, _SHOWN)
        raise EngineError(
            f"The task's files stay kept: what the setup of '{sandbox.profile.name}' has made in {shown(folder)} "
            f"cannot be removed before they are put back ({why}). {_MEND}"
        )


async def _end_of(process: Process) -> str:
    """The end of what it printed, as the rest of a sentence; empty if it printed nothing."""
    totals = await process.fetch_tails()
    text = " ".join(process.stdout.render(totals[0], 4 * _SHOWN).text.split())
    return f": {shown(text[-_SHOWN:], _SHOWN)}" if text else ""
