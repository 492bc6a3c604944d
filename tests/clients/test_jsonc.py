"""One member of a JSON text changes, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.clients import jsonc
from taskcell.clients.lines import with_member

ENTRY = {"command": "/opt/taskcell", "args": ["serve"]}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=4)
#: How programs and people write JSON: each with an own indentation, or on one line.
indents = st.sampled_from([None, 1, 2, 4, "\t"])


@given(objects, indents, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_member_that_was_put_in_and_taken_out_again_leaves_the_text_as_it_was(
    data: dict[str, Any], indent: int | str | None, newline: str, unicode: bool
) -> None:
    data["servers"] = {"other": {"url": "x"}}
    text = json.dumps(data, indent=indent, ensure_ascii=not unicode).replace("\n", newline)
    added = jsonc.edit(text, ("servers", "taskcell"), ENTRY)
    assert jsonc.loads(added, comments=False) == with_member(data, ("servers", "taskcell"), ENTRY)
    assert jsonc.edit(added, ("servers", "taskcell"), None) == text


@given(objects, indents, st.text(max_size=6))
def test_any_member_can_be_put_replaced_and_removed(data: dict[str, Any], indent: int | str | None, key: str) -> None:
    text = json.dumps(data, indent=indent)
    changed = jsonc.edit(text, (key,), ENTRY)
    assert json.loads(changed) == data | {key: ENTRY}
    assert json.loads(jsonc.edit(changed, (key,), None)) == {name: data[name] for name in data if name != key}


@given(objects, indents)
def test_what_is_read_is_what_json_reads(data: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(data, indent=indent)
    assert jsonc.loads(text, comments=False) == data
    assert jsonc.loads(f"// first\n{text} /* last */") == data


@given(st.text(alphabet='{}[]",:/* \n\\a1-', max_size=30))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        expected = json.loads(text) if text.strip() else {}
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert jsonc.loads(text, comments=False) == expected
    else:
        with pytest.raises(ValueError, match="line "):
            jsonc.loads(text, comments=False)


@pytest.mark.parametrize("text", ["", " \n", "\ufeff"])
def test_an_empty_text_is_an_empty_object(text: str) -> None:
    assert jsonc.loads(text) == {}
    assert jsonc.loads(jsonc.edit(text, ("servers", "taskcell"), ENTRY)) == {"servers": {"taskcell": ENTRY}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{\n  "a": 1 // one\n}\n', '{\n  "a": 1, // one\n  "new": {}\n}\n'),
        ('{\n  "a": 1, // one\n}\n', '{\n  "a": 1, // one\n  "new": {},\n}\n'),
        ('{\n  "a": 1\n  // below\n}\n', '{\n  "a": 1,\n  "new": {}\n  // below\n}\n'),
        ('{ "a": 1 }', '{ "a": 1, "new": {} }'),
        ('{"a":1}', '{"a":1, "new": {}}'),
        ("{ // why\n}", '{ // why\n  "new": {}\n}'),
        ('\ufeff{\n\t"a": null\n}', '\ufeff{\n\t"a": null,\n\t"new": {}\n}'),
        ('{\n  "new": [1, 2], // mine\n  "a": 1\n}', '{\n  "new": {}, // mine\n  "a": 1\n}'),
        ('{"new": 1, "a": {"new": 2}, "new": 3}', '{"new": 1, "a": {"new": 2}, "new": {}}'),
    ],
)
def test_comments_commas_and_indentation_stay(before: str, after: str) -> None:
    assert jsonc.edit(before, ("new",), {}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{\n  "a": 1, // one\n  "b": 2 // two\n}', '{\n  "a": 1 // one\n  // two\n}'),
        ('{\n  "b": 2\n}', "{\n}"),
        ('{"b": 2}', "{}"),
        ('{"b": 2, "a": 1}', '{"a": 1}'),
        ('{\n  "a": 1,\n  "b": 2,\n}', '{\n  "a": 1,\n}'),
    ],
)
def test_a_removed_member_leaves_a_text_that_reads_well(before: str, after: str) -> None:
    changed = jsonc.edit(before, ("b",), None)
    assert "b" not in jsonc.loads(changed)
    assert jsonc.loads(changed) == {key: value for key, value in jsonc.loads(before).items() if key != "b"}
    assert [line.split() for line in changed.splitlines()] == [line.split() for line in after.splitlines()]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": 1', "line 1, column 8: a ',' or a '}' was expected"),
        ('{\n  "a": tru\n}', "line 2, column 8: a value was expected"),
        ('{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: a ',' or a '}' was expected"),
        ("[1]", "line 1, column 1: an object was expected"),
        ('{"a": "\n"}', "line 1, column 7: a string was expected"),
        ('{"a": "\\x"}', "line 1, column 7: a string has a faulty escape"),
        ("{} {}", "line 1, column 4: nothing was expected after the end"),
        ("{/* open", "line 1, column 2: a string was expected"),
        ('{"a": ' + "[" * 100_000, "the text is nested too deeply"),
    ],
)
def test_a_faulty_text_is_refused_with_its_line(text: str, where: str) -> None:
    with pytest.raises(ValueError, match="line ") as caught:
        jsonc.loads(text)
    assert where in str(caught.value)


@pytest.mark.parametrize("text", ['{"a": 1,}', '{"a": [1,]}', '{"a": 1} // note', '{/**/"a": 1}'])
def test_what_only_json_with_comments_allows_is_refused_for_clients_that_read_plain_json(text: str) -> None:
    assert jsonc.loads(text)["a"]
    with pytest.raises(ValueError, match="line 1"):
        jsonc.loads(text, comments=False)


def test_something_else_in_the_way_is_refused() -> None:
    with pytest.raises(ValueError, match="'servers' is not an object"):
        jsonc.edit('{"servers": [1]}', ("servers", "taskcell"), ENTRY)
