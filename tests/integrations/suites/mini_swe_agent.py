"""What an environment of mini-swe-agent must do, on the backend that `FRAMEWORK_BACKEND` names: `run.py` runs this.

The package of mini-swe-agent does not bring the tests of its environments; these are the cases that its own ones have.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments import get_environment
from minisweagent.exceptions import Submitted
from minisweagent.models.test_models import DeterministicModel, make_output

from observe import alive, eventually, marker

BACKEND = os.environ["FRAMEWORK_BACKEND"]
ADAPTER = "taskcell.integrations.mini_swe_agent.TaskcellEnvironment"
IMAGE = "taskcell/base:latest"
#: Calls of which the middle one counts.
CALLS = 15

ours = pytest.mark.skipif(BACKEND != "taskcell", reason="is about what the adapter alone has")


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Cases about what the adapter alone has are not counted."""
    if request.node.get_closest_marker("skipif") is not None:
        record_property("not counted", "yes")


def made(**settings: Any) -> Any:
    if BACKEND == "docker":
        return get_environment({"environment_class": "docker", "image": IMAGE, "cwd": "/tmp", **settings})
    config = os.environ["FRAMEWORK_CONFIG"]
    return get_environment({"environment_class": ADAPTER, "config": config, **settings})


@pytest.fixture(scope="module")
def environment() -> Iterator[Any]:
    found = made(env={"OWN": "from the configuration"}, timeout=60)
    yield found
    found.cleanup()


def run(environment: Any, command: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = environment.execute({"command": command}, **more)
    return answer


def test_output_and_exit_code_of_a_command(environment: Any) -> None:
    assert run(environment, "echo hello") == {"output": "hello\n", "returncode": 0, "exception_info": ""}
    assert run(environment, "exit 42")["returncode"] == 42


def test_both_streams_come_in_the_order_in_which_they_were_written(environment: Any) -> None:
    command = "for i in $(seq 200); do echo out$i; echo err$i >&2; done"
    wanted = "".join(f"out{i}\nerr{i}\n" for i in range(1, 201))
    assert run(environment, command)["output"] == wanted


def test_a_command_that_is_not_there_is_the_shell_s_error(environment: Any) -> None:
    answer = run(environment, "surely-not-there")
    assert answer["returncode"] == 127
    assert "surely-not-there" in answer["output"]


def test_variables_of_the_configuration_are_set_and_others_are_not(environment: Any) -> None:
    assert run(environment, 'echo "$OWN"')["output"] == "from the configuration\n"
    assert run(environment, 'echo "<$FRAMEWORK_BACKEND>"')["output"] == "<>\n"


def test_variables_are_passed_on_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED_ON", "yes")
    monkeypatch.setenv("BOTH", "here")
    found = made(forward_env=["PASSED_ON", "NOT_SET", "BOTH"], env={"BOTH": "configured"})
    try:
        command = 'echo "$PASSED_ON ${NOT_SET-unset} $BOTH"'
        assert run(found, command)["output"] == "yes unset configured\n"
    finally:
        found.cleanup()


def test_the_folder_of_a_call_goes_before_that_of_the_configuration(environment: Any) -> None:
    assert run(environment, "pwd", cwd="/usr")["output"] == "/usr\n"
    assert run(environment, "pwd")["output"] == f"{environment.config.cwd}\n"


def test_a_folder_that_is_not_there_is_an_answer(environment: Any) -> None:
    answer = run(environment, "echo here", cwd="/not/there")
    assert answer["returncode"] != 0
    assert "/not/there" in answer["output"] + answer["exception_info"]


def test_nothing_but_files_lasts_from_one_command_to_the_next(environment: Any) -> None:
    run(environment, "cd /; export A=1")
    run(environment, "echo kept > /tmp/kept.txt")
    assert run(environment, 'echo "<$A>"; pwd; cat /tmp/kept.txt')["output"] == f"<>\n{environment.config.cwd}\nkept\n"


def test_a_script_of_several_lines_with_a_heredoc_is_run_as_it_is(environment: Any) -> None:
    command = "cat <<'EOF' > /tmp/here.txt\n$HOME `x` \\ 'a' \"b\"\nEOF\ncat /tmp/here.txt"
    assert run(environment, command)["output"] == "$HOME `x` \\ 'a' \"b\"\n"


def test_text_is_utf_8_and_other_bytes_are_replaced(environment: Any) -> None:
    assert run(environment, "printf '\\303\\251\\377'")["output"] == "é\ufffd"
    assert run(environment, "printf %s 'é中😀'")["output"] == "é中😀"


def test_large_output_comes_whole(environment: Any) -> None:
    assert run(environment, "head -c 3000000 /dev/zero | tr '\\0' x")["output"] == "x" * 3_000_000


def test_a_command_over_the_limit_of_one_word_is_an_answer(environment: Any) -> None:
    answer = run(environment, f": {'x' * (200 << 10)}; echo done")
    assert answer["returncode"] != 0
    assert answer["output"] + answer["exception_info"]


def test_a_time_out_keeps_the_output_so_far(environment: Any) -> None:
    answer = run(environment, "echo before; sleep 60", timeout=2)
    assert answer["returncode"] == -1
    assert answer["output"] == "before\n"
    assert "timed out" in answer["exception_info"]
    assert answer["extra"]["exception_type"] == "TimeoutExpired"
    assert run(environment, "echo after")["output"] == "after\n"


def test_a_time_out_leaves_no_process(environment: Any, record_property: Callable[[str, object], None]) -> None:
    mark = marker()
    run(environment, f"setsid sleep {mark} & sleep {mark}", timeout=2)
    are_gone = eventually(lambda: not alive(mark))
    record_property("alive after a time-out", len(alive(mark)))
    assert are_gone


def test_how_long_a_call_takes(environment: Any, record_property: Callable[[str, object], None]) -> None:
    taken = []
    for _ in range(CALLS):
        begun = time.monotonic()
        assert run(environment, "true")["returncode"] == 0
        taken.append(time.monotonic() - begun)
    record_property("a call", f"{statistics.median(taken) * 1000:.0f} ms")


def test_a_result_is_handed_in_by_its_first_line(environment: Any) -> None:
    with pytest.raises(Submitted) as found:
        run(environment, "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; printf 'a\\nb'")
    assert found.value.messages[0]["extra"] == {"exit_status": "Submitted", "submission": "a\nb"}
    command = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; false"
    assert run(environment, command)["returncode"] == 1


def test_an_agent_works_on_a_task_and_its_trajectory_is_written(environment: Any, tmp_path: Path) -> None:
    steps = [
        "mkdir -p /tmp/work && echo 'def double(n): return n + n + 1' > /tmp/work/double.py",
        "sed -i 's/ + 1//' /tmp/work/double.py",
        "cd /tmp/work && echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && "
        "python3 -c 'import double; print(double.double(4))'",
    ]
    outputs = [make_output("", [{"command": step}]) for step in steps]
    agent = DefaultAgent(
        DeterministicModel(outputs=outputs),
        environment,
        system_template="You are on {{ system }}, in {{ cwd }}.",
        instance_template="{{ task }}",
        cost_limit=0,
        output_path=tmp_path / "trajectory.json",
    )
    assert agent.run("Mend it.") == {"exit_status": "Submitted", "submission": "8\n"}
    assert '"environment_type"' in (tmp_path / "trajectory.json").read_text()


@ours
def test_an_environment_that_nobody_holds_closes_its_task() -> None:
    from taskcell.client.blocking import connect
    from taskcell.integrations.shared_server import shared_server

    with connect(door=shared_server(os.environ["FRAMEWORK_CONFIG"])) as cell:
        found = made()
        task = found.task_id
        run(found, "true")
        assert task in [one.id for one in cell.tasks()]
        del found
        assert eventually(lambda: task not in [one.id for one in cell.tasks()])


@ours
def test_a_task_that_was_there_before_is_gone_on_with_and_stays() -> None:
    first = made()
    run(first, "echo there > file")
    second = made(task_id=first.task_id)
    assert run(second, "cat file")["output"] == "there\n"
    second.cleanup()
    assert run(first, "cat file")["output"] == "there\n"
    first.cleanup()


@ours
def test_no_token_is_in_what_an_environment_says_about_itself() -> None:
    found = made(token="secret-word")
    assert "secret-word" not in f"{found.serialize()}{found.get_template_vars()}{found.config!r}"
    found.cleanup()


@ours
def test_a_server_that_is_gone_is_an_answer_and_not_the_end_of_the_agent() -> None:
    words = [sys.executable, "-m", "taskcell", "serve", "--door", "--config", os.environ["FRAMEWORK_CONFIG"]]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = made(door=server.stdout.readline().rstrip("\n"))
        run(found, "true")
        server.kill()
    answer = run(found, "true")
    assert answer["returncode"] == -1
    assert "went away" in answer["exception_info"]
    found.cleanup()
