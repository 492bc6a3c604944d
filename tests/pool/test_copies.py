"""Snapshots, what is restored from them, and forks: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.deployment.state_folder import StateFolder
from taskcell.engine.base import COPIES_AT_ONCE, Container
from taskcell.engine.local import LocalEngine
from taskcell.errors import BadArgument, Denied, EngineError, ErrorCode, NoRoom, TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey, ToolCall
from taskcell.pool import reserved
from taskcell.tools.sandbox import SandboxReport

pytestmark = pytest.mark.anyio

TOML = 'deployment = "copies-test"\nmanifests = []\n'


#: Seconds for what takes one, on a machine that is busy.
PATIENCE = 120.0


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


class Copier(Task):
    """A task whose agent copies its files."""

    async def copy(self, action: str, **names: str) -> tuple[str, ...]:
        arguments = {"action": action, "task_id": self._task, **names}
        report = await self.gateway.call(ToolCall(self._principal, "sandbox", arguments))
        assert isinstance(report, SandboxReport)
        return report.notes

    async def printed(self, command: str) -> str:
        return (await self.terminal(command)).stdout


async def there(gw: Gateway, task: str) -> bool:
    return await gw.pool.has_begun(TaskKey("local", task))


# --- forks


async def test_a_fork_has_the_files_folder_and_variables_and_goes_its_own_way(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        one, two = Copier(gw, task="one"), Copier(gw, task="two")
        await one.terminal("mkdir d && cd d && echo first > f && export KEPT='one two'")
        assert await one.copy("fork", to="two") == ("The task 'two' has the same files, folder and variables.",)
        await two.terminal("echo second > f; export KEPT=changed")
        show = 'cat f; pwd | sed "s,.*/,,"; echo "$KEPT"'
        assert await one.printed(show) == "first\nd\none two\n"
        assert await two.printed(show) == "second\nd\nchanged\n"


async def test_the_first_answer_of_a_fork_says_nothing_of_how_it_came_to_be(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        await Copier(gw, task="one").terminal("echo 1 > f")
        await Copier(gw, task="one").copy("fork", to="two")
        assert (await Copier(gw, task="two").terminal("true")).notes == ()


@pytest.mark.parametrize("warm", [0, 1])
async def test_many_forks_of_one_task_at_once_are_all_whole(gateway: GatewayFactory, warm: int) -> None:
    names = [f"fork {number}" for number in range(COPIES_AT_ONCE + 4)]
    async with gateway(TOML, engine="local", warm=warm) as gw:
        await Copier(gw, task="one").terminal("seq 1000 > f; ln f g")
        async with anyio.create_task_group() as forking:
            for name in names:
                forking.start_soon(lambda name=name: Copier(gw, task="one").copy("fork", to=name))
        for name in names:
            assert await Copier(gw, task=name).printed("cat f g | wc -l; stat -c %h f") == "2000\n2\n"


async def test_a_fork_of_a_task_whose_sandbox_was_closed_has_its_kept_files(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(TOML + "[pool]\nmax_sandboxes = 2\n", engine="local", state=tmp_path / "state") as gw:
        await Copier(gw, task="one").terminal("echo kept > f")
        for name in ("other", "another"):
            await Copier(gw, task=name).terminal("true")
        assert all(slot.task.task != "one" for slot in gw.pool.slots)
        await Copier(gw, task="one").copy("fork", to="two")
        assert await Copier(gw, task="two").printed("cat f") == "kept\n"


async def test_a_fork_is_refused_where_there_is_nothing_to_copy_or_the_task_exists(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        with pytest.raises(BadArgument, match="nothing has run in it yet") as refused:
            await one.copy("fork", to="two")
        assert refused.value.code is ErrorCode.NOT_FOUND
        await one.terminal("echo 1 > f")
        await Copier(gw, task="two").terminal("echo own > f")
        for to in ("one", "two"):
            with pytest.raises(BadArgument, match="exists already"):
                await one.copy("fork", to=to)
        assert await Copier(gw, task="two").printed("cat f") == "own\n"


async def test_of_two_forks_under_one_name_one_is_made(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        outcomes = []

        async def fork(source: str) -> None:
            try:
                await Copier(gw, task=source).copy("fork", to="both")
                outcomes.append(source)
            except BadArgument:
                outcomes.append("refused")

        for name in ("a", "b"):
            await Copier(gw, task=name).terminal(f"echo {name} > f")
        async with anyio.create_task_group() as forking:
            forking.start_soon(fork, "a")
            forking.start_soon(fork, "b")
        assert sorted(outcomes)[1:] == ["refused"] or "refused" in outcomes
        (made,) = [name for name in outcomes if name != "refused"]
        assert await Copier(gw, task="both").printed("cat f") == f"{made}\n"


async def test_a_fork_that_fails_leaves_no_task(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def half(self: LocalEngine, source: Container, targets: list[Container], runtime: str) -> list[str]:
        for target in targets:
            Path(target.workspace, "half").write_text("of it")
        return ["f: No space left on device" for _ in targets]

    async with gateway(TOML, engine="local") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        with monkeypatch.context() as patch:
            patch.setattr(LocalEngine, "copy_files", half)
            with pytest.raises(EngineError, match="No space left on device"):
                await one.copy("fork", to="two")
        await eventually(lambda: not any(slot.task.task == "two" for slot in gw.pool.slots))
        assert not await there(gw, "two")
        await one.copy("fork", to="two")
        assert await Copier(gw, task="two").printed("ls") == "f\n"


async def test_a_fork_whose_caller_gives_up_is_made_whole(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, copy = anyio.Event(), anyio.Event(), LocalEngine.copy_files

    async def slow(self: LocalEngine, source: Container, targets: list[Container], runtime: str) -> list[str]:
        begun.set()
        await go_on.wait()
        return list(await copy(self, source, targets, runtime))

    monkeypatch.setattr(LocalEngine, "copy_files", slow)
    async with gateway(TOML, engine="local") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        async with anyio.create_task_group() as calling:
            calling.start_soon(lambda: one.copy("fork", to="two"))
            await begun.wait()
            calling.cancel_scope.cancel()
        go_on.set()  # a call of the new task waits for its files
        assert await Copier(gw, task="two").printed("cat f") == "1\n"


async def test_what_other_servers_find_of_a_task_is_nothing_before_its_files_are_whole(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is killed in the middle of a fork leaves no half of it to the next one."""
    begun, go_on, copy = anyio.Event(), anyio.Event(), LocalEngine.copy_files

    async def slow(self: LocalEngine, source: Container, targets: list[Container], runtime: str) -> list[str]:
        begun.set()
        await go_on.wait()
        return list(await copy(self, source, targets, runtime))

    def recorded() -> set[str]:
        (server,) = StateFolder(tmp_path / "state").servers()
        return {record.task for record in server.sandboxes if record.task}

    monkeypatch.setattr(LocalEngine, "copy_files", slow)
    async with gateway(TOML, engine="local", state=tmp_path / "state", warm=1) as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        await eventually(lambda: any(slot.is_warm and slot.settled.is_set() for slot in gw.pool.slots))
        async with anyio.create_task_group() as calling:
            calling.start_soon(lambda: one.copy("fork", to="two"))
            await begun.wait()
            await gw.pool._upkeep.write()
            assert recorded() == {"one"}
            go_on.set()
        assert recorded() == {"one", "two"}


async def test_a_fork_has_its_tasks_environment_and_nothing_that_the_setup_has_made_anew(
    gateway: GatewayFactory,
) -> None:
    toml = TOML + '[environments.e]\nsetup = "mkdir -p made/d; echo anew > made/f"\nenvironment = ["IN=e"]\n'
    async with gateway(toml, engine="local") as gw:
        one, two = Copier(gw, task="one"), Copier(gw, task="two")
        await one.copy("open", environment="e")
        assert await one.printed("cat made/f; echo $IN; rm -r made; echo own > made") == "anew\ne\n"
        await one.copy("fork", to="two")
        assert await two.printed("ls; cat made; echo $IN") == "made\nown\ne\n"


async def test_the_policys_rules_judge_a_copy_by_its_words(gateway: GatewayFactory, tmp_path: Path) -> None:
    rule = '[[policy.rules]]\nname = "no-fork"\ntool = "sandbox"\ncommand = "^fork secret"\neffect = "deny"\n'
    async with gateway(TOML + rule + 'reason = "No."\n', engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        with pytest.raises(Denied, match="no-fork"):
            await one.copy("fork", to="secret")
        assert not await there(gw, "secret")
        await one.copy("fork", to="two")
        await one.copy("snapshot", name="secret")


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, False), (1e6, False), (1e6, True)])
async def test_a_sandbox_that_was_just_given_to_a_task_is_left_to_its_next_call(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch, seconds: float, calls: bool
) -> None:
    """While another task waits for the place, which has it after that call; without the reservation, at once."""
    monkeypatch.setattr(reserved, "RESERVED", seconds)
    patience = "500ms" if seconds and not calls else "120s"
    bounds = f'[pool]\nmax_sandboxes = 2\nacquire_timeout = "{patience}"\n'
    async with gateway(TOML + bounds, engine="local") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        waiting: list[str] = []
        copying, copy = anyio.Event(), LocalEngine.copy_files

        async def with_a_waiting_call(self: LocalEngine, *arguments: object) -> list[str]:
            copying.set()
            while not gw.pool.slots.waiting:
                await anyio.sleep(0.01)
            return list(await copy(self, *arguments))  # type: ignore[arg-type]

        async def wait() -> None:
            await copying.wait()
            try:
                await Copier(gw, "ann", "other").terminal("true")
                waiting.append("served")
            except NoRoom:
                waiting.append("refused")

        monkeypatch.setattr(LocalEngine, "copy_files", with_a_waiting_call)
        async with anyio.create_task_group() as running:
            running.start_soon(one.terminal, "sleep 1000")  # its own place cannot be taken
            await eventually(lambda: any(slot.sandbox.channel.living for slot in gw.pool.slots if slot.sandbox))
            async with anyio.create_task_group() as calling:
                calling.start_soon(wait)
                await one.copy("fork", to="two")
                if calls:
                    assert (await Copier(gw, task="two").terminal("cat f")).stdout == "1\n"
            running.cancel_scope.cancel()
        assert waiting == (["refused"] if patience == "500ms" else ["served"])


# --- snapshots


async def test_a_snapshot_is_what_the_files_were_and_any_task_can_have_it(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("mkdir d; cd d; echo good > f; export KEPT=yes")
        await one.copy("snapshot", name="a name/../with anything \N{SNOWMAN}")
        await one.terminal("rm f; cd ..; unset KEPT")
        for task in ("one", "new"):
            await Copier(gw, task=task).copy("restore", name="a name/../with anything \N{SNOWMAN}")
            result = await Copier(gw, task=task).terminal('cat f; pwd | sed "s,.*/,,"; echo $KEPT')
            assert (result.stdout, result.notes) == ("good\nd\nyes\n", ())


async def test_a_restore_ends_what_runs_in_the_task_and_says_so(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo good > f")
        await one.copy("snapshot", name="s")
        await one.terminal("sleep 1000", background=True)
        (said,) = await one.copy("restore", name="s")
        assert said.endswith("1 process that ran in it ended.")
        assert (await one.process("list")).processes == ()


async def test_snapshots_outlive_the_task_and_the_server_and_a_name_can_be_used_again(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        for content in ("older", "newer"):
            await one.terminal(f"echo {content} > f")
            await one.copy("snapshot", name="s")
        await one.sandbox("close")
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        await Copier(gw, task="two").copy("restore", name="s")
        assert await Copier(gw, task="two").printed("cat f") == "newer\n"


async def test_snapshots_are_one_principals_alone(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        ann, bob = Copier(gw, "ann", "one"), Copier(gw, "bob", "one")
        await ann.terminal("echo ann > f")
        await bob.terminal("echo bob > f")
        await ann.copy("snapshot", name="s")
        with pytest.raises(BadArgument, match=r"There is no snapshot 's'\. None has been made yet"):
            await bob.copy("restore", name="s")
        await bob.copy("snapshot", name="s")
        await ann.copy("restore", name="s")
        assert await ann.printed("cat f") == "ann\n"
        with pytest.raises(BadArgument, match="There are: 's'") as refused:
            await ann.copy("restore", name="t")
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_too_many_or_too_large_snapshots_are_refused_and_a_used_name_is_not(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    bounds = '[workspace]\nsnapshots = 2\nsnapshots_size = "200k"\n'
    async with gateway(TOML + bounds, engine="local", state=tmp_path / "state") as gw:
        one, other = Copier(gw, task="one"), Copier(gw, "ann", "one")
        await one.terminal("echo 1 > f")
        await other.terminal("head -c 300000 /dev/urandom > f")
        for name in ("a", "b", "b"):
            await one.copy("snapshot", name=name)
        with pytest.raises(NoRoom, match=r"2 snapshots, as many as workspace\.snapshots allows"):
            await one.copy("snapshot", name="c")
        with pytest.raises(NoRoom, match=r"workspace\.snapshots_size"):
            await other.copy("snapshot", name="large")
        with pytest.raises(BadArgument):
            await other.copy("restore", name="large")
    assert sorted(path.suffix for path in (tmp_path / "state" / "snapshots").iterdir()) == [".snapshot"] * 2


async def test_a_snapshot_or_restore_that_fails_changes_nothing(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo good > f")
        await one.copy("snapshot", name="s")
        await one.terminal("echo newer > f; sleep 1000 &", background=True)
        with monkeypatch.context() as patch:
            patch.setattr("taskcell.pool.copies.shutil.copyfileobj", full)
            with pytest.raises(TaskcellError, match="cannot write the task's files to its disk: No space left"):
                await one.copy("restore", name="s")
            patch.setattr(LocalEngine, "save_files", full)
            with pytest.raises(TaskcellError, match="No space left on device"):
                await one.copy("snapshot", name="s")
        assert await one.printed("cat f") == "newer\n"
        assert [path.name[0] != "." for path in (tmp_path / "state" / "snapshots").iterdir()] == [True]
        await one.copy("restore", name="s")
        assert await one.printed("cat f") == "good\n"


async def test_what_is_not_a_snapshot_is_as_if_it_were_not_there(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with gateway(TOML, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        await one.copy("snapshot", name="s")
        (path,) = (tmp_path / "state" / "snapshots").iterdir()
        path.write_bytes(b"\xff" * 100)
        with pytest.raises(BadArgument, match="There is no snapshot"):
            await one.copy("restore", name="s")
        assert await one.printed("cat f") == "1\n"


async def test_a_restored_task_whose_files_are_not_kept_has_them_once(gateway: GatewayFactory, tmp_path: Path) -> None:
    toml = TOML + '[workspace]\nkeep = "0"\n[pool]\nmax_sandboxes = 1\n'
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        await one.copy("snapshot", name="s")
        await one.copy("restore", name="s")
        assert await one.printed("cat f") == "1\n"
        await Copier(gw, task="two").terminal("true")
        assert await one.printed("ls") == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "snapshot"}, "needs `name`"),
        ({"action": "restore", "name": ""}, "needs `name`"),
        ({"action": "fork", "name": "x"}, "needs `to`"),
        ({"action": "snapshot", "name": "x" * 129}, "is longer than 128 characters"),
    ],
)
async def test_a_copy_without_its_name_is_refused(
    gateway: GatewayFactory, arguments: dict[str, str], said: str
) -> None:
    async with gateway(TOML, engine="local") as gw:
        with pytest.raises(BadArgument, match=said):
            await gw.call(ToolCall("local", "sandbox", arguments))


async def test_files_on_disk_are_not_copied(
    gateway: GatewayFactory, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("root")
    toml = TOML + f'[workspace]\npersistent = true\nroot = "{root}"\n'
    async with gateway(toml, engine="local", state=tmp_path / "state") as gw:
        await Copier(gw).terminal("true")
        for arguments in ({"action": "fork", "to": "x"}, {"action": "snapshot", "name": "x"}):
            with pytest.raises(BadArgument, match=r"'sandbox' has no argument|'action' must be one of"):
                await Copier(gw).copy(**arguments)


async def test_without_a_folder_for_state_snapshots_are_refused_and_forks_are_not(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="local") as gw:
        one = Copier(gw, task="one")
        await one.terminal("echo 1 > f")
        with pytest.raises(TaskcellError, match="keeps nothing beyond its end"):
            await one.copy("snapshot", name="s")
        await one.copy("fork", to="two")
