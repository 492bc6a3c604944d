"""Start a sandbox of a profile to see whether it can run: its user, files, shell or program. Then it is gone again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from taskcell.config.settings import Settings
from taskcell.engine.base import OWN_TIMEOUT
from taskcell.environment import Environment
from taskcell.errors import SpawnFailed, TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.model import LOCAL_PRINCIPAL, Command, ProcessResult, Profile, TaskKey
from taskcell.sandbox.run import run_command
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import shown

#: Seconds for one sandbox: it starts within one, and on a busy machine within a few.
TRIAL_TIMEOUT = 60.0
#: Seconds for each program that runs in it; none of them does anything that takes time.
PROGRAM_TIMEOUT = 10.0
#: Exits with 3 for the first folder of its arguments that its user cannot use, and prints it. It makes no file: the
#: workspace may be a person's own folder.
_WRITES = 'for d in "$@"; do [ -w "$d" ] && [ -x "$d" ] || { echo "$d"; exit 3; }; done'
_NOT_WRITABLE = 3
_FINDS = 'command -v "$1" >/dev/null'


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a profile cannot run as it should, and what mends it."""

    what: str
    mend: str = ""


async def try_profile(gateway: Gateway, profile: Profile, settings: Settings) -> Problem | None:
    """Start a sandbox of an allowed profile, in a task of its own, and look. None: it can run.

    Arguments:
        gateway: whose pool has nothing of a person in it; closing it removes the sandbox.
    """
    task = TaskKey(LOCAL_PRINCIPAL, f"doctor-{secrets.token_hex(8)}")
    # Nothing is put before what the trial runs, and a terminal's state is not looked at.
    bare = replace(profile, kind="skill", entrypoint=(), command=())
    patience = TRIAL_TIMEOUT + (profile.setup_timeout if profile.setup else 0) + (OWN_TIMEOUT if profile.own else 0)
    try:
        with anyio.fail_after(patience):
            authorized = gateway.authorize(_command(task, bare, ()))
            async with gateway.pool.lease(task, authorized.profile) as (sandbox, _):
                return await _looked_at(_Inside(gateway, sandbox, task, bare), profile, settings)
    except TimeoutError:
        return Problem(f"Its sandbox was not ready within {patience:.0f} seconds.", "look at the engine's own log.")
    except TaskcellError as error:
        return Problem(" ".join(str(error).split()))


def _command(task: TaskKey, profile: Profile, argv: Sequence[str]) -> Command:
    return Command(task, "doctor", profile, tuple(argv), "taskcell doctor", timeout=PROGRAM_TIMEOUT, wait=None)


@dataclass(frozen=True, slots=True)
class _Inside:
    gateway: Gateway
    sandbox: Sandbox
    task: TaskKey
    profile: Profile

    async def run(self, *argv: str) -> ProcessResult:
        """Run a program in the sandbox. Raises SpawnFailed."""
        authorized = self.gateway.authorize(_command(self.task, self.profile, argv))
        return await run_command(self.sandbox, authorized, self.gateway.pool.next_process_id(self.task))


async def _looked_at(inside: _Inside, profile: Profile, settings: Settings) -> Problem | None:
    try:
        # taskcell's own program: what keeps it from starting would keep every program from it.
        await inside.run(inside.sandbox.container.supervisor, "version")
    except SpawnFailed as failure:
        if not failure.no_folder:
            return Problem(f"{failure}", "correct 'user', or leave it out.")
        key = "docker" if profile.kind == "skill" else _table(profile)
        return Problem(f"{failure}", f"name a folder of the image in {key}.working_dir, or leave it out.")
    has_shell = True
    try:
        problem = await _files(inside, profile)
        if problem is not None:
            return problem
    except SpawnFailed:
        has_shell = False  # an image of one program, which may well run
    if profile.kind == "terminal":
        return await _shell(inside, profile)
    return await _program(inside, profile) if has_shell else _named(inside, profile)


async def _files(inside: _Inside, profile: Profile) -> Problem | None:
    """Whether the user can write where every program may expect to."""
    folders = ["/tmp"] if inside.sandbox.container.workspace == "/workspace" else []  # noqa: S108 - in the container
    folders += [] if profile.is_reader else [inside.sandbox.container.workspace]
    folders += profile.own
    result = await inside.run("sh", "-c", _WRITES, "sh", *folders)
    if result.exit_code != _NOT_WRITABLE:
        return None
    return Problem(
        f"The user {profile.user} cannot write to {shown(result.stdout.strip())}.",
        "leave 'user' out, or name one that the folder belongs to.",
    )


def _table(profile: Profile) -> str:
    """The table of the configuration that a terminal's profile comes from."""
    environment = Environment.of_profile(profile.name)
    return f"environments.{environment.name}" if environment is not None and environment.name else "terminal"


async def _shell(inside: _Inside, profile: Profile) -> Problem | None:
    shell = profile.shell
    mend = f'write shell = ["sh", "-c"], or a shell that the image has, below [{_table(profile)}].'
    try:
        result = await inside.run(*shell, "exit 0")
    except SpawnFailed as failure:
        return Problem(f"The shell {shown(shell[0])} does not start: {failure}", mend)
    if result.exit_code != 0:
        return Problem(f"The shell {shown(' '.join(shell))} does not run `exit 0`: {result.ending()}.", mend)
    return None


def _named(inside: _Inside, profile: Profile) -> Problem | None:
    """Whether the profile or its image names a program at all. `entrypoint = []`: each call names one."""
    container = inside.sandbox.container
    if profile.entrypoint is None and not (*container.entrypoint, *(profile.command or ()), *container.command):
        return Problem(
            "Neither the skill nor its image names a program.", "write the program as docker.entrypoint of the skill."
        )
    return None


async def _program(inside: _Inside, profile: Profile) -> Problem | None:
    if (problem := _named(inside, profile)) is not None:
        return problem
    words = profile.entrypoint if profile.entrypoint is not None else inside.sandbox.container.entrypoint
    if not words:
        return None
    result = await inside.run("sh", "-c", _FINDS, "sh", words[0])
    if result.exit_code == 0:
        return None
    mend = "correct docker.entrypoint of the skill, or use another image."
    if "/" in words[0] and not words[0].startswith("/"):
        mend = "write the absolute path as docker.entrypoint of the skill, or docker.working_dir."
    return Problem(f"The image has no program {shown(words[0])} that its user may run.", mend)
