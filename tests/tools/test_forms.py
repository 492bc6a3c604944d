"""Every tool takes its arguments in the forms that clients send, and takes them for what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offers import every_offer
from taskcell.config.settings import Settings
from taskcell.errors import BadArgument
from taskcell.model import LOCAL_PRINCIPAL, ToolCall
from taskcell.policy.policy import Effect, Policy
from taskcell.schema.forms import in_form
from taskcell.schema.published import published
from taskcell.tools.tool import Tool

TOOLS = every_offer()
EACH = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


def a_value(rule: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a property takes, but those of a pattern."""
    match rule["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(rule.get("minimum", -99), rule.get("maximum", 10**6))
        case "number":
            least = rule.get("minimum", rule.get("exclusiveMinimum", -1) + 1)
            return st.floats(least, rule.get("maximum", 1e6), allow_nan=False)
        case "array":
            return st.lists(a_value(rule["items"]), min_size=rule.get("minItems", 0), max_size=3)
        case "object":
            return st.dictionaries(st.from_regex(r"[A-Z]{1,3}", fullmatch=True), WORDS, max_size=3)
        case _:
            return st.sampled_from(rule["enum"]) if "enum" in rule else WORDS


WORDS = st.sampled_from(["1", "true", "[1]", "null", "{}", "3.0", "12x34"])


#: Arguments that a call of a tool needs although its schema does not require them.
MORE = {
    "process": {"process_id": "p1", "data": "x", "signal": "INT"},
    "edit_file": {"old": "x", "new": "y"},
    "read_file": {"path": "a"},
    "sandbox": {"name": "s", "to": "t"},
}


def needed(tool: Tool) -> dict[str, Any]:
    """The least that a tool takes."""
    values: dict[str, Any] = {
        "path": "a",
        "input": "a.png",
        "output": "b.png",
        "inputs": ["a.png"],
        "duration": 1,
    }
    properties = tool.input_schema["properties"]
    more = {name: value for name, value in MORE.get(tool.name, {}).items() if name in properties}
    return {
        name: values.get(name, properties[name].get("enum", ["x"])[-1]) for name in tool.input_schema["required"]
    } | more


def least_of_each_action(tool: Tool) -> list[dict[str, Any]]:
    """The least that a tool takes, for each of its actions if it has some."""
    actions = tool.input_schema["properties"].get("action", {}).get("enum")
    return [needed(tool) | {"action": action} for action in actions] if actions else [needed(tool)]


def bound(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    """What a call would do. Equal means that the same would run."""
    call = ToolCall(LOCAL_PRINCIPAL, tool.name, arguments)
    tool.commands(call)
    return tool.bind(call)  # type: ignore[attr-defined]


def checked(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments in the form of a tool's schema, of a call that can run."""
    call = ToolCall(LOCAL_PRINCIPAL, name, arguments)
    TOOLS[name].commands(call)
    return TOOLS[name].check(call)


def outcome(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    """What a call would do, or the sentence that refuses it."""
    try:
        return bound(tool, arguments)
    except BadArgument as refusal:
        return str(refusal)


def optional(tool: Tool) -> dict[str, Mapping[str, Any]]:
    required = needed(tool)
    return {name: rule for name, rule in tool.input_schema["properties"].items() if name not in required}


@EACH
def test_a_tool_takes_all_its_declared_defaults_at_once(tool: Tool) -> None:
    for schema in (tool.input_schema, published(tool.input_schema)):
        defaults = {name: rule["default"] for name, rule in schema["properties"].items() if "default" in rule}
        for least in least_of_each_action(tool):
            assert bound(tool, defaults | least) == bound(tool, least)


@EACH
def test_null_means_left_out_for_each_optional_argument_and_for_all_of_them(tool: Tool) -> None:
    for least in least_of_each_action(tool):
        for name in optional(tool):
            assert bound(tool, least | {name: None}) == bound(tool, least), name
        assert bound(tool, dict.fromkeys(optional(tool)) | least) == bound(tool, least)
    for name in tool.input_schema["required"]:
        with pytest.raises(BadArgument, match=f"'{tool.name}' needs '{name}'"):
            bound(tool, needed(tool) | {name: None})


@EACH
def test_empty_text_means_left_out_but_where_it_is_a_value(tool: Tool) -> None:
    texts = [name for name, rule in optional(tool).items() if rule["type"] == "string" and name != "stdin"]
    for least in least_of_each_action(tool):
        assert bound(tool, dict.fromkeys(texts, "") | least) == bound(tool, least)


@EACH
def test_empty_text_for_a_number_a_list_or_a_truth_value_means_left_out(tool: Tool) -> None:
    others = [name for name, rule in optional(tool).items() if rule["type"] != "string"]
    assert bound(tool, dict.fromkeys(others, "") | needed(tool)) == bound(tool, needed(tool))
    for name in others:
        assert tool.check(ToolCall(LOCAL_PRINCIPAL, tool.name, needed(tool) | {name: ""})).get(name) is None


def test_one_edit_in_the_place_of_a_list_of_edits_is_that_list() -> None:
    edit = {"old": "x", "new": "y", "count": "2"}
    for sent in (edit, json.dumps(edit), [json.dumps(edit)]):
        assert checked("edit_file", {"path": "a", "edits": sent})["edits"] == [{**edit, "count": 2}]


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        (
            [{"old": "x", "new": "y", "cuont": 2}],
            "'edits[0]' has no 'cuont' (did you mean 'count'?); it takes old, new",
        ),
        ([{"old": "x"}], "'edits[0]' needs 'new'."),
        (["x"], "'edits[0]' must be an object with old, new, count, after_line, not text."),
        ("x", "'edits' must be a list of objects with old, new, count, after_line, not text."),
    ],
)
def test_what_is_wrong_with_one_of_several_edits_is_said(edits: Any, says: str) -> None:
    with pytest.raises(BadArgument) as caught:
        checked("edit_file", {"path": "a", "edits": edits})
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("nothing", [None, 0, ""])
def test_a_client_that_must_send_every_argument_of_an_edit_can_make_each_kind_of_it(nothing: Any) -> None:
    empty = {"old": "", "new": "", "count": 1, "after_line": nothing, "edits": [], "undo": False, "task_id": ""}
    one = {"old": "x", "new": "y", "count": 1, "after_line": nothing}
    for sent in (one, {"edits": [one]}, {"undo": True}, {"new": "line", "after_line": 2}):
        checked("edit_file", {"path": "a", **empty, **sent})
    for wrong in ({**one, "after_line": 1}, {**one, "after_line": -1}, {**one, "edits": [one]}, {**one, "undo": True}):
        with pytest.raises(BadArgument):
            checked("edit_file", {"path": "a", **empty, **wrong})


@EACH
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_argument_may_come_as_text_and_means_the_same(tool: Tool, data: st.DataObject) -> None:
    rules = {
        name: rule
        for name, rule in tool.input_schema["properties"].items()
        if rule["type"] != "string" and "pattern" not in rule.get("items", {})
    }
    values = {name: data.draw(a_value(rule), label=name) for name, rule in rules.items()}
    as_text = {name: json.dumps(value) for name, value in values.items()}
    assert outcome(tool, needed(tool) | as_text) == outcome(tool, needed(tool) | values)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@EACH
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_arguments_in_their_form_stay_as_they_are(tool: Tool, data: st.DataObject) -> None:
    """So it makes no difference how often they are read: what was judged is what runs."""
    names = st.sampled_from(list(tool.input_schema["properties"]))
    sent = data.draw(st.dictionaries(names, ANYTHING | ANYTHING.map(json.dumps)))
    once = in_form(tool.input_schema, sent)
    assert in_form(tool.input_schema, once) == once


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"timeout": " 30 "}, {"timeout": 30}),
        ({"timeout": "3e1"}, {"timeout": 30}),
        ({"timeout": "+30.50"}, {"timeout": 30.5}),
        ({"timeout": "9999"}, {"timeout": 9999}),
        ({"pty": "True", "rows": "30.0"}, {"pty": True, "rows": 30}),
        ({"pty": "FALSE"}, {}),
        ({"env": '{"A": "1"}'}, {"env": {"A": "1"}}),
        ({"env": ["A=1", "B=x=y", "C="]}, {"env": {"A": "1", "B": "x=y", "C": ""}}),
        ({"env": '["A=1"]'}, {"env": {"A": "1"}}),
        ({"rows": 9, "cols": "nine"}, {}),
        ({"stdin": "[1]", "workdir": "true"}, {"stdin": "[1]", "workdir": "true"}),
    ],
)
def test_a_form_with_one_meaning_is_taken(sent: dict[str, Any], meant: dict[str, Any]) -> None:
    assert bound(TOOLS["terminal"], {"command": "x", **sent}) == bound(TOOLS["terminal"], {"command": "x", **meant})


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"timeout": "30s"}, "'timeout' must be a number, not text."),
        ({"timeout": "1_0"}, "'timeout' must be a number, not text."),
        ({"timeout": "007"}, "'timeout' must be a number, not text."),
        ({"timeout": "٣"}, "'timeout' must be a number, not text."),
        ({"timeout": "NaN"}, "'timeout' must be a number, not text."),
        ({"timeout": "1e999"}, "'timeout' must be a number, not text."),
        ({"timeout": "9" * 5000}, "'timeout' must be a number, not text."),
        ({"timeout": "0"}, "'timeout' must be more than 0 seconds; leave it out for the default."),
        ({"timeout": "-3"}, "'timeout' must be at least 0."),
        ({"timeout": [30]}, "'timeout' must be a number, not a list."),
        ({"background": "yes"}, "'background' must be true or false, not text."),
        ({"background": 1}, "'background' must be true or false, not a number."),
        ({"background": "1"}, "'background' must be true or false, not text."),
        ({"pty": True, "rows": "30.5"}, "'rows' must be a whole number, not a fraction."),
        ({"env": "A=1"}, "'env' must be an object such as"),
        ({"env": "[" * 100_000}, "'env' must be an object such as"),
        ({"env": '{"A": 1}'}, "'env.A' must be text, not a number."),
        ({"command": 3}, "'command' must be text, not a number."),
        ({"command": ""}, "'command' must not be empty."),
        ({"comand": None}, "'terminal' has no argument 'comand' (did you mean 'command'?)"),
    ],
)
def test_a_form_with_no_or_several_meanings_is_refused_with_the_right_form(sent: dict[str, Any], says: str) -> None:
    with pytest.raises(BadArgument) as caught:
        bound(TOOLS["terminal"], {"command": "x", **sent})
    assert str(caught.value).startswith(says)


def test_a_list_as_text_is_a_list_and_text_that_is_none_is_refused() -> None:
    assert bound(TOOLS["jq"], {"args": '["-n", "1"]'}) == bound(TOOLS["jq"], {"args": ["-n", "1"]})
    for wrong in ("-n", "['-n']", '["-n"', '{"a": 1}', '["-n"] x'):
        with pytest.raises(BadArgument, match="'args' must be a list such as"):
            bound(TOOLS["jq"], {"args": wrong})
    with pytest.raises(BadArgument, match=r"'args\[1\]' must be text, not null"):
        bound(TOOLS["jq"], {"args": ["-n", None]})


def test_text_that_looks_like_something_else_stays_text() -> None:
    for text in ("30", "true", "null", "[1]", "{}"):
        assert bound(TOOLS["terminal"], {"command": text}).text == text
        assert checked("write_file", {"path": "a", "content": text})["content"] == text
    assert checked("write_file", {"path": "a", "content": ""})["content"] == ""
    assert checked("edit_file", {"path": "a", "old": "x", "new": ""})["new"] == ""
    edits = [{"old": "x", "new": "", "after_line": None, "count": "2"}]
    assert checked("edit_file", {"path": "a", "edits": edits})["edits"] == [{"old": "x", "new": "", "count": 2}]
    assert (
        checked("edit_file", {"path": "a", "edits": json.dumps(edits), "new": "", "old": ""})["edits"][0]["count"] == 2
    )
    assert bound(TOOLS["terminal"], {"command": "cat", "env": {"A": ""}}).env == {"A": ""}
    assert bound(TOOLS["jq"], {"stdin": ""}).stdin == b""


def test_what_another_action_needs_is_ignored_whatever_it_is() -> None:
    others = {"data": 7, "signal": "NOPE", "rows": "x", "cols": 0, "cursor": -1, "wait": [], "process_id": ""}
    plain = bound(TOOLS["process"], {"action": "list"})
    assert bound(TOOLS["process"], {"action": "list", **others}) == plain
    poll = {"action": "poll", "process_id": "p1", "cursor": "3"}
    assert bound(TOOLS["process"], {**poll, "data": "rm", "signal": "KILL"}) == bound(TOOLS["process"], poll)


def test_a_number_as_text_meets_the_rules_of_the_parameter() -> None:
    trim = {"input": "a.mp4", "output": "b.mp4"}
    assert "5.5" in bound(TOOLS["ffmpeg_trim"], {**trim, "duration": "5.5"}).argv
    with pytest.raises(BadArgument, match="'duration' must be at least"):
        bound(TOOLS["ffmpeg_trim"], {**trim, "duration": "-5"})
    with pytest.raises(BadArgument, match=r"'inputs\[1\]' must match"):
        bound(TOOLS["image_identify"], {"inputs": '["a.png", "-x"]'})


def test_the_policy_judges_what_runs() -> None:
    rule = {"name": "r", "command": "-n secret", "effect": "deny"}
    policy = Policy(Settings.model_validate({"policy": {"rules": [rule]}}).policy)
    sent = ToolCall(LOCAL_PRINCIPAL, "jq", {"args": '["-n", "secret"]', "task_id": None})
    judged = TOOLS["jq"].commands(sent)
    assert [policy.decide(command).effect for command in judged] == [Effect.DENY]
    assert judged[0] == bound(TOOLS["jq"], sent.arguments)
    assert replace(judged[0], argv=()) != judged[0]
