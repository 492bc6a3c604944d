"""Inspect's self-check of sandbox providers, on the backend that `FRAMEWORK_BACKEND` names: `run.py` runs this.

`docker`: Inspect's own provider, which needs Compose 2. `sudo`: the adapter, with a profile that has sudo.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.util import SandboxEnvironment, SandboxUserUnsupportedError, override_sandbox_output_limit, sandbox
from inspect_ai.util._sandbox.docker.docker import DockerSandboxEnvironment
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from observe import alive, eventually, marker
from taskcell.integrations.inspect_sandbox import TaskcellSandbox, TaskcellSandboxConfig

BACKEND = os.environ["FRAMEWORK_BACKEND"]
CONFIG = os.environ["FRAMEWORK_CONFIG"]
#: CHOWN, FOWNER, KILL, SETGID, SETUID and AUDIT_WRITE, which sudo needs; DAC_OVERRIDE and FSETID by `cap_add`.
SUDO_CAPABILITIES = 0x200000FB
#: Calls of which the middle one counts.
CALLS = 15
COMPOSE = (
    "services:\n  default:\n    image: taskcell/base:latest\n    command: sleep infinity\n    network_mode: none\n"
)

pytestmark = pytest.mark.anyio
ours = pytest.mark.skipif(BACKEND == "docker", reason="is about what the adapter alone has")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def sandbox_env(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SandboxEnvironment]:
    provider: type[SandboxEnvironment]
    config: Any
    if BACKEND == "docker":
        provider, config = DockerSandboxEnvironment, str(tmp_path_factory.mktemp("compose") / "compose.yaml")
        Path(config).write_text(COMPOSE)
    else:
        provider, config = TaskcellSandbox, TaskcellSandboxConfig(config=CONFIG)
        if BACKEND == "sudo":
            config = config.model_copy(update={"environment": "sudo"})
    await provider.task_init("self-check", config)
    made = await provider.sample_init("self-check", config, {})
    yield made["default"]
    await provider.sample_cleanup("self-check", config, made, False)
    await provider.task_cleanup("self-check", config, True)


async def test_how_long_a_call_takes(
    sandbox_env: SandboxEnvironment, record_property: Callable[[str, object], None]
) -> None:
    taken = []
    for _ in range(CALLS):
        begun = time.monotonic()
        assert (await sandbox_env.exec(["true"])).success
        taken.append(time.monotonic() - begun)
    record_property("a call", f"{statistics.median(taken) * 1000:.0f} ms")


async def test_a_time_out_leaves_no_process(
    sandbox_env: SandboxEnvironment, record_property: Callable[[str, object], None]
) -> None:
    mark = marker()
    with pytest.raises(TimeoutError):
        await sandbox_env.exec(["bash", "-c", f"setsid sleep {mark} & sleep {mark}"], timeout=2)
    are_gone = eventually(lambda: not alive(mark))
    record_property("alive after a time-out", len(alive(mark)))
    assert are_gone


async def test_every_byte_of_a_file_comes_back(
    sandbox_env: SandboxEnvironment, record_property: Callable[[str, object], None]
) -> None:
    data = bytes(range(256)) * 5000
    await sandbox_env.write_file("every byte\n", data)
    found = await sandbox_env.read_file("every byte\n", text=False)
    record_property("bytes exact", "yes" if found == data else "no")
    assert found == data


@ours
async def test_of_output_over_the_limit_the_end_is_kept(sandbox_env: SandboxEnvironment) -> None:
    with override_sandbox_output_limit(1000, "exec"):
        result = await sandbox_env.exec(["bash", "-c", "head -c 9000000 /dev/zero; seq 200; exit 3"])
    assert (len(result.stdout), result.returncode) == (1000, 3)
    assert result.stdout.endswith("199\n200\n")


@ours
async def test_a_time_out_has_the_output_so_far(sandbox_env: SandboxEnvironment) -> None:
    with pytest.raises(TimeoutError) as found:
        await sandbox_env.exec(["sh", "-c", "echo before; sleep 60"], timeout=2)
    assert found.value.truncated_output == "before\n"  # type: ignore[attr-defined]


@ours
async def test_a_program_that_is_not_there_is_a_result(sandbox_env: SandboxEnvironment) -> None:
    result = await sandbox_env.exec(["surely-not-there"])
    assert (result.success, result.returncode) == (False, 127)
    assert "surely-not-there" in result.stderr
    assert (await sandbox_env.exec(["true"], cwd="/not/there")).returncode == 127
    too_long = await sandbox_env.exec(["true", "x" * (200 << 10)], timeout=60)
    assert (too_long.returncode, "too long" in too_long.stderr) == (126, True)


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Cases of our own are not counted. One of Inspect's cannot hold without sudo: it makes a user, as root."""
    if request.function.__module__ == __name__:
        record_property("not counted", "yes")
    if BACKEND == "taskcell" and request.node.originalname == "test_exec_as_user":
        request.node.add_marker(pytest.mark.xfail(raises=SandboxUserUnsupportedError, strict=True))


@pytest.mark.skipif(BACKEND != "taskcell", reason="is about a profile without sudo")
async def test_users_of_the_image_are_those_that_the_policy_allows_and_never_root(
    sandbox_env: SandboxEnvironment,
) -> None:
    for user in ("root", "daemon"):
        with pytest.raises(SandboxUserUnsupportedError, match=user):
            await sandbox_env.exec(["true"], user=user)
    await sandbox_env.write_file("given", "to both")
    found = await sandbox_env.exec(["sh", "-c", "id -un; cat given; echo own > own"], user="nobody")
    assert (found.stdout, found.success) == ("nobody\nto both", True), found.stderr
    assert await sandbox_env.read_file("own") == "own\n"


@pytest.mark.skipif(BACKEND != "sudo", reason="is about a profile with sudo")
async def test_all_but_what_sudo_needs_stays_of_the_hardening(sandbox_env: SandboxEnvironment) -> None:
    """No privilege until root is asked for, and then eight capabilities; all else holds for root, too."""
    for name, capabilities in ((None, 0), ("root", SUDO_CAPABILITIES)):
        status = await sandbox_env.exec(["cat", "/proc/self/status"], user=name)
        fields = dict(line.split(":\t", 1) for line in status.stdout.splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == capabilities
        assert int(fields["CapBnd"], 16) == SUDO_CAPABILITIES
        assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "0")
    refused = ("mount -t tmpfs x /mnt", "unshare -U true", "mknod /tmp/d b 8 0", "cat /proc/1/environ", "touch /sys/x")
    assert (await sandbox_env.exec(["touch", "/usr/made"], user="root")).success
    assert not (await sandbox_env.exec(["touch", "/usr/made by the user"])).success
    for attempt in refused:
        assert not (await sandbox_env.exec(["sh", "-c", attempt], user="root")).success, attempt
    assert (await sandbox_env.exec(["ls", "/sys/class/net"], user="root")).stdout == "lo\n"
    pids = await sandbox_env.exec(["sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"], user="root")
    assert pids.stdout.strip().isdecimal()


@ours
async def test_files_that_cannot_be_written_are_errors_of_their_kind(sandbox_env: SandboxEnvironment) -> None:
    with pytest.raises(PermissionError):
        await sandbox_env.write_file("/usr/own/file", "x")
    await sandbox_env.write_file("a file", "x")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        await sandbox_env.write_file("a file/below", "x")
    await sandbox_env.write_file("-n", "x")
    assert await sandbox_env.read_file("-n") == "x"


@ours
@pytest.mark.parametrize("config", ["compose.yaml", "Dockerfile"])
async def test_a_compose_file_or_dockerfile_is_an_error_that_says_what_to_give(config: str) -> None:
    for begin in (TaskcellSandbox.task_init("task", config), TaskcellSandbox.sample_init("task", config, {})):
        with pytest.raises(ValueError, match="name of an image that is built"):
            await begin


@solver
def writes_and_reads() -> Any:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        await sandbox().write_file("double.py", "print(4 + 4)")
        state.output.completion = (await sandbox().exec(["python3", "double.py"])).stdout
        return state

    return solve


@ours
async def test_an_evaluation_runs_with_a_sandbox_for_each_sample(tmp_path: Path) -> None:
    task = Task(
        dataset=[Sample(input="What is 4 doubled?", target="8", files={"given.txt": "x"}) for _ in range(3)],
        solver=writes_and_reads(),
        scorer=includes(),
        sandbox=("taskcell", CONFIG),
    )
    [log] = await eval_async(task, model="mockllm/model", log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
