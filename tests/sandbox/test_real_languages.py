"""Sessions with the real tools of five languages: a project is cloned, built, tested, mended, served and committed.

Every answer is held against the right one: text, exit code, folder, notes, survivors. The images hold Debian's
packages, and are built first where they are missing or outdated.
"""

from __future__ import annotations

import re
from typing import Any

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from projects import PORT, PROJECTS, Project
from taskcell.files.answers import FileReport
from taskcell.model import Status
from toolchains import ensure

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.languages]

#: Asks the project's server, and waits for it to listen.
ASK = f"curl -sf --retry 100 --retry-delay 0 --retry-connrefused http://127.0.0.1:{PORT}/"


class Session(Task):
    """A task whose answers are held against the right ones."""

    async def runs(
        self, command: str, printed: str = "", code: int = 0, workdir: str = "/workspace/proj", notes: int = 0
    ) -> str:
        """The command ends with this exit code in this folder, and prints what the pattern matches as a whole."""
        result = await self.terminal(command)
        where = f"{command}\n{result}"
        assert re.fullmatch(printed, result.stdout), where
        assert (result.status, result.exit_code, result.workdir) == (Status.EXITED, code, workdir), where
        assert (len(result.notes), result.survivors, result.truncated) == (notes, 0, False), where
        return result.stdout

    async def file(self, tool: str, path: str, **arguments: Any) -> dict[str, Any]:
        """What a file tool says of a file of the project."""
        report: FileReport = await self.call(tool, path=f"proj/{path}", **arguments)  # type: ignore[assignment]
        assert report.notes == (), report
        return report.answer.structured()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.toolchain.name)
async def test_every_answer_of_a_session_with_real_tools_is_right(
    project: Project, docker_api: docker.APIClient, gateway: GatewayFactory
) -> None:
    async with gateway(f'[terminal]\nimage = "{ensure(docker_api, project.toolchain)}"\n') as gw:
        session = Session(gw)
        await _look_around(session, project)
        await _clone(session, project)
        await _mend(session, project)
        await _break(session, project)
        await _fetch(session, project)
        await _install(session, project)
        await _serve_behind_a_command(session, project)
        await _serve_in_the_background(session, project)
        await _commit(session, project)
        left = await session.process("list")
        assert [info.process_id for info in left.processes if info.alive] == []


async def _look_around(session: Session, project: Project) -> None:
    name, path = project.finds
    await session.runs("pwd; whoami", "/workspace\nagent\n", workdir="/workspace", notes=1)
    await session.runs(f"command -v {name}", f"{path}\n", workdir="/workspace")
    await session.runs(*project.version, workdir="/workspace")
    for variable, value in project.toolchain.environment.items():
        more = "(:.*)?" if variable == "PATH" else ""  # a login profile may add folders behind
        await session.runs(f"echo ${variable}", f"{re.escape(value)}{more}\n", workdir="/workspace")


async def _clone(session: Session, project: Project) -> None:
    await session.runs("git config --global user.name Ada; git config --global user.email a@b", workdir="/workspace")
    await session.runs("git init -q --bare origin.git && git init -q seed", workdir="/workspace")
    files = {**project.files, ".gitignore": f"{project.ignored}*.log\n"}
    for path, content in files.items():
        made = await session.call("write_file", path=f"seed/{path}", content=content)
        assert made.answer.structured()["size"] == len(content.encode())  # type: ignore[attr-defined]
    await session.runs(
        "cd seed && git add -A && git commit -qm 'Add calc' && git push -q ../origin.git main",
        workdir="/workspace/seed",
    )
    await session.runs("cd ~ && git clone -q origin.git proj && cd proj && pwd", "/workspace/proj\n")
    await session.runs("git ls-files | wc -l", f"{len(files)}\n")
    await session.runs("git log --format='%an %s'", "Ada Add calc\n")


async def _mend(session: Session, project: Project) -> None:
    await session.runs(project.build)
    await session.runs(project.run, "5\n")
    await session.runs(project.test, project.failing, project.failed)
    await session.runs("grep -rlF 'a - b' --exclude-dir=.git $(git ls-files)", f"{re.escape(project.source)}\n")
    shown = await session.file("read_file", project.source)
    assert shown["text"] == project.files[project.source]
    changed = await session.file("edit_file", project.source, old="a - b", new="a + b")
    line = project.files[project.source][: project.files[project.source].index("a - b")].count("\n") + 1
    assert (changed["count"], changed["lines"]) == (1, [line])
    await session.runs("git diff --stat | tail -1", r" 1 file changed, 1 insertion\(\+\), 1 deletion\(-\)\n")
    await session.runs("git diff -U0 | grep '^[-+].*a . b'", r"-\s*(return )?a - b;?\n\+\s*(return )?a \+ b;?\n")
    await session.runs(project.build)
    await session.runs(project.test, project.passing)
    await session.runs(project.run, "7\n")


async def _break(session: Session, project: Project) -> None:
    """A mistake that does not compile, and how it is undone."""
    mistake, printed, code = project.broken
    await session.file("edit_file", project.source, old="a + b", new=mistake)
    await session.runs(project.build, printed, code)
    await session.runs("echo $?", "0\n")
    await session.file("edit_file", project.source, undo=True)
    await session.runs(project.build)
    await session.runs(project.run, "7\n")


async def _fetch(session: Session, project: Project) -> None:
    """What is not there cannot be fetched, and the answer says why."""
    command, code = project.fetch
    result = await session.terminal(command)
    assert (result.status, result.exit_code, result.survivors) == (Status.EXITED, code, 0), result
    assert [note[:28] for note in result.notes] == ["This sandbox has no network:"], result
    await session.runs("git status --short", f" M {re.escape(project.source)}\n")


async def _install(session: Session, project: Project) -> None:
    """Where a tool would write to the image, the answer has the line with which it does not."""
    if project.install is None:
        return
    command, variable, installed = project.install
    refused = await session.terminal(command)
    assert refused.exit_code not in (0, None), refused
    (note,) = refused.notes
    (line,) = re.findall(r"`(export .*?)`", note)
    assert line.startswith(f"export {variable}="), note
    await session.runs(line)
    await session.runs(command, "(?s).*")
    await session.runs(f'"{installed}"', "7\n")


async def _serve_behind_a_command(session: Session, project: Project) -> None:
    """The server as a job of a command's shell that has ended."""
    started = await session.terminal(f"{project.serve} >server.log 2>&1 & export SERVER=$!; echo started")
    assert (started.status, started.exit_code, started.stdout) == (Status.EXITED, 0, "started\n"), started
    assert len(started.notes) == 1, started
    await session.runs(ASK, "7\n")
    await session.runs("cat server.log; kill -0 $SERVER", r"listening\n(127.*\n)?")
    await session.runs(f"{project.serve} 2>&1 | grep -ci 'in use'", r"[1-9]\n")
    await session.runs("kill $SERVER; while kill -0 $SERVER 2>/dev/null; do sleep 0.02; done")
    await session.runs(f"curl -s http://127.0.0.1:{PORT}/", code=7)


async def _serve_in_the_background(session: Session, project: Project) -> None:
    """The server as the language's own tool starts it: what is killed is the tool and all that it started."""
    started = await session.terminal(project.start, background=True)
    assert (started.status, started.workdir) == (Status.RUNNING, "/workspace/proj"), started
    waited = await session.process("wait", started.process_id, until="^listening$", wait=60)
    assert waited.result is not None
    assert (waited.result.status, waited.result.stdout) == (Status.RUNNING, "listening\n"), waited
    await session.runs(ASK, "7\n")
    ended = await session.ask("kill", started.process_id)
    assert (ended.status, ended.survivors) == (Status.KILLED, 0), ended
    await session.runs(f"curl -s http://127.0.0.1:{PORT}/", code=7)


async def _commit(session: Session, project: Project) -> None:
    await session.runs("git status --short", f" M {re.escape(project.source)}\n")
    await session.runs("git commit -qam 'Mend the sum'; git log --format=%s", "Mend the sum\nAdd calc\n")
    await session.runs("git push -q && git -C ../origin.git log -1 --format=%s", "Mend the sum\n")
    await session.runs(f"git diff --name-only HEAD~ && git show HEAD:{project.source} | grep -c 'a + b'", ".*\n1\n")
    await session.runs("git status --short; cd; pwd", "/workspace\n", workdir="/workspace")
