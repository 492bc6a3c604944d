"""What a conversation of OpenHands and its users do with a workspace, on the backend that `FRAMEWORK_BACKEND` names.

OpenHands' packages bring no tests but one program, which is a case here; the others are what its documentation and its
own agents call. `docker`: its `DockerWorkspace`, with the same image. `run.py` runs this.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openhands.workspace
import pytest
from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.sdk.conversation import ConversationExecutionStatus
from openhands.sdk.utils.command import execute_command
from openhands.sdk.workspace import RemoteWorkspace
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.terminal import TerminalTool
from openhands.workspace import DockerWorkspace
from openhands.workspace.docker import workspace as docker_workspace
from pydantic import SecretStr

from observe import alive, eventually, marker
from taskcell.client.blocking import connect
from taskcell.client.failures import CellError
from taskcell.integrations.open_hands import TaskcellWorkspace
from taskcell.integrations.shared_server import shared_server

BACKEND = os.environ["FRAMEWORK_BACKEND"]
CONFIG = os.environ["FRAMEWORK_CONFIG"]
PROGRAM = os.environ["FRAMEWORK_TASKCELL"]
#: `scripts/openhands_image.sh` builds it.
IMAGE = "taskcell-test/openhands:latest"
CALLS = 15
#: Seconds for an agent server to start: it imports for minutes on a busy machine.
START_TIMEOUT = 240.0
#: Seconds for a command of a workspace that ends by itself.
COMMAND_TIMEOUT = 60.0

#: A server that answers everything with 200, for what is not about the agent server.
READY = (
    "exec python3 -c 'import http.server as h\n"
    "class H(h.BaseHTTPRequestHandler):\n"
    "    def do_GET(self): self.send_response(200); self.end_headers()\n"
    'h.HTTPServer(("127.0.0.1", 8000), H).serve_forever()\''
)

ours = pytest.mark.skipif(BACKEND == "docker", reason="is about what the adapter alone has")


def without_ulimit(words: list[str]) -> Any:
    """Run a command of docker without the limit of open files that DockerWorkspace asks for: not every machine may."""
    at = words.index("--ulimit") if "--ulimit" in words else len(words)
    return execute_command([*words[:at], *words[at + 2 :]])


def opened(**more: Any) -> Any:
    if BACKEND == "docker":
        docker_workspace.execute_command = without_ulimit
        return DockerWorkspace(server_image=IMAGE, detach_logs=False, health_check_timeout=START_TIMEOUT)
    about = {"config": CONFIG, "program": PROGRAM, "environment": "openhands", "start_timeout": START_TIMEOUT}
    return TaskcellWorkspace(**{**about, **more})


@pytest.fixture(scope="module")
def workspace() -> Iterator[RemoteWorkspace]:
    # For its own workspace, which binds the server to all addresses of its container.
    os.environ["OH_SESSION_API_KEYS_0"] = "of this test"
    with opened() as found:
        yield found


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Cases about the adapter alone are not counted."""
    if request.node.get_closest_marker("skipif") is not None:
        record_property("not counted", "yes")


def run(workspace: Any, command: str, **more: Any) -> Any:
    return workspace.execute_command(command, **{"timeout": COMMAND_TIMEOUT, **more})


def in_repository(workspace: Any, name: str) -> str:
    """Make a repository with one commit, a changed file and a new one; return its path."""
    line = (
        f"git init -q {name} && cd {name} && git config user.email a@b.example && git config user.name a"
        " && echo one > old && git add old && git commit -qm first && echo two >> old && echo new > new"
    )
    assert run(workspace, line, cwd="/workspace").exit_code == 0
    return f"/workspace/{name}"


# --- as its documentation has it ---------------------------------------------------------------------------------


def test_a_command_has_its_exit_code_and_streams_apart(workspace: RemoteWorkspace) -> None:
    done = run(workspace, "echo out; echo err >&2; exit 3")
    assert (done.exit_code, done.stdout, done.stderr, done.timeout_occurred) == (3, "out\n", "err\n", False)


def test_a_command_is_a_line_of_a_shell_in_a_folder(workspace: RemoteWorkspace) -> None:
    assert run(workspace, "mkdir -p a/b && cd a && pwd | tr a-z A-Z", cwd="/workspace").stdout == "/WORKSPACE/A\n"
    assert run(workspace, "pwd", cwd="/workspace/a/b").stdout == "/workspace/a/b\n"


def test_much_output_comes_whole(workspace: RemoteWorkspace) -> None:
    assert run(workspace, "seq 200000").stdout.splitlines() == [str(number) for number in range(1, 200001)]


def test_a_command_that_takes_too_long_says_so(workspace: RemoteWorkspace) -> None:
    done = run(workspace, "echo before; sleep 60", timeout=2)
    assert (done.exit_code, done.timeout_occurred) == (-1, True)
    assert "timed out" in done.stderr


def test_a_command_runs_on_in_the_background_and_is_stopped(workspace: RemoteWorkspace) -> None:
    mark = marker()
    started = workspace.start_command(f"echo begun; sleep {mark}", timeout=600)
    assert eventually(lambda: bool(alive(mark)))
    workspace.stop_command(started)
    assert eventually(lambda: not alive(mark))


def test_the_output_of_one_in_the_background_is_had(workspace: RemoteWorkspace) -> None:
    started = workspace.start_command("echo done", timeout=60)

    def said() -> dict[str, Any]:
        return workspace.get_command_output(started) or {}

    assert eventually(lambda: said().get("exit_code") == 0)
    assert said()["stdout"] == "done\n"


def test_a_file_goes_in_and_comes_out(workspace: RemoteWorkspace, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "deep" / "back"
    here.write_text("of this machine\n")
    assert workspace.file_upload(here, "/workspace/in/there").success
    assert run(workspace, "cat in/there", cwd="/workspace").stdout == "of this machine\n"
    found = workspace.file_download("/workspace/in/there", back)
    assert (found.success, found.file_size, back.read_text()) == (True, 16, "of this machine\n")


def test_a_file_that_is_not_there_is_an_answer(workspace: RemoteWorkspace, tmp_path: Path) -> None:
    found = workspace.file_download("/workspace/missing", tmp_path / "missing")
    assert not found.success
    assert found.error
    assert not workspace.file_upload(tmp_path / "missing", "/workspace/missing").success


def test_files_lie_outside_of_the_workspace_too(workspace: RemoteWorkspace, tmp_path: Path) -> None:
    assert workspace.file_upload(b"bytes", "/tmp/some folder/it's").success
    assert workspace.file_download("/tmp/some folder/it's", tmp_path / "back").success
    assert (tmp_path / "back").read_bytes() == b"bytes"


def test_changes_of_a_repository(workspace: RemoteWorkspace) -> None:
    path = in_repository(workspace, "changes")
    found = {str(change.path): change.status.value for change in workspace.git_changes(path)}
    assert found == {"old": "UPDATED", "new": "ADDED"}
    diff = workspace.git_diff(f"{path}/old")
    assert (diff.original, diff.modified) == ("one", "one\ntwo")


def test_the_server_says_who_it_is(workspace: RemoteWorkspace) -> None:
    assert workspace.alive
    assert workspace.get_server_info()["title"] == "OpenHands Agent Server"


def test_nobody_works_there_without_the_key(workspace: RemoteWorkspace) -> None:
    answer = httpx.post(f"{workspace.host}/api/bash/start_bash_command", json={"command": "true"}, trust_env=False)
    assert answer.status_code == 401


# --- its own program, and a conversation -------------------------------------------------------------------------


def test_its_own_smoke_test(workspace: RemoteWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims a workspace, pauses it and goes on; its name for the workspace stands for the backend's here."""

    class Claimed:
        def __enter__(self) -> RemoteWorkspace:
            return workspace

        def __exit__(self, *about: object) -> None:
            """The module's other tests go on with it."""

    monkeypatch.setattr(openhands.workspace, "AgentSandboxWorkspace", lambda **about: Claimed(), raising=False)
    path = Path(openhands.workspace.__file__).parent / "agent_sandbox" / "testing" / "smoke_test.py"
    runpy.run_path(str(path), run_name="__main__")


def example() -> Any:
    path = Path(__file__).resolve().parents[3] / "examples" / "open_hands.py"
    spec = importlib.util.spec_from_file_location("open_hands", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_agent_repairs_a_program_with_its_own_tools(workspace: RemoteWorkspace) -> None:
    import json

    found = example()
    assert workspace.file_upload(found.MODEL.encode(), "/tmp/model.py").success
    assert workspace.file_upload(json.dumps(found.STEPS).encode(), "/tmp/steps.json").success
    model = workspace.start_command('exec python3 /tmp/model.py "$(cat /tmp/steps.json)"', timeout=600)
    llm = LLM(model="openai/scripted", base_url="http://127.0.0.1:8100/v1", api_key=SecretStr("none"))
    agent = Agent(llm=llm, tools=[Tool(name=FileEditorTool.name), Tool(name=TerminalTool.name)])
    conversation = Conversation(agent=agent, workspace=workspace, visualizer=None)
    try:
        conversation.send_message("double(4) is 9. Repair it.")
        conversation.run()
        assert conversation.state.execution_status == ConversationExecutionStatus.FINISHED
    finally:
        conversation.close()
        workspace.stop_command(model)
    assert run(workspace, "python3 -c 'import double; print(double.double(4))'", cwd="/workspace").stdout == "8\n"


# --- figures -----------------------------------------------------------------------------------------------------


def test_how_long_a_call_takes(workspace: RemoteWorkspace, record_property: Callable[[str, object], None]) -> None:
    taken = []
    for _ in range(CALLS):
        begun = time.monotonic()
        assert run(workspace, "true").exit_code == 0
        taken.append(time.monotonic() - begun)
    record_property("not counted", "yes")
    record_property("a call", f"{statistics.median(taken) * 1000:.0f} ms")


def test_a_time_out_leaves_no_process(
    workspace: RemoteWorkspace, record_property: Callable[[str, object], None]
) -> None:
    mark = marker()
    assert run(workspace, f"setsid sleep {mark} & sleep {mark}", timeout=2).timeout_occurred
    are_gone = eventually(lambda: not alive(mark))
    record_property("alive after a time-out", len(alive(mark)))
    assert are_gone


def test_every_byte_of_a_file_comes_back(
    workspace: RemoteWorkspace, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    data, back = bytes(range(256)) * 5000, tmp_path / "back"
    assert workspace.file_upload(data, "/workspace/every byte").success
    assert workspace.file_download("/workspace/every byte", back).success
    record_property("bytes exact", "yes" if back.read_bytes() == data else "no")
    assert back.read_bytes() == data


# --- the adapter alone -------------------------------------------------------------------------------------------


@ours
def test_a_pause_ends_the_agent_server_and_keeps_the_task() -> None:
    mark = marker()
    with opened(agent_server=["sh", "-c", f"sleep {mark} & {READY}", "sh"]) as own:
        assert eventually(lambda: len(alive(mark)) == 1)
        own.pause()
        own.pause()
        assert not own.alive
        assert eventually(lambda: not alive(mark))
        assert own.execute_command("echo still there").stdout == "still there\n"
        own.resume()
        own.resume()
        assert own.alive
        assert eventually(lambda: len(alive(mark)) == 1)


@ours
def test_what_does_not_become_ready_says_why_and_leaves_nothing() -> None:
    with pytest.raises(RuntimeError, match=r"has ended: .*no such image program"):
        opened(agent_server=["sh", "-c", "echo no such image program >&2; exit 3", "sh"])
    with pytest.raises(RuntimeError, match="not ready within 2 s: only this"):
        opened(agent_server=["sh", "-c", "echo only this; exec sleep 600", "sh"], start_timeout=2)
    with pytest.raises(CellError, match="'environment' must be one of"):
        opened(environment="no-such-environment")
    with connect(door=shared_server(CONFIG, PROGRAM)) as cell:
        assert sum(task.id.startswith("openhands-") for task in cell.tasks()) <= 1  # this module's


@ours
def test_its_end_closes_the_task_and_its_words_hold_no_secret(workspace: TaskcellWorkspace) -> None:
    mark = marker()
    door = shared_server(CONFIG, PROGRAM)
    own = opened(agent_server=["sh", "-c", f"sleep {mark} & {READY}", "sh"])
    name = own.task.id
    assert str(own.api_key) not in repr(own) + str(own)
    assert eventually(lambda: bool(alive(mark)))
    with pytest.raises(ZeroDivisionError), own:
        raise ZeroDivisionError
    assert eventually(lambda: not alive(mark))
    own.cleanup()
    with pytest.raises(RuntimeError, match="cleaned up"):
        own.execute_command("true")
    with connect(door=door) as cell:
        assert name not in [task.id for task in cell.tasks()]


@ours
def test_a_task_that_was_there_stays(workspace: TaskcellWorkspace) -> None:
    with connect(door=shared_server(CONFIG, PROGRAM)) as cell:
        task = cell.open("kept-for-openhands", environment="openhands")
        with opened(task_id=task.id, environment=None, agent_server=["sh", "-c", READY, "sh"]) as own:
            assert own.file_upload(b"kept", "kept").success
        assert task.run("cat kept").stdout == b"kept"
        task.close()


@ours
def test_variables_are_those_of_the_agent_server_and_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED", "from here")
    words = ["sh", "-c", f'echo "$FORWARDED $GIVEN" > /tmp/said; {READY}', "sh"]
    with opened(agent_server=words, forward_env=["FORWARDED", "MISSING"], env={"GIVEN": "given"}) as own:
        assert own.execute_command('cat /tmp/said; echo "$FORWARDED $GIVEN"').stdout == "from here given\n" * 2


def test_nothing_of_docker_is_left() -> None:
    """The last: its own workspace is stopped with the module."""
    listed = subprocess.run(["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    assert sum(name.startswith("agent-server-") for name in listed.stdout.split()) <= 1
