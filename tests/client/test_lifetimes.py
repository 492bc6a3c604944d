"""The client for programs: labels of tasks, and their lifetimes, on the local engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from client_serving import served
from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.client.cell import Cell
from taskcell.client.failures import ArgumentError, CapacityError, NotFoundError
from taskcell.deployment.opened import Opening, read_opened
from taskcell.gateway import lifetimes
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

#: Seconds of a lifetime that no test sees the end of, and of one whose end is waited for.
LONG, SHORT = 3600.0, 0.2


async def until(holds: Callable[[], object]) -> None:
    assert await anyio.to_thread.run_sync(lambda: eventually(holds))


def ends_of(state: Path) -> set[str]:
    return {task.task for task, opening in read_opened(state).items() if opening.ends}


async def names(cell: Cell, **labels: str) -> list[str]:
    return [task.id for task in await cell.tasks(labels)]


async def test_tasks_are_found_by_their_labels_while_they_are_open(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        plain = await cell.open("plain")
        await plain.run("true")
        first = await cell.open("first", labels={"run": "1", "step": "a=b&c"})
        await cell.open("second", labels={"run": "1", "step": ""}, lifetime=LONG)
        assert await names(cell) == ["first", "plain", "second"]
        assert await names(cell, run="1") == ["first", "second"]
        assert await names(cell, run="1", step="a=b&c") == ["first"]
        assert await names(cell, run="2") == []
        found = {task.id: task for task in await cell.tasks()}
        assert (found["plain"].labels, found["plain"].ends_in, found["plain"].profiles) == ({}, None, ("terminal",))
        assert found["second"].profiles == ()
        assert 0 < (found["second"].ends_in or 0) <= LONG
        await cell.open("first", labels={"run": "3"})
        assert await names(cell, run="3") == ["first"]
        await first.close()
        assert await names(cell) == ["plain", "second"]


async def test_a_task_ends_with_its_lifetime_whatever_runs_in_it(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        task, mark = await cell.open("own"), marker()
        await task.write_bytes("file", b"x")
        async with task.start(f"echo on; sleep {mark}") as command:
            async for _ in command:
                break
            await cell.open("own", lifetime=SHORT)
            assert (await command.wait()).status == "killed"
        await until(lambda: not alive(mark))
        await until(lambda: not ends_of(tmp_path / "state"))
        with pytest.raises(NotFoundError):
            await task.read_bytes("file")
        again = await cell.open("own")
        await again.run("true")
        assert (await cell.tasks())[0].ends_in is None


async def test_the_next_server_knows_labels_and_ends_what_is_over(gateway: GatewayFactory, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with served(gateway, state) as cell:
        task = await cell.open("kept", labels={"run": "1"}, lifetime=LONG)
        await task.write_bytes("file", b"x")
    async with served(gateway, state) as cell:
        assert await names(cell, run="1") == ["kept"]
        assert await cell.task("kept").read_bytes("file") == b"x"
        await cell.open("kept", lifetime=SHORT)
    async with served(gateway, state) as cell:
        await until(lambda: not ends_of(state))
        assert await names(cell, run="1") == []
        with pytest.raises(NotFoundError):
            await cell.task("kept").read_bytes("file")


async def test_a_fork_has_the_labels_and_the_end_of_its_task(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        task = await cell.open("one", labels={"run": "1"}, lifetime=LONG)
        await task.run("true")
        await task.fork("two")
        assert await names(cell, run="1") == ["one", "two"]
        ends = {key.task: opening.ends for key, opening in read_opened(tmp_path / "state").items()}
        assert ends["one"] == ends["two"] > 0


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"lifetime": 0}, "above 0"),
        ({"lifetime": float("nan")}, "above 0"),
        ({"lifetime": True}, "above 0"),
        ({"lifetime": 1e9}, "at most"),
        ({"labels": {"": "x"}}, "name"),
        ({"labels": {"a=b": "x"}}, "name"),
        ({"labels": {"a": 1}}, "a text"),
        ({"labels": {"a": "x" * 257}}, "256"),
        ({"labels": {"a": "\x1b[0m"}}, "labels.a"),
        ({"labels": {f"n{number}": "" for number in range(17)}}, "16"),
    ],
)
async def test_what_is_no_label_or_lifetime_is_refused(
    gateway: GatewayFactory, tmp_path: Path, terms: dict[str, object], match: str
) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        with pytest.raises(ArgumentError, match=match):
            await cell.open("own", **terms)  # type: ignore[arg-type]
        assert await cell.tasks() == []


async def test_a_principal_has_so_many_labelled_tasks_and_no_more(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetimes, "MAX_LABELLED", 1)
    async with served(gateway, tmp_path / "state") as cell:
        await cell.open("one", labels={"a": "1"})
        with pytest.raises(CapacityError, match="close some"):
            await cell.open("two", labels={"a": "1"})
        await cell.open("one", labels={"a": "2"})


def test_a_lifetime_has_its_rest_and_never_less_than_none() -> None:
    assert Opening().seconds_left is None
    assert Opening(ends=1.0).seconds_left == 0
    assert TaskKey("local", "x") not in read_opened(None)
