"""SWE-ReX's own tests of runtimes, on the backend that `FRAMEWORK_BACKEND` names: `run.py` runs this.

They come with its source package, without the fixtures that they need. They look at the files of a runtime from this
machine; so a folder of it is mounted in the sandbox, at the same path.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tarfile
import time
import types
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from swerex.deployment.docker import DockerDeployment
from swerex.exceptions import (
    BashIncorrectSyntaxError,
    CommandTimeoutError,
    DeploymentNotStartedError,
    DeploymentStartupError,
    SessionDoesNotExistError,
    SessionExistsError,
    SessionNotInitializedError,
    SwerexException,
)
from swerex.runtime.abstract import (
    AbstractRuntime,
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
    WriteFileRequest,
)

from observe import alive, eventually, marker
from taskcell.client.blocking import connect
from taskcell.integrations.shared_server import shared_server
from taskcell.integrations.swe_rex import TaskcellDeployment, TaskcellDeploymentConfig

BACKEND = os.environ["FRAMEWORK_BACKEND"]
CONFIG = os.environ["FRAMEWORK_CONFIG"]
#: A folder that the sandbox has at the same path.
SHARED = Path(os.environ["FRAMEWORK_SHARED"])
#: Where its source package is kept from run to run, and its server's image is made of.
HOME = Path(sys.prefix)
IMAGE = "taskcell-test/swe-rex:latest"
CALLS = 15
#: Seconds to fetch the source package, and to build the image.
FETCH_TIMEOUT = 300
#: Seconds for one action of the tests, whose own is 5: a busy machine.
ACTION_TIMEOUT = 20.0
#: One asks for the name of a machine that there is not; the other is expected to fail by SWE-ReX itself.
NOT_ABOUT_RUNTIMES = {"test_server_dead", "test_run_in_shell_multiple_interactive_and_normal_commands"}

ours = pytest.mark.skipif(BACKEND == "docker", reason="is about what the adapter alone has")


def fetched_tests() -> types.ModuleType:
    """The module of its tests, from its source package."""
    folder = HOME / "sdist"
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    if not list(folder.glob("*.tar.gz")):
        subprocess.run([*words, "-d", str(folder), f"swe-rex=={version('swe-rex')}"], timeout=FETCH_TIMEOUT, check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    conftest: Any = types.ModuleType("rex_tests.conftest")
    conftest._Action = type(
        "_Action", (BashAction,), {"__annotations__": {"timeout": float | None}, "timeout": ACTION_TIMEOUT}
    )
    conftest._Command = type(
        "_Command", (Command,), {"__annotations__": {"timeout": float | None}, "timeout": ACTION_TIMEOUT}
    )
    package = types.ModuleType("rex_tests")
    package.__path__ = []
    sys.modules |= {"rex_tests": package, "rex_tests.conftest": conftest}
    path = next(folder.glob("*/tests/test_execution.py"))
    spec = spec_from_file_location("rex_tests.test_execution", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


globals().update({name: test for name, test in vars(fetched_tests()).items() if name.startswith("test_")})


def built_image() -> None:
    """Build the image that has SWE-ReX's server, from packages that pip fetches here."""
    folder = HOME / "image"
    folder.mkdir(exist_ok=True)
    target = ["--target", str(folder / "packages"), "--python-version", "3.11", "--only-binary", ":all:"]
    if not (folder / "packages").exists():
        words = [sys.executable, "-m", "pip", "install", "-q", *target, f"swe-rex=={version('swe-rex')}", "aiohttp"]
        subprocess.run(words, timeout=FETCH_TIMEOUT, check=True)
    (folder / "swerex-remote").write_text('#!/bin/sh\nPYTHONPATH=/opt/rex exec python3 -m swerex.server "$@"\n')
    (folder / "swerex-remote").chmod(0o755)
    (folder / "Dockerfile").write_text(
        "FROM taskcell/base:latest\nUSER root\nCOPY packages /opt/rex\nCOPY swerex-remote /usr/local/bin/\n"
    )
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, str(folder)], timeout=FETCH_TIMEOUT, check=True)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def deployment(anyio_backend: str) -> AsyncIterator[Any]:
    found: Any = TaskcellDeployment(config=CONFIG, environment="shared")
    if BACKEND == "docker":
        built_image()
        found = DockerDeployment(image=IMAGE, pull="never", docker_args=["-v", f"{SHARED}:{SHARED}"])
    await found.start()
    if BACKEND == "docker":
        found.runtime._config.timeout = 60.0
    yield found
    await found.stop()


@pytest.fixture
def remote_runtime(deployment: Any) -> AbstractRuntime:
    runtime: AbstractRuntime = deployment.runtime
    return runtime


@pytest.fixture
async def runtime_with_default_session(remote_runtime: AbstractRuntime) -> AsyncIterator[AbstractRuntime]:
    await remote_runtime.create_session(CreateBashSessionRequest(startup_timeout=ACTION_TIMEOUT))
    yield remote_runtime
    await remote_runtime.close_session(CloseBashSessionRequest())


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Path:
    found = SHARED / f"{request.node.name}-{time.time_ns()}"
    found.mkdir()
    found.chmod(0o777)
    return found


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Cases of our own are not counted."""
    if request.function.__module__ == __name__ or request.node.name in NOT_ABOUT_RUNTIMES:
        record_property("not counted", "yes")


async def said(runtime: AbstractRuntime, command: str, **more: Any) -> Any:
    return await runtime.run_in_session(BashAction(command=command, **{"timeout": ACTION_TIMEOUT, **more}))


async def test_how_long_a_call_takes(
    runtime_with_default_session: AbstractRuntime, record_property: Callable[[str, object], None]
) -> None:
    taken = []
    for _ in range(CALLS):
        begun = time.monotonic()
        await said(runtime_with_default_session, "true")
        taken.append(time.monotonic() - begun)
    record_property("a call", f"{statistics.median(taken) * 1000:.0f} ms")


async def test_a_time_out_leaves_no_process(
    remote_runtime: AbstractRuntime, record_property: Callable[[str, object], None]
) -> None:
    mark = marker()
    command = ["bash", "-c", f"setsid sleep {mark} & sleep {mark}"]
    with pytest.raises(CommandTimeoutError):
        await remote_runtime.execute(Command(command=command, timeout=2))
    are_gone = await asyncio.to_thread(eventually, lambda: not alive(mark))
    record_property("alive after a time-out", len(alive(mark)))
    assert are_gone


async def test_every_byte_of_a_file_comes_back(
    remote_runtime: AbstractRuntime, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """By the two ways that there are: a file of this machine in, and text in an encoding of one byte each out."""
    data, target = bytes(range(256)) * 5000, "/tmp/every byte"
    (tmp_path / "given").write_bytes(data)
    await remote_runtime.upload(UploadRequest(source_path=str(tmp_path / "given"), target_path=target))
    found = await remote_runtime.read_file(ReadFileRequest(path=target, encoding="latin-1"))
    are_exact = found.content.encode("latin-1") == data
    record_property("bytes exact", "yes" if are_exact else "no")
    assert are_exact


@ours
async def test_a_command_over_the_length_of_a_terminal_s_line_is_run_whole(
    runtime_with_default_session: AbstractRuntime,
) -> None:
    found = await said(runtime_with_default_session, f"printf %s {'x' * 100_000} | wc -c")
    assert found.output == "100000\n"


@ours
async def test_what_a_command_sets_is_there_for_the_next(runtime_with_default_session: AbstractRuntime) -> None:
    await said(runtime_with_default_session, "cd /usr; f() { echo f$1; }; A=1; umask 027; set -o noclobber")
    found = await said(runtime_with_default_session, "pwd; f 2; echo $A; umask; [[ -o noclobber ]]; echo $?")
    assert found.output == "/usr\nf2\n1\n0027\n0\n"
    await said(runtime_with_default_session, "false", check="silent")
    assert (await said(runtime_with_default_session, "echo $?")).output == "1\n"


@ours
async def test_a_command_that_prints_a_prompt_or_a_report_does_not_end_itself(
    runtime_with_default_session: AbstractRuntime,
) -> None:
    command = "echo \"${PS1@P}\"; echo '1 0 1' >&251; sleep 0.2; echo still; exit_code() { return 3; }; exit_code"
    found = await said(runtime_with_default_session, command, check="silent")
    assert found.exit_code in {0, 3}
    assert (await said(runtime_with_default_session, "echo next")).output.endswith("next\n")


@ours
async def test_a_shell_that_ends_under_its_command_says_so_and_can_be_made_anew(
    remote_runtime: AbstractRuntime,
) -> None:
    await remote_runtime.create_session(CreateBashSessionRequest(session="short"))
    with pytest.raises(SessionExistsError):
        await remote_runtime.create_session(CreateBashSessionRequest(session="short"))
    with pytest.raises(SessionNotInitializedError, match=r"'short' has ended .*last words"):
        await said(remote_runtime, "echo last words; exit 3", session="short")
    with pytest.raises(SessionDoesNotExistError):
        await said(remote_runtime, "true", session="short")
    await remote_runtime.create_session(CreateBashSessionRequest(session="short"))
    assert (await said(remote_runtime, "echo here", session="short")).output == "here\n"


@ours
async def test_files_are_read_before_the_first_command(remote_runtime: AbstractRuntime) -> None:
    await remote_runtime.write_file(WriteFileRequest(path="/tmp/rc", content="PS1='mine> '; echo read; G=2\n"))
    request = CreateBashSessionRequest(session="rc", startup_source=["/tmp/rc"], startup_timeout=ACTION_TIMEOUT)
    assert (await remote_runtime.create_session(request)).output == "read\n"
    assert (await said(remote_runtime, "echo $G", session="rc")).output == "2\n"


@ours
async def test_a_command_meanwhile_is_an_error_and_input_is_not(runtime_with_default_session: AbstractRuntime) -> None:
    with pytest.raises(CommandTimeoutError):
        await said(runtime_with_default_session, "read -r x; echo got $x", timeout=0.5)
    with pytest.raises(SwerexException, match="still runs"):
        await said(runtime_with_default_session, "true")
    found = await said(runtime_with_default_session, "word", is_interactive_command=True)
    assert found.output == "got word"
    assert (await said(runtime_with_default_session, "echo $x")).output == "word\n"


@ours
async def test_of_two_commands_at_once_one_runs_and_a_wrong_one_leaves_the_shell_free(
    runtime_with_default_session: AbstractRuntime,
) -> None:
    both = [said(runtime_with_default_session, "sleep 1; echo ran") for _ in range(2)]
    found = await asyncio.gather(*both, return_exceptions=True)
    assert [one.output for one in found if not isinstance(one, BaseException)] == ["ran\n"]
    assert [type(one) for one in found if isinstance(one, BaseException)] == [SwerexException]
    with pytest.raises(BashIncorrectSyntaxError):
        await said(runtime_with_default_session, "(a")
    assert (await said(runtime_with_default_session, "echo next")).output == "next\n"


@ours
async def test_a_program_that_takes_neither_interrupt_nor_stop_is_killed(
    runtime_with_default_session: AbstractRuntime,
) -> None:
    mark = marker()
    with pytest.raises(CommandTimeoutError):
        await said(runtime_with_default_session, f"(trap '' INT TSTP; sleep {mark}; sleep {mark})", timeout=1)
    await runtime_with_default_session.run_in_session(BashInterruptAction())
    assert await asyncio.to_thread(eventually, lambda: not alive(mark))
    assert (await said(runtime_with_default_session, "echo next")).output.startswith("next\n")


@ours
async def test_a_session_that_is_closed_leaves_no_process(remote_runtime: AbstractRuntime) -> None:
    mark = marker()
    await remote_runtime.create_session(CreateBashSessionRequest(session="left"))
    await said(remote_runtime, f"setsid sleep {mark} &", session="left")
    await remote_runtime.close_session(CloseBashSessionRequest(session="left"))
    assert await asyncio.to_thread(eventually, lambda: not alive(mark))


@ours
async def test_a_tree_goes_into_the_workspace_and_elsewhere_alike(
    remote_runtime: AbstractRuntime, tmp_path: Path
) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree/inner/run").chmod(0o755)
    (tmp_path / "tree/link").symlink_to("inner/run")
    for target in ("/workspace/given", "/tmp/below/given"):
        await remote_runtime.upload(UploadRequest(source_path=str(tmp_path / "tree"), target_path=target))
        assert (await remote_runtime.execute(Command(command=[f"{target}/link"]))).stdout == "ran\n"
    with pytest.raises(FileNotFoundError):
        await remote_runtime.upload(UploadRequest(source_path="/not/there", target_path="/tmp/x"))
    with pytest.raises(PermissionError):
        await remote_runtime.upload(UploadRequest(source_path=str(tmp_path / "tree"), target_path="/usr/own"))


@ours
async def test_a_deployment_that_is_not_started_says_so_and_its_task_ends_with_it() -> None:
    found = TaskcellDeploymentConfig(config=CONFIG).get_deployment()
    with pytest.raises(DeploymentNotStartedError):
        await found.is_alive()
    await found.start()
    assert await found.is_alive()
    task = found.runtime.task.id
    with connect(door=shared_server(CONFIG)) as cell:
        assert task in [one.id for one in cell.tasks()]
        await found.stop()
        assert task not in [one.id for one in cell.tasks()]
    with pytest.raises(DeploymentStartupError, match="must be one of"):
        await TaskcellDeployment(config=CONFIG, environment="no-such").start()
