"""The id of a message that was too large to be kept: found for sure, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.mcp.transport.oversized import WINDOW, Oversized

LARGE = "x" * (3 * WINDOW)


def ends(line: bytes) -> Oversized:
    return Oversized(line[:WINDOW], line[-WINDOW:])


@pytest.mark.parametrize("identity", [7, -1, "seven", 'quo"ted', "\u00e9\n", ""])
@pytest.mark.parametrize(
    "names",
    [
        ("jsonrpc", "id", "method", "params"),
        ("id", "jsonrpc", "method", "params"),
        ("method", "params", "jsonrpc", "id"),
        ("params", "method", "id", "jsonrpc"),
        ("jsonrpc", "method", "params", "id"),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_id_is_found_wherever_clients_write_it(
    identity: int | str, names: tuple[str, ...], separators: tuple[str, str]
) -> None:
    message = {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": {"text": LARGE, "id": 99}}
    line = json.dumps({name: message[name] for name in names}, separators=separators)
    assert ends(line.encode()).identity == identity


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc":"2.0","method":"n","params":{"text":"%s","id":5}}',
        '{"jsonrpc":"2.0","method":"n","params":{"text":"%s","deep":{"id":5}}}',
        '{"jsonrpc":"2.0","method":"n","params":{"text":"%s,\\"id\\":5}"}}',
        '{"jsonrpc":"2.0","method":"n","params":{"text":"%s\\",\\"id\\":5}',
        '{"jsonrpc":"2.0","method":"n","params":["%s",{"id":5}]}',
        '{"jsonrpc":"2.0","method":"n","params":"%s","x,\\"id":5}',
        '{"id":1,"method":"n","params":"%s","id":2}',
        '{"id":null,"method":"n","params":"%s"}',
        '{"id":1.5,"method":"n","params":"%s"}',
        '{"id":true,"method":"n","params":"%s"}',
        '{"id":{"id":5},"method":"n","params":"%s"}',
        '{"jsonrpc":"2.0","id":5,"result":{"text":"%s"}}',
        '{"jsonrpc":"2.0","id":5,"error":{"text":"%s"}}',
        '[{"id":5},"%s"]',
        '"id":5,"%s"',
        "%s",
    ],
)
def test_an_id_that_is_not_the_messages_own_is_not_taken_for_it(line: str) -> None:
    assert ends((line % LARGE).encode()).identity is None


SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.dictionaries(st.sampled_from(["params", "method", "jsonrpc", "x", 'y,"id":3}', "id"]), VALUES), st.booleans())
def test_whatever_stands_around_it_no_other_id_is_found(message: dict[str, Any], ascii: bool) -> None:
    line = json.dumps(message, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    found = ends(line).identity
    assert found is None or found == message["id"]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_looked_at_without_a_fault(head: bytes, tail: bytes) -> None:
    identity = Oversized(head, tail).identity
    assert identity is None or isinstance(identity, int | str)
