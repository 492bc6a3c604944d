"""What a server leaves behind: nothing, or what the next server of its deployment takes up."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest
from mcp.client.client import Client

from asking import fields, text_of
from deployment_servers import ORPHAN_TTL, Servers, run
from observe import HOST_TIMEOUT, alive, eventually, marker

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path, f"adoption-{marker()[:9]}")


async def test_the_next_server_finds_a_killed_servers_sandbox_with_files_folder_and_processes(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    mark = marker()
    await servers.leave_by_kill("echo kept > file; mkdir sub; cd sub", f"setsid sleep {mark} > /dev/null &")
    (container,) = servers.ids(docker_api)
    async with servers.serve() as (client, _):
        after = await run(client, "pwd; cat ../file")
        assert (after["stdout"], after["notes"]) == ("/workspace/sub\nkept\n", [])
        assert after["process_id"] == "p3"
        assert servers.ids(docker_api) == [container]
        assert len(alive(mark)) == 1
        assert len(servers.files) == 1
    assert alive(mark) == []
    assert servers.ids(docker_api) == servers.volumes(docker_api) == []


async def test_a_restarted_server_finds_a_background_process_with_its_output_and_ends_it(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    mark = marker()
    line = f"echo begun; read line; echo $line; exec sleep {mark}"
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await client.call_tool("terminal", {"command": line, "task_id": "t", "background": True})
            await servers.written('"task": "t"')
            os.kill(pid, signal.SIGKILL)
    async with servers.serve() as (client, _):
        # Not the terminal first: whoever asks for a process has only its name.
        told = await process(client, "poll", cursor=0, wait=10)
        assert (told["status"], told["stdout"], told["lost_bytes"]) == ("running", "begun\n", 0)
        await process(client, "write", data="more\n")
        news = await process(client, "poll", cursor=told["cursor"], wait=10)
        assert news["stdout"] == "more\n"
        ended = await process(client, "kill")
        assert (ended["status"], ended["survivors"]) == ("killed", 0)
        assert alive(mark) == []


async def test_a_restarted_server_keeps_a_server_in_the_background_until_others_need_the_room(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    mark = marker()
    bounds = 'max_sandboxes = 1\nidle_ttl = "1s"\nacquire_timeout = "20s"'
    servers = Servers(tmp_path, f"adoption-{marker()[:9]}", bounds)
    await leave_in_background(servers, mark, "sleep 0.1")
    async with servers.serve() as (client, _):
        (listed,) = (await fields(client, "process", {"action": "list", "task_id": "t"}))["processes"]
        assert (listed["process_id"], listed["status"]) == ("p1", "running")
        await anyio.sleep(2.5)  # more than twice `idle_ttl`
        assert len(alive(mark)) == 1
        other = await run(client, "echo mine", "other")
        assert other["stdout"] == "mine\n"
        assert f"the sandbox of your task 't' was closed, and with it p1 ('sleep 0.1; exec sleep {mark}')" in str(
            other["notes"]
        )
        assert await anyio.to_thread.run_sync(eventually, lambda: alive(mark) == [])
        after = await run(client, "true")
        assert "With the task's sandbox ended what still ran in it: p1" in str(after["notes"])


async def leave_in_background(servers: Servers, mark: str, first: str = "echo kept > file") -> None:
    """Leave a killed server's process, which sleeps after its first command."""
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            line = f"{first}; exec sleep {mark}"
            await client.call_tool("terminal", {"command": line, "task_id": "t", "background": True})
            # With its number: another process, which reads the login profile, may still count as the first one.
            await servers.written('"processes": 1, "commands": 1')
            os.kill(pid, signal.SIGKILL)


async def test_a_reset_as_a_new_servers_first_call_ends_what_runs_and_keeps_the_files(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    mark = marker()
    await leave_in_background(servers, mark)
    (container,) = servers.ids(docker_api)
    async with servers.serve() as (client, _):
        answer = await fields(client, "sandbox", {"action": "reset", "task_id": "t"})
        assert answer["notes"] == ["1 sandbox was replaced; the workspace is the same."]
        assert await anyio.to_thread.run_sync(eventually, lambda: not alive(mark))
        assert (await run(client, "cat file"))["stdout"] == "kept\n"
        assert await anyio.to_thread.run_sync(eventually, lambda: container not in servers.ids(docker_api))


async def test_a_process_is_never_named_as_one_of_an_earlier_server_was(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await leave_in_background(servers, marker())
    (container,) = servers.ids(docker_api)
    docker_api.remove_container(container, force=True)
    async with servers.serve() as (client, _):
        fresh = await run(client, "true")
        assert fresh["process_id"] == "p2"
        assert "had ended with the server before this one" in fresh["notes"][0]
        told = await client.call_tool("process", {"action": "poll", "task_id": "t", "process_id": "p1"})
        assert told.is_error


async def test_a_paused_sandbox_of_an_earlier_server_is_replaced_and_removed(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await leave_in_background(servers, marker())
    (container,) = servers.ids(docker_api)
    docker_api.pause(container)
    async with servers.serve() as (client, _):
        fresh = await run(client, "ls -A")
        assert fresh["stdout"] == ""
        assert "the files that were in the workspace are lost" in fresh["notes"][0]
        assert await anyio.to_thread.run_sync(eventually, lambda: container not in servers.ids(docker_api))
    assert servers.volumes(docker_api) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_removes_every_sandbox_before_the_server_is_gone(
    servers: Servers, docker_api: docker.APIClient, number: int
) -> None:
    mark = marker()
    servers.toml = servers.toml.replace("warm = 0", "warm = 1")
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await client.call_tool("terminal", {"command": f"sleep {mark}", "task_id": "t", "background": True})
            await servers.written('"task": "", "profile": "terminal"')
            os.kill(pid, number)
            assert await anyio.to_thread.run_sync(eventually, lambda: not Path(f"/proc/{pid}").exists())
            assert servers.ids(docker_api) == servers.volumes(docker_api) == servers.files == []
            assert alive(mark) == []
            assert "not every sandbox" not in (servers.folder / "serve.log").read_text()
            return
    pytest.fail("the server was not waited for")


async def test_a_signal_keeps_sandboxes_too_where_the_configuration_says_nothing(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    servers, mark = Servers(tmp_path, f"keep-{marker()[:9]}", "# on_exit as it is by default"), marker()
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await client.call_tool("terminal", {"command": f"sleep {mark}", "task_id": "t", "background": True})
            os.kill(pid, signal.SIGTERM)
            await anyio.to_thread.run_sync(eventually, lambda: not Path(f"/proc/{pid}").exists())
    servers.toml = servers.toml.replace('keep"', 'close"')
    async with servers.serve() as (client, _):
        assert (await process(client, "poll"))["status"] == "running"
        assert len(alive(mark)) == 1


async def test_a_state_file_of_garbage_is_as_good_as_none(servers: Servers) -> None:
    folder = servers.folder / "state/taskcell/deployments" / servers.name
    folder.mkdir(parents=True)
    wrong = {"container": 1, "name": [], "principal": None, "task": {}, "profile": "terminal"}
    contents = ["", "[]", "1", "[" * 100_000, '{"pid": 1, "sandboxes": ["x"]}', '{"pid": 1, "sandboxes": {"a": 1}}']
    for number, content in enumerate([*contents, json.dumps({"pid": 1, "sandboxes": [wrong]}), "\udcff"]):
        (folder / f"dead{number}.json").write_text(content, errors="surrogateescape")
        (folder / f"dead{number}.lock").touch()
    (folder / "folder.json").mkdir()
    async with servers.serve() as (client, _):
        assert (await run(client, "echo works"))["stdout"] == "works\n"


async def test_a_changed_profile_ends_nothing_that_an_earlier_server_left_running(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    mark = marker()
    await leave_in_background(servers, mark, "echo begun")
    servers.toml += "[terminal]\npids = 100\n"
    async with servers.serve() as (client, _):
        assert "configuration changed" in (await run(client, "true"))["notes"][0]
        told = await process(client, "poll")
        assert (told["status"], told["stdout"]) == ("running", "begun\n")
        assert (await process(client, "kill"))["survivors"] == 0
        assert await anyio.to_thread.run_sync(eventually, lambda: len(servers.ids(docker_api)) == 1)


async def process(client: Client, action: str, **more: Any) -> dict[str, Any]:
    arguments = {"action": action, "process_id": "p1", "task_id": "t", **more}
    return await fields(client, "process", arguments)


async def test_a_killed_servers_sandboxes_and_volumes_are_gone_without_any_next_server(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    servers.toml = servers.toml.replace(f'"{ORPHAN_TTL}s"', '"1s"')
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await run(client, "true")
            await client.call_tool("jq", {"args": ["-n", "1"], "task_id": "t"})
            await run(client, "true", "other")
            assert (len(servers.ids(docker_api)), len(servers.volumes(docker_api))) == (3, 2)
            os.kill(pid, signal.SIGKILL)
    assert await anyio.to_thread.run_sync(eventually, lambda: not servers.ids(docker_api))
    assert servers.volumes(docker_api) == []


async def test_two_servers_of_one_deployment_leave_each_others_sandboxes_alone(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    async with servers.serve() as (first, _):
        await run(first, "echo mine > file")
        async with servers.serve() as (second, _):
            assert (await run(second, "ls -A", "other"))["stdout"] == ""
            assert len(servers.ids(docker_api)) == 2
        after = await run(first, "cat file")
        assert (after["stdout"], after["notes"]) == ("mine\n", [])


async def test_two_servers_share_a_task_and_when_the_first_dies_the_second_has_it_with_what_runs(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (second, _):
            with suppress(BaseExceptionGroup):
                async with servers.serve() as (first, pid):
                    await run(first, "echo mine > file; cd /tmp; export SEEN=yes")
                    shared = await run(second, "cat ~/file; pwd; echo $SEEN")
                    assert shared["stdout"] == "mine\n/tmp\nyes\n"
                    assert len(servers.ids(docker_api)) == 1
                    line = "echo begun >> ~/times; while [ ! -e ~/go ]; do sleep 0.1; done; echo ended >> ~/times"
                    with anyio.fail_after(HOST_TIMEOUT):
                        async with anyio.create_task_group() as calls:
                            calls.start_soon(ended_with_its_server, second, line)
                            while "begun" not in (await run(first, "cat ~/times; true"))["stdout"]:
                                await anyio.sleep(0.1)
                            os.kill(pid, signal.SIGKILL)
            after = await run(second, "pwd; touch ~/go; while ! grep ended ~/times; do sleep 0.1; done; cat ~/times")
            assert after["stdout"] == "/tmp\nended\nbegun\nended\n"
            assert len(servers.ids(docker_api)) == 1


async def ended_with_its_server(client: Client, command: str) -> None:
    """A call that another server makes, which is killed meanwhile."""
    answer = await client.call_tool("terminal", {"command": command, "task_id": "t"})
    assert answer.is_error
    assert "has ended during the call" in text_of(answer)


async def test_a_server_that_is_only_looked_at_makes_and_touches_nothing(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await servers.leave_by_kill("echo kept > file")
    before = (servers.ids(docker_api), [file.read_text() for file in servers.files])
    async with servers.serve() as (client, _):
        await client.list_tools()
    assert (servers.ids(docker_api), [file.read_text() for file in servers.files]) == before
    async with servers.serve() as (client, _):
        assert (await run(client, "cat file"))["stdout"] == "kept\n"


async def test_sandboxes_are_kept_at_a_clean_end_where_the_configuration_says_so(
    tmp_path: Path, docker_api: docker.APIClient
) -> None:
    servers = Servers(tmp_path, f"keep-{marker()[:9]}", 'on_exit = "keep"')
    async with servers.serve() as (client, _):
        await run(client, "echo kept > file; cd /tmp")
    (container,) = servers.ids(docker_api)
    servers.toml = servers.toml.replace('keep"', 'close"')
    async with servers.serve() as (client, _):
        assert (await run(client, "pwd; cat /workspace/file"))["stdout"] == "/tmp\nkept\n"
        assert servers.ids(docker_api) == [container]
    assert servers.ids(docker_api) == servers.files == []


async def test_a_changed_profile_replaces_the_sandbox_that_is_taken_up_and_keeps_its_files(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await servers.leave_by_kill("echo kept > file")
    (container,) = servers.ids(docker_api)
    servers.toml += "[terminal]\npids = 100\n"
    async with servers.serve() as (client, _):
        after = await run(client, "cat file")
        assert after["stdout"] == "kept\n"
        assert "its configuration changed; the workspace is the same" in after["notes"][0]
        assert await anyio.to_thread.run_sync(eventually, lambda: container not in servers.ids(docker_api))


async def test_what_no_task_had_is_removed_and_what_shares_files_is_taken_up_together(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    servers.toml = servers.toml.replace("warm = 0", "warm = 1")
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await run(client, "echo kept > file")
            await client.call_tool("jq", {"args": ["-n", "1"], "task_id": "t"})
            await servers.written('"task": "", "profile": "jq"')
            await servers.written('"task": "", "profile": "terminal"')
            os.kill(pid, signal.SIGKILL)
    assert len(servers.ids(docker_api)) == 4
    servers.toml = servers.toml.replace("warm = 1", "warm = 0")
    async with servers.serve() as (client, _):
        answer = await fields(client, "jq", {"args": ["-Rn", "input", "file"], "task_id": "t"})
        assert (answer["stdout"], answer["notes"]) == ('"kept"\n', [])
        assert await anyio.to_thread.run_sync(eventually, lambda: len(servers.ids(docker_api)) == 2)
        assert (await run(client, "cat file"))["stdout"] == "kept\n"
        assert len(servers.volumes(docker_api)) == 1


async def test_what_other_servers_read_holds_no_token_and_is_for_its_user_alone(servers: Servers) -> None:
    async with servers.serve() as (client, _):
        await run(client, "export SECRET=hidden; cd /tmp")
        await servers.written('"task": "t"')
        (file,) = servers.files
        text = file.read_text()
        assert "hidden" not in text
        assert set(json.loads(text)["sandboxes"][0]) >= {"container", "principal", "task", "profile", "nonce"}
        assert [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent / "key")] == [
            0o600,
            0o700,
            0o600,
        ]


async def test_where_no_state_can_be_written_everything_but_the_handing_over_works(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    (servers.folder / "state").write_text("a file where a folder should be")
    async with servers.serve() as (client, _):
        assert (await run(client, "echo works"))["stdout"] == "works\n"
    assert "The state folder cannot be written" in (servers.folder / "serve.log").read_text()
    assert servers.ids(docker_api) == []


async def kill_two_with_one_task(servers: Servers) -> None:
    """Two servers that each have the task t, with files of their own, killed at the same moment."""
    servers.keep_no_archives()
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (first, first_pid), servers.serve() as (second, second_pid):
            await run(first, "echo first > file")
            servers.unclaim()
            await run(second, "echo second > file")
            await servers.written('"task": "t"', 2)
            os.kill(first_pid, signal.SIGKILL)
            os.kill(second_pid, signal.SIGKILL)


async def test_of_two_killed_servers_with_one_task_both_files_live_on_and_the_first_answer_says_where(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await kill_two_with_one_task(servers)
    before = set(servers.ids(docker_api))
    async with servers.serve() as (client, _):
        mine = await run(client, "cat file")
        (note,) = mine["notes"]
        assert "are in the task 't~2' now" in note
        theirs = await run(client, "cat file", "t~2")
        assert {mine["stdout"], theirs["stdout"]} == {"first\n", "second\n"}
        assert theirs["notes"] == (await run(client, "true"))["notes"] == []
        assert set(servers.ids(docker_api)) == before
    assert servers.ids(docker_api) == servers.volumes(docker_api) == []


async def test_an_heir_that_is_killed_before_it_was_asked_leaves_both_files_and_the_note(servers: Servers) -> None:
    await kill_two_with_one_task(servers)
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await run(client, "true", "another")
            await servers.written("are in the task 't~2' now")
            os.kill(pid, signal.SIGKILL)
    async with servers.serve() as (client, _):
        mine = await run(client, "cat file")
        assert ["'t~2'" in note for note in mine["notes"]] == [True]
        assert {mine["stdout"], (await run(client, "cat file", "t~2"))["stdout"]} == {"first\n", "second\n"}


async def test_that_files_are_lost_is_said_though_the_server_that_found_it_out_was_killed(
    servers: Servers, docker_api: docker.APIClient
) -> None:
    await servers.leave_by_kill("echo kept > file")
    docker_api.remove_container(*servers.ids(docker_api), force=True)
    with suppress(BaseExceptionGroup):
        async with servers.serve() as (client, pid):
            await run(client, "true", "another")
            await servers.written("had ended with the server before this one")
            os.kill(pid, signal.SIGKILL)
    async with servers.serve() as (client, _):
        assert "the files that were in the workspace are lost" in (await run(client, "true"))["notes"][0]


#: Half of `orphan_ttl` is for a server that is started in a dead one's place, half for one that runs: each is long
#: enough for a start on a busy machine.
LATE = "24s"
IN_TIME = "60s"


async def test_a_server_takes_over_what_another_left_that_died_later_and_says_so(servers: Servers) -> None:
    servers.toml = servers.toml.replace(f"{ORPHAN_TTL}s", LATE)
    servers.keep_no_archives()
    async with servers.serve() as (living, _):
        await run(living, "echo mine > file")
        await servers.leave_by_kill("echo theirs > file", servers=2)
        # Half of the time they are left to a server that is started in its place.
        await servers.written("are in the task 't~2' now")
        after = await run(living, "cat file")
        assert (after["stdout"], ["'t~2'" in note for note in after["notes"]]) == ("mine\n", [True])
        assert (await run(living, "cat file", "t~2"))["stdout"] == "theirs\n"


async def test_a_server_takes_over_the_task_itself_when_it_had_none_of_that_name(servers: Servers) -> None:
    servers.toml = servers.toml.replace(f"{ORPHAN_TTL}s", LATE)
    async with servers.serve() as (living, _):
        await run(living, "true", "another")
        await servers.leave_by_kill("echo theirs > file")
        await servers.written('"adopted": true')
        after = await run(living, "cat file")
        assert (after["stdout"], after["notes"], after["process_id"]) == ("theirs\n", [], "p2")


async def test_a_server_that_is_started_in_a_dead_ones_place_comes_first(servers: Servers) -> None:
    servers.toml = servers.toml.replace(f"{ORPHAN_TTL}s", IN_TIME)
    servers.keep_no_archives()
    async with servers.serve() as (living, _):
        await run(living, "echo mine > file")
        await servers.leave_by_kill("echo theirs > file", servers=2)
        async with servers.serve() as (restarted, _):
            after = await run(restarted, "cat file")
            assert (after["stdout"], after["notes"]) == ("theirs\n", [])
        after = await run(living, "cat file")
        assert (after["stdout"], after["notes"]) == ("mine\n", [])


async def test_a_server_that_is_started_too_late_hands_its_calls_to_the_one_that_has_the_files(
    servers: Servers,
) -> None:
    servers.toml = servers.toml.replace(f"{ORPHAN_TTL}s", LATE)
    async with servers.serve() as (living, _):
        await run(living, "true", "another")
        await servers.leave_by_kill("echo theirs > file")
        await servers.written('"adopted": true')
        async with servers.serve() as (restarted, _):
            after = await run(restarted, "cat file")
            assert (after["stdout"], after["notes"]) == ("theirs\n", [])
        assert (await run(living, "cat file"))["stdout"] == "theirs\n"
