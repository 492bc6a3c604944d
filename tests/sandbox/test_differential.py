"""A command's status, signal and output are those of plain `bash -c` in the same place: hundreds of lines."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import docker
import pytest

from gateways import GatewayFactory
from shell_lines import BODY, random_lines
from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey, ToolCall
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.shell import may_change_state
from taskcell.sandbox.terminal_state import TerminalState
from taskcell.tools.process_calls import find_process

pytestmark = pytest.mark.anyio

PLAIN = Path(__file__).parents[1] / "support" / "plain.py"
#: Seconds for all lines, run plainly.
PATIENCE = 400
#: What differs from run to run: process numbers, and where the line ran.
_NUMBER = re.compile(r"(line \d+: +|\[\d+\] ?[+-]? *|kill -\w+ |pid |echo |^|\()\d{2,}(?= |\)|$)", re.MULTILINE)
_SPACES = re.compile(r" {2,}")
#: bash's own word on a program of its that a signal has ended.
_DEATH = re.compile(r"\S+: line \d+: N [A-Z][a-z ]+(?:\(core dumped\) )?.*\n")

Outcome = tuple[int, str | None, str]


def normal(output: str, folder: str) -> str:
    text = output.replace("\r\n", "\n").replace(folder, "HERE").replace(str(Path(folder).parent), "ABOVE")
    text = re.sub(r"~/[ab]/\d+", "TILDE", text)
    return _SPACES.sub(" ", _NUMBER.sub(r"\1N", text))


def plainly(
    jobs: list[dict[str, Any]], env: dict[str, str], api: docker.APIClient | None, container: str
) -> list[tuple[int, str]]:
    words = ["python3", "-c", PLAIN.read_text(), json.dumps(jobs)]
    if api is None:
        done = subprocess.run(words, env=env, capture_output=True, timeout=PATIENCE, check=True)
        printed = done.stdout
    else:
        started = api.exec_create(container, words, user="1000:1000", environment=env)
        printed = api.exec_start(started["Id"])
    return [tuple(json.loads(line)) for line in printed.splitlines()]


async def sandbox_of(gw: Gateway) -> Sandbox:
    """The terminal's sandbox."""
    result = await gw.call(ToolCall("local", "terminal", {"command": "sleep 1000", "background": True}))
    sandbox, record = await find_process(gw.pool, TaskKey("local", "default"), result.process_id)
    await sandbox.kill(record.process)
    return sandbox


async def ours(gw: Gateway, sandbox: Sandbox, job: dict[str, Any], **arguments: Any) -> Outcome:
    sandbox.spawner.terminal = TerminalState()
    call = {"command": job["line"], "workdir": job["folder"], "pty": job["pty"], **arguments}
    if not job["pty"]:
        del call["pty"]
    result = await gw.call(ToolCall("local", "terminal", call))
    if result.status.value == "running":
        asked = {"action": "wait", "process_id": result.process_id, "wait": 20, "cursor": 0}
        ended = (await gw.call(ToolCall("local", "process", asked))).result
        assert ended is not None
        result = ended
    assert result.exit_code is not None, (job["line"], result)
    return result.exit_code, result.signal, result.stdout


def expected(code: int, output: str) -> Outcome:
    return (code, None, output) if code >= 0 else (128 - code, signal.Signals(-code).name, output)


def is_told_by_the_shell(line: str, plain: Outcome, found: Outcome) -> bool:
    """Whether this is the one difference there is.

    bash replaces itself by a line's last program where nothing is left for it to do; with a report to make, something
    is. So where that program dies of a signal, bash itself says so, as anywhere else.
    """
    if plain[1] is None or found[:2] != (plain[0], None) or not may_change_state(line):
        return False
    return _DEATH.sub("", found[2]) == plain[2]


async def differences(
    gw: Gateway, lines: list[str], api: docker.APIClient | None, *, pty: bool = False, **arguments: Any
) -> list[tuple[str, Outcome, Outcome]]:
    sandbox = await sandbox_of(gw)
    root = sandbox.container.workspace
    env = sandbox.spawner.start_env()
    shell = sandbox.spawner.shell
    jobs = [{"line": line, "folder": f"{root}/a/{n}", "shell": shell, "pty": pty} for n, line in enumerate(lines)]
    folders = f"mkdir {root}/b; for ((i = 0; i < {len(lines)}; i++)); do mkdir {root}/b/$i; done"
    await gw.call(ToolCall("local", "terminal", {"command": folders}))
    plain = await anyio.to_thread.run_sync(plainly, jobs, env, api, sandbox.container.id)
    found = []
    for job, (code, output) in zip(jobs, plain, strict=True):
        folder = job["folder"].replace(f"{root}/a/", f"{root}/b/")
        got = await ours(gw, sandbox, {**job, "folder": folder}, **arguments)
        got = (*got[:2], normal(got[2], folder))
        want = expected(code, normal(output, job["folder"]))
        if got != want and not is_told_by_the_shell(job["line"], want, got):
            found.append((job["line"], want, got))
    return found


LINES = [*BODY, *random_lines(560, seed=12)]


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_hundreds_of_lines_end_and_print_as_in_plain_bash(
    gateway: GatewayFactory, docker_api: docker.APIClient, engine: str
) -> None:
    async with gateway(engine=engine) as gw:
        found = await differences(gw, LINES, docker_api if engine == "docker" else None)
        assert found == [], "\n".join(map(repr, found))


@pytest.mark.parametrize(
    "arguments",
    [{"background": True}, {"wait": 0}, {"pty": True}],
    ids=["in the background", "handed over at once", "in a terminal"],
)
async def test_so_do_those_that_a_call_does_not_wait_for_or_that_have_a_terminal(
    gateway: GatewayFactory, docker_api: docker.APIClient, engine: str, arguments: dict[str, Any]
) -> None:
    in_terminal = arguments.get("pty", False)
    arguments = {key: value for key, value in arguments.items() if key != "pty"}
    # Standard input stays open there, and a terminal is one.
    lines = [line for line in random_lines(120, seed=34) if not re.search(r"read|test -t|set -m|jobs|nohup", line)]
    async with gateway(engine=engine) as gw:
        found = await differences(gw, lines, docker_api if engine == "docker" else None, pty=in_terminal, **arguments)
        assert found == [], "\n".join(map(repr, found))


@pytest.mark.parametrize("line", ["nonesuch; echo $0", "cd /; nonesuch; echo $0", "trap : EXIT; nonesuch; echo $0"])
async def test_the_shell_names_itself_as_it_was_called_and_not_by_its_path(gateway: GatewayFactory, line: str) -> None:
    async with gateway(engine="local") as gw:
        result = await gw.call(ToolCall("local", "terminal", {"command": line}))
        assert result.stdout == "bash: line 1: nonesuch: command not found\nbash\n"


@pytest.mark.parametrize(
    "line",
    [
        "set -o posix; trap -p EXIT; cd /",
        "POSIXLY_CORRECT=1; trap; cd /",
        "trap : EXIT; type trap",
        "trap : EXIT; declare -F; cd /",
        "trap : EXIT; set | grep -i taskcell; cd /",
        "cd /; trap FOO; echo $?; trap -z; echo $?; trap x FOO; echo $?",
    ],
)
async def test_the_function_that_stands_for_trap_is_never_seen(gateway: GatewayFactory, line: str) -> None:
    async with gateway(engine="local") as gw:
        assert await differences(gw, [line], None) == []
