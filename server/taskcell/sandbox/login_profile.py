"""Reads the login profile of a sandbox's user once, so that no command pays for a login shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import anyio

from taskcell.errors import SpawnFailed
from taskcell.process.process import Process
from taskcell.sandbox.shell import parse_report, report_now
from taskcell.sandbox.spawn import Spawner
from taskcell.supervisor import protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel

#: Seconds for the login shell to print its environment; the sandbox does without a login profile that takes longer.
LOGIN_TIMEOUT = 5.0
_SHELL_VARIABLE = "TASKCELL_SHELL"
#: The shell sets them anew for each command.
_NOT_THE_PROFILES = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})


async def read_login_profile(channel: Channel, spawner: Spawner, shell: Sequence[str]) -> None:
    """Run the login shell and keep its environment and its path in `spawner`. Raises SandboxLost."""
    # The shell's path too, so that a command that exports a PATH without it cannot lock itself out.
    learn = f"export {_SHELL_VARIABLE}=$(command -v {shlex.quote(shell[0])})"
    process = Process(channel, spawner.output_chars)
    flags = protocol.SpawnFlag.MERGE_STDERR | protocol.SpawnFlag.REPORT_STATE
    try:
        folder = spawner.container.workspace

        def make(number: int) -> requests.Spawn:
            argv = (shell[0], "-lc", f"{learn}; {report_now(spawner.report_of(number))}")
            return spawner.request(argv, spawner.base_env(), folder, flags, LOGIN_TIMEOUT)

        await process.start(make)
        with anyio.fail_after(LOGIN_TIMEOUT + ANSWER_TIMEOUT):
            ended = await process.ended()
    except (SpawnFailed, TimeoutError):
        return
    finally:
        process.close()
    report = parse_report(ended.report)
    if report is None:
        return
    found = dict(report.env)
    spawner.shell = found.pop(_SHELL_VARIABLE, "") or shell[0]
    spawner.login_env = {k: v for k, v in found.items() if k not in _NOT_THE_PROFILES}
