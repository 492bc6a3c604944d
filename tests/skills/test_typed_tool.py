"""Typed tools in manifests: what is understood, and every fault with its key and line."""

import pytest

from taskcell.errors import ManifestError
from taskcell.skills.manifest import load
from taskcell.tools.catalog import built_in_names

HEAD = 'version = "1"\n[skills.x]\ndescription = "Does x."\nsource = "docker:alpine"\n'
TOOL = HEAD + '[skills.x.tools.t]\ndescription = "Does t."\n'


def tools(tmp_path, text):
    path = tmp_path / "m.toml"
    path.write_text(text)
    return {tool.name: tool for skill in load([path], {}, ()) for tool in skill.tools}


def faults(tmp_path, text):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load([path], {}, built_in_names())
    return [fault.replace(f"{tmp_path}/m.toml", "m") for fault in caught.value.faults]


def parameter(**keys):
    """A tool with the one parameter `p`, from TOML texts of its keys; `argv` is `["{p}"]` unless it says otherwise."""
    argv = keys.pop("argv", '["{p}"]')
    table = ", ".join(f"{key} = {value}" for key, value in keys.items())
    return TOOL + f"argv = {argv}\n[skills.x.tools.t.parameters]\np = {{ {table} }}\n"


def schema(tmp_path, **keys):
    (found,) = tools(tmp_path, parameter(**keys))["x_t"].parameters
    return dict(found.schema)


def test_a_typed_tool_is_read_with_everything_it_says(tmp_path):
    text = (
        TOOL
        + """
title = "T"
argv = ["-a={p}", ["-b", "{q}"], ["{?r}", "-r"], "{{}}"]
stdin = "{s}"
read_only_hint = true
[skills.x.tools.t.parameters]
p = { type = "string", description = "P." }
q = { type = "integer", required = false }
r = { type = "boolean", default = false }
s = { type = "string", required = false }
"""
    )
    tool = tools(tmp_path, text)["x_t"]
    assert (tool.title, tool.description, tool.stdin, tool.read_only) == ("T", "Does t.", "s", True)
    assert [(found.name, found.kind, found.required, found.default) for found in tool.parameters] == [
        ("p", "string", True, None),
        ("q", "integer", False, None),
        ("r", "boolean", False, False),
        ("s", "string", False, None),
    ]


def test_a_tool_without_arguments_and_titles_is_a_tool(tmp_path):
    tool = tools(tmp_path, TOOL)["x_t"]
    assert (tool.title, tool.parameters, tool.read_only) == ("x t", (), False)


def test_a_parameter_becomes_a_portable_schema(tmp_path):
    assert schema(tmp_path, type='"number"', default="0", minimum="0", maximum="1.5") == {
        "type": "number", "minimum": 0, "maximum": 1.5, "default": 0,
    }  # fmt: skip
    assert schema(tmp_path, type='"string"', description='" A path. "', pattern="'[a-z]+'", max_length="9") == {
        "type": "string", "description": "A path.", "maxLength": 9, "pattern": "^(?:[a-z]+)$",
    }  # fmt: skip
    assert schema(tmp_path, type='"string"', enum='["a", "b"]', default='"a"') == {
        "type": "string", "enum": ["a", "b"], "default": "a",
    }  # fmt: skip
    assert schema(tmp_path, type='"array"', items='{ type = "integer", maximum = 3 }', default="[1]") == {
        "type": "array", "maxItems": 10_000, "default": [1],
        "items": {"type": "integer", "maximum": 3},
    }  # fmt: skip
    assert schema(tmp_path, type='"array"', min_items="2")["minItems"] == 2
    assert schema(tmp_path, type='"array"')["items"] == {"type": "string"}


def test_a_pattern_bounds_the_length_that_it_is_matched_against(tmp_path):
    assert schema(tmp_path, type='"string"', pattern="'a*'")["maxLength"] == 4096


@pytest.mark.parametrize(
    ("keys", "key", "says"),
    [
        ({}, "", "type: is missing"),
        ({"type": '"str"'}, "type", "must be 'string', 'integer', 'number', 'boolean' or 'array'"),
        ({"type": '"string"', "descripton": '"x"'}, "descripton", "did you mean 'description'?"),
        ({"type": '"string"', "minimum": "1"}, "minimum", "has no meaning for the type 'string'"),
        ({"type": '"integer"', "max_length": "1"}, "max_length", "has no meaning for the type 'integer'"),
        ({"type": '"integer"', "pattern": '"x"'}, "pattern", "has no meaning for the type 'integer'"),
        ({"type": '"boolean"', "enum": "[true]"}, "enum", "has no meaning for the type 'boolean'"),
        ({"type": '"array"', "enum": '["a"]'}, "enum", "has no meaning for the type 'array'; write it into 'items'"),
        ({"type": '"array"', "max_length": "3"}, "max_length", "write it into 'items'"),
        ({"type": '"string"', "items": '{ type = "string" }'}, "items", "only an array has items"),
        ({"type": '"string"', "min_items": "1"}, "min_items", "only an array has items"),
        ({"type": '"array"', "min_items": "0"}, "min_items", "1"),
        ({"type": '"array"', "min_items": "10001"}, "min_items", "is more than 10000, the most that a list may hold"),
        ({"type": '"array"', "min_items": "2", "default": '["a"]'}, "default", "must have at least 2 elements"),
        ({"type": '"array"', "items": '{ type = "array" }'}, "items.type", "must be 'string', 'integer'"),
        ({"type": '"array"', "items": '{ type = "string", enm = 1 }'}, "items.enm", "did you mean 'enum'?"),
        ({"type": '"array"', "items": '{ type = "string", default = "a" }'}, "items.default", "unknown key"),
        ({"type": '"array"', "items": '{ type = "string", minimum = 1 }'}, "items.minimum", "has no meaning"),
        ({"type": '"integer"', "minimum": "2", "maximum": "1"}, "minimum", "is more than the maximum, which is 1"),
        ({"type": '"integer"', "minimum": "0.5"}, "minimum", "must be a whole number, as the parameter is"),
        ({"type": '"number"', "minimum": '"1"'}, "minimum", "must be a finite number"),
        ({"type": '"number"', "maximum": "inf"}, "maximum", "must be a finite number"),
        ({"type": '"number"', "maximum": "true"}, "maximum", "must be a finite number"),
        ({"type": '"integer"', "default": '"1"'}, "default", "must be a whole number, not text"),
        ({"type": '"integer"', "default": "true"}, "default", "must be a whole number, not true or false"),
        ({"type": '"integer"', "default": "9", "maximum": "3"}, "default", "must be at most 3"),
        ({"type": '"string"', "default": '"c"', "enum": '["a", "b"]'}, "default", "must be one of 'a', 'b'"),
        ({"type": '"string"', "default": '"A"', "pattern": '"[a-z]"'}, "default", "the regular expression [a-z]"),
        ({"type": '"array"', "default": '["a", 1]'}, "default[1]", "must be text, not a number"),
        ({"type": '"string"', "enum": "[]"}, "enum", "is empty, so that no value is allowed"),
        ({"type": '"string"', "enum": '["a", "a"]'}, "enum[1]", "is in the list already"),
        ({"type": '"integer"', "enum": '[1, "2"]'}, "enum[1]", "must be a whole number, not text"),
        ({"type": '"integer"', "enum": "[1, 9]", "maximum": "3"}, "enum[1]", "must be at most 3"),
        ({"type": '"string"', "enum": '"a"'}, "enum", "must be a list"),
        ({"type": '"string"', "max_length": "0"}, "max_length", "must be at least 1"),
        ({"type": '"string"', "pattern": '"("'}, "pattern", "is not a regular expression"),
        ({"type": '"string"', "pattern": '"(?i)a"'}, "pattern", "means different things to different clients"),
        ({"type": '"string"', "required": "true", "default": '"a"'}, "required", "is true beside a default"),
        ({"type": '"string"', "required": '"yes"'}, "required", "must be true or false"),
        ({"type": '"integer"', "allow_dash": "true"}, "allow_dash", "only a string can be read as an option"),
        ({"type": '"string"', "default": '"-x"'}, "default", "say allow_dash = true"),
        ({"type": '"string"', "enum": '["a", "-b"]'}, "enum[1]", "begins with '-' where it begins an argument"),
        ({"type": '"array"', "items": '{ type = "string", enum = ["-b"] }'}, "items.enum[0]", "allow_dash = true"),
    ],
)
def test_a_contradiction_in_a_parameter_is_a_fault_at_its_key(tmp_path, keys, key, says):
    (fault,) = faults(tmp_path, parameter(**keys))
    where = f"skills.x.tools.t.parameters.p{'.' if key else ''}{key}"
    assert fault.startswith(f"m:9: {where}")
    assert says in fault


@pytest.mark.parametrize(
    "keys",
    [
        {"type": '"string"', "default": '"-x"', "argv": '["--mode={p}"]'},
        {"type": '"string"', "enum": '["-a"]', "allow_dash": "true"},
        {"type": '"integer"', "default": "-3"},
        {"type": '"string"', "required": "false", "default": '"a"'},
        {"type": '"array"', "allow_dash": "true"},
    ],
)
def test_what_is_no_contradiction_is_taken(tmp_path, keys):
    assert tools(tmp_path, parameter(**keys))


@pytest.mark.parametrize(
    ("argv", "key", "says"),
    [
        ('"-a {p}"', "argv", "must be a list of strings"),
        ('["{p}", 3]', "argv[1]", "must be a string, or a list of strings for a group"),
        ('["{p}", ["a", ["{p}"]]]', "argv[1][1]", "must be a string"),
        ('["{p}", []]', "argv[1]", "is an empty group"),
        ('["{p}", ["{?b}"]]', "argv[1]", "is an empty group"),
        ('["{p}", ["-v"]]', "argv[1]", "is a group without a parameter, which would always be kept"),
        ('["{p}", "{", "{b}"]', "argv[1]", "'{' is not understood"),
        ('["{p}", "a}", "{b}"]', "argv[1]", "'a}' is not understood"),
        ('["{p}", "{p.x}", "{b}"]', "argv[1]", "is not understood"),
        ('["{p}", "{1}", "{b}"]', "argv[1]", "is not understood"),
        ('["{p}", "{p", "{b}"]', "argv[1]", "is not understood"),
        ('["{p}", "a\\u0000", "{b}"]', "argv[1]", "must not hold a NUL"),
        ('["{p}", "{?b}", "{b}"]', "argv[1]", "stands alone as the first string of a group"),
        ('["{p}", ["-v", "{?b}"], "{b}"]', "argv[1][1]", "stands alone as the first string of a group"),
        ('["{p}", "{b}", ["{?p}", "-v"]]', "argv[2][0]", "asks whether 'p' is true, and it is of the type 'string'"),
        ('["{p}", "{b}", ["{?c}", "-v"]]', "argv[2][0]", "names the parameter 'c', which is not declared"),
        ('["{p}", "{b}", "{parm}"]', "argv[2]", "names the parameter 'parm', which is not declared"),
        ('["{p}", "{b}", "{o}"]', "argv[2]", "needs 'o', which a call may leave out: put it into a group"),
        ('["{p}", "{b}", "--l={l}"]', "argv[2]", "'{l}' must stand alone"),
        ('["{p}", "{b}", "${p}x{l}"]', "argv[2]", "'{l}' must stand alone"),
    ],
)
def test_a_template_that_cannot_be_filled_is_a_fault_at_its_element(tmp_path, argv, key, says):
    declared = """[skills.x.tools.t.parameters]
p = { type = "string" }
b = { type = "boolean" }
o = { type = "string", required = false }
l = { type = "array" }
"""
    used = f'argv = {argv}\n[skills.x.tools.u]\ndescription = "u"\nargv = []\n'
    found = faults(tmp_path, TOOL + used + declared)
    fault = next(fault for fault in found if "is used nowhere" not in fault)
    assert fault.startswith(f"m:7: skills.x.tools.t.{key}: ")
    assert says in fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TOOL.replace('description = "Does t."', 'description = " "'), "tools.t.description: must say in a sentence"),
        (TOOL.replace('description = "Does t."', ""), "m:5: skills.x.tools.t.description: is missing"),
        (TOOL + "agrv = []\n", "skills.x.tools.t.agrv: unknown key; did you mean 'argv'?"),
        (TOOL + 'stdin = "-"\n', "skills.x.tools.t.stdin: must be '{name}' of a parameter, or empty"),
        (TOOL + 'stdin = "{p}"\n', "names the parameter 'p', which is not declared; nothing is valid here"),
        (TOOL + "read_only_hint = 1\n", "read_only_hint: must be true or false"),
        (TOOL + "parameters = 3\n", "skills.x.tools.t.parameters: must be a table"),
        (TOOL + "parameters.task_id = { type = 'string' }\n", "is an argument of every tool already"),
        (TOOL + "parameters.a-b = { type = 'string' }\n", "the name of a parameter is 1 to 64 letters"),
        (TOOL + "parameters.p = { type = 'string' }\n", "parameters.p: is used nowhere; put '{p}' into argv or stdin"),
        (parameter(type='"integer"', argv="[]\nstdin = '{p}'"), "stdin: takes the text of a string, and 'p' is of"),
        (HEAD + "[skills.x.tools]\nt = 3\n", "skills.x.tools.t: must be a table"),
        (HEAD + "[skills.x.tools.'a b']\ndescription = 't'\n", "'x_a b', must be 1 to 64 letters"),
        (HEAD + f"[skills.x.tools.{'a' * 63}]\ndescription = 't'\n", "must be 1 to 64 letters, digits, '_' or '-'"),
    ],
)
def test_what_is_not_understood_in_a_tool_is_a_fault(tmp_path, text, says):
    found = faults(tmp_path, text)
    assert any(says in fault for fault in found), found


def test_what_some_client_could_not_read_is_a_fault_at_its_key(tmp_path):
    (fault,) = faults(tmp_path, parameter(type='"integer"', default=str(1 << 53)))
    assert fault == "m:9: skills.x.tools.t.parameters.p.default: is beyond 9007199254740991, which not every client " \
        "can read; leave it out"  # fmt: skip
    (fault,) = faults(tmp_path, TOOL.replace("Does t.", "x" * 801))
    assert fault.startswith("m:6: skills.x.tools.t.description: is longer than 800 characters")
    assert tools(tmp_path, parameter(type='"integer"', default=str((1 << 53) - 1)))


def test_a_faulty_parameter_is_told_once_and_not_where_it_is_used(tmp_path):
    (fault,) = faults(tmp_path, parameter(type='"strng"', argv='["{p}", ["{?p}", "-v"], "x{p}"]'))
    assert "parameters.p.type" in fault


def test_all_faults_of_all_tools_are_told_at_once(tmp_path):
    text = (
        TOOL
        + "argv = ['{a}', '{', '{b}']\nstdin = 3\n[skills.x.tools.t.parameters]\nb = { type = 'array', minimum = 1 }\n"
        + "[skills.x.tools.u]\nargv = ['{c}']\n"
    )
    assert [fault.split(": ")[:2] for fault in faults(tmp_path, text)] == [
        ["m:8", "skills.x.tools.t.stdin"],
        ["m:10", "skills.x.tools.t.parameters.b.minimum"],
        ["m:7", "skills.x.tools.t.argv[1]"],
        ["m:7", "skills.x.tools.t.argv[0]"],
        ["m:11", "skills.x.tools.u.description"],
        ["m:12", "skills.x.tools.u.argv[0]"],
    ]


def test_two_tools_of_one_name_name_both_places(tmp_path):
    one = '[skills.{}]\ndescription = "x"\nsource = "docker:a"\n[skills.{}.tools.{}]\ndescription = "t"\n'
    (tmp_path / "a.toml").write_text('version = "1"\n' + one.format("a", "a", "b_c"))
    (tmp_path / "b.toml").write_text('version = "1"\n' + one.format("a_b", "a_b", "c"))
    with pytest.raises(ManifestError) as caught:
        load([tmp_path], {}, ())
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert caught.value.faults == [
        f"{b}:5: skills.a_b.tools.c: its name would be 'a_b_c', as a tool of 'a' at {a}:2; rename one"
    ]


def test_a_free_form_skill_may_not_have_the_name_of_a_typed_tool(tmp_path):
    (fault,) = faults(tmp_path, TOOL + '[skills.x_t]\ndescription = "x"\nsource = "docker:a"\n')
    assert fault.startswith("m:7: skills.x_t: its name would be 'x_t', as a tool of 'x' at ")


def test_a_skill_with_tools_gives_no_tool_of_its_own_name(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text(TOOL)
    (skill,) = load([path], {}, ())
    assert skill.tool_names == ("x_t",)


@pytest.mark.parametrize("name", sorted(name for name in built_in_names() if "_" in name))
def test_a_typed_tool_may_not_take_the_name_of_a_tool_of_taskcells_own(tmp_path, name):
    skill, _, tool = name.partition("_")
    text = f'version = "1"\n[skills.{skill}]\ndescription = "x"\nsource = "docker:a"\n'
    (fault,) = faults(tmp_path, text + f'[skills.{skill}.tools.{tool}]\ndescription = "t"\n')
    assert fault.startswith(f"m:5: skills.{skill}.tools.{tool}: its name would be '{name}'")
