"""Reads the login profile of a sandbox's user once, so that no command pays for a login shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import anyio

from taskcell.errors import SpawnFailed
from taskcell.images.skills import programs_in
from taskcell.process.process import Process
from taskcell.sandbox.shell import parse_report, report_now
from taskcell.sandbox.spawn import DEFAULT_PATH, Spawner
from taskcell.supervisor import protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel

#: Seconds for the login shell to print its environment; the sandbox does without a login profile that takes longer.
LOGIN_TIMEOUT = 5.0
_SHELL_VARIABLE = "TASKCELL_SHELL"
_PATH_VARIABLE = "TASKCELL_PATH"
_PROGRAMS_VARIABLE = "TASKCELL_PROGRAMS"
#: What models ask images for first, beside what every Linux has.
_WANTED = (
    "python3 pip uv conda node npm java javac mvn gradle go cargo rustc gcc g++ clang make cmake git curl wget jq rg "
    "sqlite3 psql ssh ruby php perl"
)
#: A profile of the task's own may print anything; an answer names these alone.
_IS_WANTED = re.compile(rf"(?:{'|'.join(map(re.escape, _WANTED.split()))}|python3\.[0-9]{{1,2}})")
#: Lists which of them there are, without starting one: an image's `python3` is a link to a name with the version.
_LOOK = f"""$(PATH=${_PATH_VARIABLE}:$PATH
for name in {_WANTED}; do
  found=$(command -v "$name") || continue
  for minor in 8 9 10 11 12 13 14 15; do
    [ $name = python3 ] && [ "$found" -ef "$found.$minor" ] && name=$name.$minor
  done
  echo "$name"
done 2>/dev/null)"""
#: The shell sets them anew for each command.
_NOT_THE_PROFILES = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
#: Where programs of administration lie. Debian's login profile leaves them out for a user who is not root.
_ADMINISTRATION = ("/usr/sbin", "/sbin")


async def read_login_profile(channel: Channel, spawner: Spawner, shell: Sequence[str]) -> None:
    """Run the login shell and keep in `spawner` what its profile adds, and its path. Raises SandboxLost.

    Of an image whose programs nobody knows, the commonly wanted ones that it has are kept too.
    """
    # The shell's path too, so that a command that exports a PATH without it cannot lock itself out.
    learn = f"export {_SHELL_VARIABLE}=$(command -v {shlex.quote(shell[0])})"
    env = spawner.base_env()
    if not spawner.container.is_child and not programs_in(spawner.profile.image):
        learn += f"; export {_PROGRAMS_VARIABLE}={_LOOK}"
        env[_PATH_VARIABLE] = env["PATH"]
    process = Process(channel, spawner.output_chars)
    flags = protocol.SpawnFlag.MERGE_STDERR | protocol.SpawnFlag.REPORT_STATE
    try:
        folder = spawner.container.workspace

        def make(number: int) -> requests.Spawn:
            argv = (shell[0], "-lc", f"{learn}; {report_now(spawner.report_of(number))}")
            return spawner.request(argv, env, folder, flags, LOGIN_TIMEOUT)

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
    spawner.programs = tuple(filter(_IS_WANTED.fullmatch, found.pop(_PROGRAMS_VARIABLE, "").split()))
    found.pop(_PATH_VARIABLE, None)
    spawner.login_env = added_by_login(found, spawner.container.environment)


def added_by_login(found: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return what the login profile adds to a terminal's variables.

    The image's own variables stand, as they do in a plain `bash -c` of the image: many login profiles set PATH anew and
    would take the image's programs away.

    Arguments:
        found: what the login shell exported.
        own: the image's variables.
    """
    added = {key: value for key, value in found.items() if key not in _NOT_THE_PROFILES and key not in own}
    return added | {"PATH": joined_path(own.get("PATH") or DEFAULT_PATH, found.get("PATH", ""))}


def joined_path(image: str, login: str) -> str:
    """Return the image's PATH, then the login profile's folders that it lacks, then those of administration."""
    lacking = dict.fromkeys((*login.split(":"), *_ADMINISTRATION))
    for folder in ("", *image.split(":")):  # an empty entry is the working directory, and is not taken over
        lacking.pop(folder, None)
    return ":".join((image, *lacking))
