"""Tools: schemas that every client understands, and arguments that become commands or a BadArgument."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from taskcell.config.settings import Settings
from taskcell.errors import BadArgument
from taskcell.model import MIB, Command, TaskKey, ToolCall
from taskcell.schema.arguments import nearest
from taskcell.skills.manifest import load
from taskcell.text import plain_line
from taskcell.tools.binding import MAX_ARGUMENT, MAX_ARGUMENTS, MAX_STDIN, ProgramTool
from taskcell.tools.catalog import build_tools
from taskcell.tools.file_commands import absolute
from taskcell.tools.process_calls import ProcessAction
from taskcell.tools.sandbox import SandboxAction
from taskcell.tools.terminal import WRAPPER_ROOM

MANIFEST = """version = "1"
[skills.ff]
description = "Convert."
[skills.ff.docker]
image = "x/ff"
entrypoint = ["ff", "-y"]
command = ["-v", "a b"]
volumes = ["${SKILL_WORKDIR}:/workdir"]
timeout = "60s"
[skills.bare]
description = "Bare."
docker.image = "x/bare"
docker.timeout = "10h"
docker.network = "bridge"
"""


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.toml"
    path.write_text(MANIFEST)
    return build_tools(Settings(), load([path], {}, ()))


def bind(tools, tool="terminal", **arguments):
    return tools[tool].bind(ToolCall("local", tool, arguments))


def complaint(tools, tool="terminal", **arguments):
    with pytest.raises(BadArgument) as caught:
        bind(tools, tool, **arguments)
    return str(caught.value)


def test_a_terminal_call_becomes_a_shell_line(tools):
    command = bind(tools, command="echo $A", task_id="t 1", workdir="sub", timeout=2, stdin="in\n", env={"A": "ä"})
    assert command == Command(
        TaskKey("local", "t 1"), "terminal", tools["terminal"].profile, ("bash", "-c", "echo $A"), "echo $A",
        b"in\n", "sub", {"A": "ä"}, 2.0, wait=50.0,
    )  # fmt: skip


def test_a_whole_number_that_is_written_as_a_fraction_is_one(tools):
    size = bind(tools, command="top", pty=True, rows=30.0, cols=1e2).pty
    assert (size, [type(number) for number in size]) == ((30, 100), [int, int])
    call = ToolCall("local", "process", {"action": "poll", "process_id": "p1", "cursor": 1.0, "stderr_cursor": 0.0})
    asked = tools["process"].bind(call)
    assert (type(asked.cursor), type(asked.stderr_cursor)) == (int, int)
    assert "whole number" in complaint(tools, command="top", pty=True, rows=30.5)


def test_what_a_call_leaves_out_has_the_documented_defaults(tools):
    command = bind(tools, command="ls")
    assert (command.task.task, command.stdin, command.workdir, dict(command.env)) == ("default", None, None, {})
    assert command.timeout == 180.0


def test_an_empty_stdin_is_an_empty_stdin(tools):
    assert bind(tools, command="cat", stdin="").stdin == b""


def test_a_skills_arguments_pass_no_shell_and_are_read_quoted_by_the_policy(tools):
    command = bind(tools, "ff", args=["-i", "my file.mp4", "$(id)"])
    assert command.argv == ("-i", "my file.mp4", "$(id)")
    assert command.text == "ff -y -v 'a b' -i 'my file.mp4' '$(id)'"
    assert command.timeout == 60.0
    assert bind(tools, "bare").text == "bare"


def test_a_skills_timeout_never_exceeds_the_limit(tools):
    assert bind(tools, "bare").timeout == 3600.0


@pytest.mark.parametrize("timeout", [-1, -1e-9, -(10**400)])
def test_a_timeout_below_0_is_refused(tools, timeout):
    assert complaint(tools, command="x", timeout=timeout) == "'timeout' must be at least 0."


@pytest.mark.parametrize("timeout", [3600.001, 1e308, 10**400])
def test_a_timeout_over_the_cap_is_cut_to_it_and_said(tools, timeout):
    for name, arguments in (("terminal", {"command": "x"}), ("ff", {"args": []})):
        bound = bind(tools, name, **arguments, timeout=timeout)
        assert (bound.timeout, bound.notes) == (3600, ("'timeout' was cut to 3600 s, the most that is allowed.",))
    waits = bind(tools, command="x", wait=timeout)
    assert (waits.wait, waits.notes) == (3600, ("'wait' was cut to 3600 s, the most that is allowed.",))


def test_no_schema_has_a_maximum_of_seconds_that_a_client_would_enforce(tools):
    for tool in tools.values():
        for name in ("timeout", "wait"):
            assert not {"maximum", "exclusiveMaximum"} & set(tool.input_schema["properties"].get(name, {}))


def test_the_background_has_no_timeout_unless_the_call_gives_one(tools):
    assert bind(tools, command="x", background=True).timeout == math.inf
    assert bind(tools, command="x", background=True, timeout=7200).timeout == 7200
    assert bind(tools, command="x", background=False).timeout == 180


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf])
def test_a_timeout_that_is_no_number_is_refused(tools, timeout):
    assert "'timeout' must be" in complaint(tools, command="x", timeout=timeout)


def test_a_tiny_timeout_does_not_become_none(tools):
    assert bind(tools, command="x", timeout=1e-300).timeout > 0
    assert "leave it out" in complaint(tools, command="x", timeout=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "'terminal' needs 'command'."),
        ({"command": ""}, "'command' must not be empty."),
        ({"command": 3}, "'command' must be text, not a number."),
        ({"command": None}, "'terminal' needs 'command'."),
        ({"command": ["ls"]}, "'command' must be text, not a list."),
        ({"command": "x", "timeout": "5s"}, "'timeout' must be a number, not text."),
        ({"command": "x", "timeout": True}, "'timeout' must be a number, not true or false."),
        ({"command": "a\0b"}, "'command' holds a NUL character"),
        ({"command": "\ud800"}, "'command' is not valid Unicode at character 0"),
        ({"comand": "x"}, "has no argument 'comand' (did you mean 'command'?); it takes command, task_id"),
        ({"command": "x", "\ud800\n": 1}, "has no argument '\\ud800\\n'"),
        ({"command": "x", "wait": -1}, "'wait' must be at least 0."),
        ({"command": "x", "wait": float("nan")}, "'wait' must be a finite number of seconds."),
        ({"command": "x", "background": "yes"}, "'background' must be true or false, not text."),
        ({"command": "x", "pty": True, "cols": 0}, "'cols' must be at least 1 and at most 1000."),
        ({"command": "x", "task_id": "a" * 129}, "'task_id' is longer than 128 characters."),
        ({"command": "x", "task_id": "a\nb"}, "'task_id' must not hold control characters"),
        ({"command": "x", "task_id": "\udfff"}, "'task_id' is not valid Unicode at character 0"),
        ({"command": "x", "workdir": "/a\0"}, "'workdir' holds a NUL character"),
        ({"command": "x", "workdir": "/" * 4096}, "'workdir' is longer than the 4095 bytes"),
        ({"command": "x", "env": {"1": "x"}}, "In 'env', '1' is not the name of an environment variable"),
        ({"command": "x", "env": {"A=B": "x"}}, "In 'env', 'A=B' is not the name"),
        ({"command": "x", "env": {"TASKCELL_STATE_FD": "3"}}, "which the sandbox keeps for itself"),
        ({"command": "x", "env": {"A": 1}}, "'env.A' must be text, not a number."),
        ({"command": "x", "env": {"A": "\0"}}, "'env.A' holds a NUL character"),
        ({"command": "x", "env": {"A": "x" * MAX_ARGUMENT}}, "'env' is too large"),
        ({"command": "x", "env": {f"V{i}": "" for i in range(1001)}}, "'env' has more than 1000 variables."),
        (
            {"command": "x", "env": ["A"]},
            """'env' must be an object such as {"NAME": "value"} or a list such as ["NAME=value"], not a list.""",
        ),
        ({"command": "x", "env": ["=x"]}, "In 'env', '' is not the name of an environment variable"),
        ({"command": "x", "env": {"A": None}}, "'env.A' must be text, not null."),
        ({"command": "x", "stdin": "\udc00"}, "'stdin' is not valid Unicode"),
        ({"command": "x", "stdin": "x" * (MAX_STDIN + 1)}, "put it in a file in /workspace"),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_may_be(tools, arguments, says):
    assert says in complaint(tools, **arguments)


def test_a_command_that_linux_cannot_take_says_what_to_do(tools):
    most = MAX_ARGUMENT - WRAPPER_ROOM
    assert bind(tools, command="x" * most).text == "x" * most
    assert "write a script to a file in /workspace" in complaint(tools, command="ä" * (most // 2 + 1))


def test_arguments_that_linux_cannot_take_say_what_to_do(tools):
    bind(tools, "ff", args=["x" * (MAX_ARGUMENT - 1)])
    assert "'args[1]' is 131072 bytes long" in complaint(tools, "ff", args=["", "x" * MAX_ARGUMENT])
    many = ["x" * 65536] * (MAX_ARGUMENTS // 65536)
    assert "bytes long together" in complaint(tools, "ff", args=many)
    assert complaint(tools, "ff", args=[""] * 10_001) == (
        "'args' has more than 10000 elements; send fewer in one call, or write them to a file."
    )
    assert complaint(tools, "ff", args=["a", 1]) == "'args[1]' must be text, not a number."
    assert "'args[0]' holds a NUL" in complaint(tools, "ff", args=["\0"])


def test_a_value_never_shows_in_a_complaint(tools):
    assert "s3cret" not in complaint(tools, command=["s3cret"])
    assert "s3cret" not in complaint(tools, command="x", env={"A": ["s3cret"]})


def test_arguments_nested_too_deeply_are_refused(tools):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert complaint(tools, command=deep)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20) | st.just(10**500),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(["command", "args", "task_id", "workdir", "timeout", "stdin", "env", "action", "wait"])
ARGUMENTS = st.dictionaries(NAMES | st.text(st.characters(), max_size=8), JSON, max_size=6)


@settings(max_examples=400, deadline=None)
@example(arguments=None, line=None)
@example(arguments=["image"], line=None)
@given(arguments=ARGUMENTS | JSON, line=st.none() | st.text(st.characters(), max_size=10))
def test_whatever_a_client_sends_is_a_command_or_a_bad_argument(tools, arguments, line):
    if line is not None and isinstance(arguments, dict):
        arguments = {**arguments, "command": line}
    for tool in tools.values():
        try:
            bound = tool.bind(ToolCall("local", tool.name, arguments))
        except BadArgument as error:
            complaint_text = str(error)
        else:
            complaint_text = ""
            assert isinstance(bound, Command | SandboxAction | ProcessAction)
            assert not isinstance(bound, Command) or 0 < bound.timeout <= 3600 or bound.background
        assert plain_line(complaint_text) == complaint_text


def properties(schema):
    for inner in schema.get("properties", {}).values():
        yield inner
        yield from properties(inner)
    if isinstance(schema.get("items"), dict):
        yield schema["items"]


def test_every_schema_is_portable(tools):
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert not any(word in str(tool.input_schema) for word in ("$ref", "oneOf", "anyOf", "allOf"))
        for inner in properties(tool.input_schema):
            assert inner["type"]
            assert inner["description"]


def test_the_descriptions_say_what_a_model_must_know(tools):
    for tool in tools.values():
        if not isinstance(tool, ProgramTool):
            continue
        assert "task's /workspace" in tool.description or "all skills of the task" in tool.description
        assert "killed" in tool.description + str(tool.input_schema)
    assert tools["ff"].description.startswith("Convert. ")
    assert "(also at /workdir)" in tools["ff"].description
    assert "No network." in tools["ff"].description


def test_the_hints_do_not_promise_safety(tools):
    for tool in tools.values():
        if tool.annotations.read_only:
            assert tool.name in ("read_file", "list_files", "search")
            continue
        assert (tool.annotations.read_only, tool.annotations.destructive) == (False, True)
    assert (tools["bare"].annotations.open_world, tools["ff"].annotations.open_world) == (True, False)


def test_the_sandbox_tool_takes_an_action_and_a_task(tools):
    call = ToolCall("alice", "sandbox", {"action": "reset", "task_id": "t"})
    assert tools["sandbox"].bind(call) == SandboxAction(TaskKey("alice", "t"), "reset")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "'sandbox' needs 'action'."),
        ({"action": "restart"}, "'action' must be one of 'status', 'reset', 'close', 'snapshot', 'restore', 'fork'."),
        ({"action": ["close"]}, "'action' must be text, not a list."),
        ({"action": "close", "task": "x"}, "did you mean 'task_id'?"),
    ],
)
def test_a_wrong_sandbox_action_is_named_with_what_it_may_be(tools, arguments, says):
    with pytest.raises(BadArgument) as caught:
        tools["sandbox"].bind(ToolCall("local", "sandbox", arguments))
    assert says in str(caught.value)


def test_stdin_of_exactly_the_limit_is_taken(tools):
    assert len(bind(tools, command="cat", stdin="x" * (4 * MIB)).stdin) == 4 * MIB


def test_the_nearest_name_is_offered_or_nothing():
    assert nearest("terminl", ["terminal", "sandbox"]) == " (did you mean 'terminal'?)"
    assert nearest("zzz", ["terminal"]) == ""


@pytest.mark.parametrize(("path", "meant"), [("~", "/workspace"), ("~/a b", "/workspace/a b"), ("a~", "/workspace/a~")])
def test_the_home_in_a_files_path_is_the_workspace(path: str, meant: str) -> None:
    assert absolute("path", path) == meant
