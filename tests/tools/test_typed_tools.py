"""Typed tools: what a call's arguments make of an argv template, and what is refused before anything else happens."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateways import OWN_TOOLS
from taskcell.config.settings import Settings
from taskcell.errors import BadArgument
from taskcell.model import TaskKey, ToolCall
from taskcell.skills.manifest import load
from taskcell.tools.binding import MAX_ARGUMENT, MAX_ARGUMENTS, MAX_STDIN
from taskcell.tools.catalog import build_tools

MANIFEST = """version = "1"
[skills.x]
description = "Does x."
source = "docker:alpine"
[skills.x.docker]
entrypoint = ["x", "-q"]
command = ["run"]
working_dir = "/opt"
timeout = "60s"

[skills.x.tools.all]
description = "Does all."
argv = [
    "{s}", "pre={s}", "{t}{s}", "{dash}", "{i}", "{n}", "{b}", "{{{s}}}", "{many}",
    ["-o", "{o}"], ["{?flag}", "-f", "--for={o}"], ["-m", "{more}", "end"],
]
stdin = "{text}"
[skills.x.tools.all.parameters]
s = { type = "string", max_length = 200000, description = "S." }
t = { type = "string", default = "" }
dash = { type = "string", default = "-", allow_dash = true }
i = { type = "integer", default = 1, minimum = -5, maximum = 5 }
n = { type = "number", default = 0.5 }
b = { type = "boolean", default = true }
o = { type = "string", required = false, enum = ["a", "b c"] }
flag = { type = "boolean", default = false }
many = { type = "array", default = [] }
more = { type = "array", required = false, items = { type = "string", pattern = "[a-z]{1,3}" } }
text = { type = "string", required = false }

[skills.x.tools.taken]
description = "Has parameters of the names that free-form tools have."
read_only_hint = true
argv = ["{timeout}", "{workdir}", "{env}", "{stdin}", "{args}", "{wait}"]
[skills.x.tools.taken.parameters]
timeout = { type = "string" }
workdir = { type = "string" }
env = { type = "string" }
stdin = { type = "string" }
args = { type = "array", items = { type = "number" } }
wait = { type = "boolean" }
"""


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.toml"
    path.write_text(MANIFEST)
    return build_tools(Settings(), load([path], {}, ()))


def bind(tools, name="x_all", **arguments):
    return tools[name].bind(ToolCall("local", name, arguments))


def complaint(tools, name="x_all", **arguments):
    with pytest.raises(BadArgument) as caught:
        bind(tools, name, **arguments)
    return str(caught.value)


def test_the_skill_gives_its_typed_tools_alone(tools):
    assert sorted(set(tools) - set(OWN_TOOLS)) == ["x_all", "x_taken"]


def test_values_fill_the_template_and_pass_no_shell(tools):
    command = bind(tools, s="a $(b) 'c'", task_id="t")
    argv = ("a $(b) 'c'", "pre=a $(b) 'c'", "a $(b) 'c'", "-", "1", "0.5", "true", "{a $(b) 'c'}")
    text = "x -q run 'a $(b) '\"'\"'c'\"'\"'' "
    assert (command.argv, command.task, command.tool) == (argv, TaskKey("local", "t"), "x_all")
    assert command.text.startswith(text)
    assert (command.stdin, command.workdir, dict(command.env), command.timeout) == (None, None, {}, 60.0)


def test_a_group_stands_when_all_that_it_needs_is_there(tools):
    fixed = 8
    assert bind(tools, s="s", o="b c").argv[fixed:] == ("-o", "b c")
    assert bind(tools, s="s", flag=True).argv[fixed:] == ()
    assert bind(tools, s="s", flag=True, o="a").argv[fixed:] == ("-o", "a", "-f", "--for=a")
    assert bind(tools, s="s", more=["x", "y"]).argv[fixed:] == ("-m", "x", "y", "end")
    assert bind(tools, s="s", more=[]).argv[fixed:] == ()


def test_a_list_becomes_one_argument_for_each_item(tools):
    assert bind(tools, s="s", many=["a b", "", "c"]).argv[8:] == ("a b", "", "c")


def test_a_parameter_may_be_the_standard_input(tools):
    assert bind(tools, s="s", text="-line\0\n").stdin == b"-line\0\n"
    assert bind(tools, s="s", text="").stdin == b""
    assert "'text' is 4194305 bytes long" in complaint(tools, s="s", text="x" * (MAX_STDIN + 1))


def test_a_parameter_of_a_name_that_free_form_tools_have_is_a_parameter(tools):
    given = {"timeout": "a", "workdir": "b", "env": "c", "stdin": "d", "args": [1, -2.5], "wait": False}
    command = bind(tools, "x_taken", **given)
    assert command.argv == ("a", "b", "c", "d", "1", "-2.5", "false")
    assert (command.stdin, command.workdir, dict(command.env), command.timeout) == (None, None, {}, 60.0)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1, "1"), (-1, "-1"), (0.5, "0.5"), (2.0, "2"), (-0.0, "0"), (1e3, "1000"), (1e-7, "0.0000001"), (0.1, "0.1"),
        (1e22, "10000000000000000000000"), (2**70, str(2**70)), (1.5e-9, "0.0000000015"), (-1e21, "-1" + "0" * 21),
    ],
)  # fmt: skip
def test_a_number_is_written_in_full(tools, value, word):
    assert bind(tools, s="s", n=value).argv[5] == word


@settings(max_examples=200, deadline=None)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_as_itself(tools, value):
    word = bind(tools, s="s", n=value).argv[5]
    assert float(word) == value
    assert set(word) <= set("-.0123456789")


def test_a_whole_number_may_come_as_a_float(tools):
    assert bind(tools, s="s", i=-3.0).argv[4] == "-3"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "'x_all' needs 's'."),
        ({"s": 3}, "'s' must be text, not a number."),
        ({"s": None}, "'x_all' needs 's'."),
        ({"s": "a", "i": 6}, "'i' must be at least -5 and at most 5."),
        ({"s": "a", "i": 1.5}, "'i' must be a whole number, not a fraction."),
        ({"s": "a", "i": True}, "'i' must be a whole number, not true or false."),
        ({"s": "a", "n": "one"}, "'n' must be a number, not text."),
        ({"s": "a", "n": math.nan}, "'n' must be a finite number."),
        ({"s": "a", "n": -math.inf}, "'n' must be a finite number."),
        ({"s": "a", "n": 10**400}, "'n' is too large a number."),
        ({"s": "a", "b": "yes"}, "'b' must be true or false, not text."),
        ({"s": "a", "o": "c"}, "'o' must be one of 'a', 'b c'."),
        ({"s": "a", "many": "x"}, """'many' must be a list such as ["a", "b"], not text."""),
        ({"s": "a", "many": ["x", 1]}, "'many[1]' must be text, not a number."),
        ({"s": "a", "many": ["x"] * 10_001}, "'many' has more than 10000 elements"),
        ({"s": "a", "more": ["abcd"]}, "'more[0]' must match the regular expression [a-z]{1,3} from beginning to end."),
        ({"s": "a", "more": ["ab\n"]}, "'more[0]' must match the regular expression"),
        ({"s": "a", "more": ["a" * 4097]}, "'more[0]' is longer than 4096 characters."),
        ({"s": "-x"}, "'s' must not begin with '-': the program would read it as an option."),
        ({"s": "-"}, "'s' must not begin with '-'"),
        ({"s": "a", "t": "-x"}, "'t' must not begin with '-'"),
        ({"s": "a", "many": ["x", "--y"]}, "'many[1]' must not begin with '-'"),
        ({"s": "a\0"}, "'s' holds a NUL character"),
        ({"s": "a", "many": ["\0"]}, "'many[0]' holds a NUL character"),
        ({"s": "\ud800"}, "'s' is not valid Unicode at character 0"),
        ({"s": "x" * MAX_ARGUMENT}, "'s' is 131072 bytes long, and one argument holds at most 131071"),
        ({"s": "a", "many": ["x" * 65536] * (MAX_ARGUMENTS // 65536)}, "The arguments are "),
        ({"s": "a", "workdir": "/"}, "'x_all' has no argument 'workdir'; it takes s, t, dash"),
        ({"s": "a", "manny": []}, "has no argument 'manny' (did you mean 'many'?)"),
        ({"s": "a", "task_id": "a\nb"}, "'task_id' must not hold control characters"),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_may_be(tools, arguments, says):
    assert says in complaint(tools, **arguments)


def test_the_first_text_of_an_argument_is_what_may_not_be_an_option(tools):
    assert bind(tools, s="a", t="b-").argv[2] == "b-a"
    assert "'s' must not begin with '-'" in complaint(tools, s="-a", t="x")  # it begins others
    assert bind(tools, s="s", dash="--anything").argv[3] == "--anything"
    assert bind(tools, s="s", n=-1).argv[5] == "-1"


WORDS = st.text(st.characters(), max_size=6) | st.sampled_from(["-x", "--", "-", "", "a", "\0"])
ARGUMENTS = st.fixed_dictionaries(
    {"s": WORDS},
    optional={
        "t": WORDS,
        "dash": WORDS,
        "i": st.integers() | st.floats(),
        "n": st.integers() | st.floats(),
        "b": st.booleans(),
        "o": st.sampled_from(["a", "b c", "-"]),
        "flag": st.booleans(),
        "many": st.lists(WORDS, max_size=3),
        "more": st.lists(WORDS, max_size=2),
        "text": WORDS,
    },
)


@settings(max_examples=500, deadline=None)
@given(arguments=ARGUMENTS)
def test_whatever_a_client_sends_no_text_becomes_an_option(tools, arguments):
    try:
        command = bind(tools, **arguments)
    except BadArgument:
        return
    free = command.argv[:3] + command.argv[6:]
    assert {word for word in free if word.startswith("-")} <= {"-o", "-f", "--for=a", "--for=b c", "-m"}
    assert all("\0" not in word for word in command.argv)
    assert command.argv[0] == arguments["s"]


def test_the_schemas_are_portable(tools):
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.input_schema)
        assert not any(word in str(tool.input_schema) for word in ("$ref", "oneOf", "anyOf", "allOf", "'format'"))
    schema = tools["x_all"].input_schema
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["s"], False)
    assert list(schema["properties"])[-1] == "task_id"
    for inner in schema["properties"].values():
        assert inner["type"]


def test_what_a_client_reads_of_a_typed_tool(tools):
    tool = tools["x_all"]
    assert tool.title == "x all"
    assert tool.description.startswith("Does all. It works on the task's /workspace.")
    assert "No network. Memory: 2 GiB. Killed after 60 s." in tool.description
    hints = tool.annotations
    assert (hints.read_only, hints.destructive, hints.idempotent, hints.open_world) == (False, True, False, False)
    hints = tools["x_taken"].annotations
    assert (hints.read_only, hints.destructive, hints.idempotent, hints.open_world) == (True, False, True, False)


def test_tools_of_the_same_manifest_are_equal_and_of_a_changed_one_are_not(tmp_path):
    def read(text):
        (tmp_path / "m.toml").write_text(text)
        return build_tools(Settings(), load([tmp_path], {}, ()))

    first = read(MANIFEST)
    assert read(MANIFEST) == first
    changed = read(MANIFEST.replace('"pre={s}"', '"post={s}"'))
    assert [name for name in first if first[name] != changed[name]] == ["x_all"]
