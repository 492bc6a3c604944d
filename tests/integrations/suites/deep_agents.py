"""LangChain's standard tests of sandboxes, on the backend that `FRAMEWORK_BACKEND` names: `run.py` runs this.

`docker`: the package deepagents-docker, for deepagents has no backend with Docker of its own. Its files are a folder of
this machine, which it does not show commands where the agent sees it; here its `/tmp` is the commands', too.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deepagents import create_deep_agent
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests.sandboxes import SandboxIntegrationTests

from observe import alive, eventually, marker
from taskcell.client.blocking import connect
from taskcell.integrations.deep_agents import TaskcellBackend
from taskcell.integrations.shared_server import shared_server

BACKEND = os.environ["FRAMEWORK_BACKEND"]
CONFIG = os.environ["FRAMEWORK_CONFIG"]
IMAGE = "taskcell/base:latest"
#: Calls of which the middle one counts.
CALLS = 15
#: Standard tests that are older than what deepagents 0.7 says of its backends, whatever their commands run in: paths of
#: `glob` are absolute, folders are not among them, and `write` overwrites.
OUTDATED = {
    "test_glob",
    "test_glob_basic_pattern",
    "test_glob_with_directories",
    "test_glob_hidden_files_explicitly",
    "test_glob_with_character_class",
    "test_glob_with_question_mark",
    "test_write_existing_file_fails",
}

pytestmark = pytest.mark.anyio
ours = pytest.mark.skipif(BACKEND == "docker", reason="is about what the adapter alone has")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def sandbox_of_module() -> Iterator[SandboxBackendProtocol]:
    if BACKEND != "docker":
        with TaskcellBackend(config=CONFIG) as backend:
            yield backend
        return
    from deepagents_docker import DockerSandbox

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "tmp").mkdir()
        words = ["-v", f"{folder}/tmp:/tmp", "--user", "0:0"]
        with DockerSandbox(image=IMAGE, shared_dir=folder, extra_run_args=words, memory="1g", cpus=2) as found:
            yield found


class TestStandard(SandboxIntegrationTests):
    @pytest.fixture(scope="class")
    def sandbox(self, sandbox_of_module: SandboxBackendProtocol) -> SandboxBackendProtocol:
        return sandbox_of_module


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Cases of our own are not counted, nor those that no backend of this deepagents can pass."""
    if request.cls is None or request.node.name in OUTDATED:
        record_property("not counted", "yes")
    if request.node.name in OUTDATED:
        request.node.add_marker(pytest.mark.xfail(raises=AssertionError, strict=BACKEND != "docker"))


def test_how_long_a_call_takes(
    sandbox_of_module: SandboxBackendProtocol, record_property: Callable[[str, object], None]
) -> None:
    taken = []
    for _ in range(CALLS):
        begun = time.monotonic()
        assert sandbox_of_module.execute("true").exit_code == 0
        taken.append(time.monotonic() - begun)
    record_property("a call", f"{statistics.median(taken) * 1000:.0f} ms")


def test_a_time_out_leaves_no_process(
    sandbox_of_module: SandboxBackendProtocol, record_property: Callable[[str, object], None]
) -> None:
    mark = marker()
    assert sandbox_of_module.execute(f"setsid sleep {mark} & sleep {mark}", timeout=2).exit_code == 124
    are_gone = eventually(lambda: not alive(mark))
    record_property("alive after a time-out", len(alive(mark)))
    assert are_gone


def test_every_byte_of_a_file_comes_back(
    sandbox_of_module: SandboxBackendProtocol, record_property: Callable[[str, object], None]
) -> None:
    data, path = bytes(range(256)) * 5000, "/tmp/every byte\n"
    sandbox_of_module.upload_files([(path, data)])
    [found] = sandbox_of_module.download_files([path])
    record_property("bytes exact", "yes" if found.content == data else "no")
    assert found.content == data


@ours
def test_globs_are_absolute_and_writes_overwrite(sandbox_of_module: SandboxBackendProtocol) -> None:
    for content in ("first", "second"):
        assert sandbox_of_module.write("/workspace/globs/a.py", content).error is None
    assert sandbox_of_module.execute("cat globs/a.py").output == "second"
    found = sandbox_of_module.glob("*.py", path="/workspace/globs").matches
    assert [one["path"] for one in found or []] == ["/workspace/globs/a.py"]


@ours
def test_both_streams_come_in_the_order_in_which_they_were_written(sandbox_of_module: SandboxBackendProtocol) -> None:
    wanted = "".join(f"out{i}\nerr{i}\n" for i in range(1, 201))
    assert sandbox_of_module.execute("for i in $(seq 200); do echo out$i; echo err$i >&2; done").output == wanted


@ours
def test_a_time_out_keeps_the_output_so_far(sandbox_of_module: SandboxBackendProtocol) -> None:
    answer = sandbox_of_module.execute("echo before; sleep 60", timeout=2)
    assert answer.output == (
        "before\n\nError: The command was killed after 2 seconds, with everything that it started."
    )
    assert sandbox_of_module.execute("echo after").output == "after\n"


@ours
def test_of_endless_output_the_end_is_kept(
    sandbox_of_module: SandboxBackendProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskcell.integrations.deep_agents.OUTPUT_LIMIT", 1000)
    answer = sandbox_of_module.execute("head -c 9000000 /dev/zero; seq 200; exit 3")
    assert (len(answer.output), answer.exit_code, answer.truncated) == (1000, 3, True)
    assert answer.output.endswith("199\n200\n")


@ours
def test_what_cannot_run_is_an_answer(sandbox_of_module: SandboxBackendProtocol) -> None:
    assert sandbox_of_module.execute("surely-not-there").exit_code == 127
    too_long = sandbox_of_module.execute(f": {'x' * (200 << 10)}")
    assert too_long.exit_code == 1
    assert "131071 bytes" in too_long.output
    with pytest.raises(ValueError, match="-1"):
        sandbox_of_module.execute("true", timeout=-1)


@ours
async def test_a_call_that_is_cancelled_has_its_command_killed(sandbox_of_module: SandboxBackendProtocol) -> None:
    mark = marker()
    call = asyncio.create_task(sandbox_of_module.aexecute(f"sleep {mark}"))
    assert await asyncio.to_thread(eventually, lambda: bool(alive(mark)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(eventually, lambda: not alive(mark))


@ours
def test_files_that_cannot_be_had_have_words_of_deepagents(sandbox_of_module: SandboxBackendProtocol) -> None:
    paths = ["/workspace/a", "/usr/own", "/workspace", "relative", "/workspace/a/below", "/tmp/a\0b"]
    written = sandbox_of_module.upload_files([(path, b"x") for path in paths])
    assert [found.error for found in written[:4]] == [None, "permission_denied", "is_directory", "invalid_path"]
    assert "File exists" in str(written[4].error)
    assert written[5].error == "invalid_path"
    read = sandbox_of_module.download_files(["/workspace/a", "/workspace", "/not/there", "a"])
    assert [found.error for found in read] == [None, "is_directory", "file_not_found", "invalid_path"]


@ours
def test_a_backend_that_nobody_holds_closes_its_task() -> None:
    with connect(door=shared_server(CONFIG)) as cell:
        found = TaskcellBackend(config=CONFIG)
        task = found.id
        found.execute("true")
        assert task in [one.id for one in cell.tasks()]
        del found
        assert eventually(lambda: task not in [one.id for one in cell.tasks()])


@ours
def test_a_task_that_was_there_before_is_gone_on_with_and_stays() -> None:
    with TaskcellBackend(config=CONFIG) as first:
        first.write("/workspace/file", "there\n")
        with TaskcellBackend(config=CONFIG, task_id=first.id) as second:
            assert second.execute("cat file").output == "there\n"
        assert first.execute("cat file").output == "there\n"


@ours
def test_a_setting_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="imagee"):
        TaskcellBackend(imagee="x")


class ModelOfSteps(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self


@ours
def test_an_agent_writes_edits_and_runs_a_program() -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("write_file", {"file_path": "/workspace/double.py", "content": "print(4 + 4 + 1)\n"}),
        ("edit_file", {"file_path": "/workspace/double.py", "old_string": " + 1", "new_string": ""}),
        ("execute", {"command": "python3 double.py"}),
    ]
    steps = [
        AIMessage("", tool_calls=[{"name": name, "args": about, "id": f"call-{number}"}])
        for number, (name, about) in enumerate(calls)
    ]
    with TaskcellBackend(config=CONFIG) as backend:
        agent = create_deep_agent(model=ModelOfSteps(messages=iter([*steps, AIMessage("done")])), backend=backend)
        found = agent.invoke({"messages": [{"role": "user", "content": "Mend it."}]})
    said = [message.text for message in found["messages"]]
    assert said[-1] == "done"
    assert said[-2].splitlines()[0] == "8", said
