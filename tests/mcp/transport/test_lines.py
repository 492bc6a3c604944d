"""The stdio wire without I/O: every kind of bad line has its answer, and no good one is harmed."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from taskcell.mcp.transport.lines import LineSplitter, Malformed, decode, encode, too_long
from taskcell.mcp.transport.oversized import WINDOW, Oversized


def refusal(line: bytes) -> tuple[int, Any, str]:
    with pytest.raises(Malformed) as caught:
        decode(line)
    assert caught.value.reply is not None
    reply = caught.value.reply
    return reply.error.code, reply.id, reply.error.message


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)), st.integers(1, 40))
def test_lines_come_out_whole_however_the_bytes_were_cut(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    found = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    assert found == lines
    assert splitter.end() == b""


def test_what_stands_after_the_last_line_end_comes_out_at_the_end() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"one\ntwo")) == [b"one"]
    assert splitter.end() == b"two"


@given(st.integers(1, 30))
def test_a_line_over_the_limit_is_told_once_and_the_next_one_is_whole(size: int) -> None:
    data = b"ok\n" + b"x" * 100 + b"\nfine\n"
    splitter = LineSplitter(limit=10)
    found = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    first, oversized, last = found
    assert (first, last) == (b"ok", b"fine")
    assert isinstance(oversized, Oversized)
    assert oversized.tail == b"x" * 100


def test_of_a_line_without_an_end_no_more_than_both_ends_is_kept() -> None:
    splitter = LineSplitter(limit=1000)
    found = [line for _ in range(1000) for line in splitter.feed(b"x" * 500)]
    assert not found
    assert splitter.kept <= 2 * WINDOW
    assert list(splitter.feed(b"end\n")) == [Oversized(b"x" * WINDOW, b"x" * (WINDOW - 3) + b"end")]


def test_a_line_over_the_limit_that_never_ends_is_no_message() -> None:
    splitter = LineSplitter(limit=10)
    assert not list(splitter.feed(b"x" * 100))
    assert splitter.end() == b""


def test_a_line_of_exactly_the_limit_is_taken() -> None:
    assert list(LineSplitter(limit=4).feed(b"four\nfives\n")) == [b"four", Oversized(b"fives", b"fives")]


def test_requests_notifications_and_responses_are_read() -> None:
    assert isinstance(decode(b'{"jsonrpc":"2.0","id":"a","method":"ping"}'), JSONRPCRequest)
    assert isinstance(decode(b'{"jsonrpc":"2.0","method":"x","params":{"id":1}}'), JSONRPCNotification)
    assert isinstance(decode(b'{"jsonrpc":"2.0","id":1,"result":{}}'), JSONRPCResponse)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "Expecting value"),
        (b'{"jsonrpc":"2.0","id":1,', "character"),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', "byte 34"),
        (b"[" * 200_000, "nested"),
        (b'{"id":' + b"9" * 5000 + b"}", "too long"),
    ],
)
def test_what_is_no_json_is_a_parse_error_without_an_id(line: bytes, reason: str) -> None:
    code, identity, message = refusal(line)
    assert (code, identity) == (PARSE_ERROR, None)
    assert reason in message


@pytest.mark.parametrize(
    ("line", "identity", "reason"),
    [
        (b"[]", None, "a batch of 1 to 100"),
        (b"[5]", None, "a batch of 1 to 100"),
        (b"[" + b",".join([b"{}"] * 101) + b"]", None, "a batch of 1 to 100"),
        (b'"text"', None, "object"),
        (b'{"id":7,"method":"ping"}', 7, '"jsonrpc"'),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', "a", '"jsonrpc"'),
        (b'{"jsonrpc":"2.0","id":7}', 7, '"method"'),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', 7, '"method"'),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}', 7, '"params"'),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, "id must be"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, "id must be"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, "id must be"),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\\ud800"}}', 7, "surrogate"),
    ],
)
def test_json_that_is_no_request_is_an_invalid_request_with_its_id(line: bytes, identity: Any, reason: str) -> None:
    code, found, message = refusal(line)
    assert (code, found) == (INVALID_REQUEST, identity)
    assert reason in message


def test_a_tools_call_with_half_of_a_pair_in_an_argument_is_a_message_which_the_tool_refuses() -> None:
    params = rb'{"name":"t","arguments":{"a":["\ud800"],"\udfff":1}}'
    message = decode(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":' + params + b"}")
    assert isinstance(message, JSONRPCRequest)
    assert message.params == {"name": "t", "arguments": {"a": ["\ud800"], "\ufffd": 1}}


@pytest.mark.parametrize(
    "params",
    [
        b'{"name":"\\ud800","arguments":{}}',
        b'{"name":"t"}',
        b'{"name":"t","arguments":{"a":"\\ud800"}},"id":null',
        b'{"name":"t","arguments":{"a":"\\ud800"}},"jsonrpc":"\\ud800"',
        b'["\\ud800"]',
    ],
)
def test_broken_text_elsewhere_in_a_call_is_refused_or_left_to_the_handler(params: bytes) -> None:
    line = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":' + params + b"}"
    with contextlib.suppress(Malformed):
        assert isinstance(decode(line), JSONRPCRequest)


def test_a_malformed_response_gets_no_answer() -> None:
    with pytest.raises(Malformed) as caught:
        decode(b'{"jsonrpc":"2.0","id":[],"result":{}}')
    assert caught.value.reply is None


@given(st.binary())
def test_any_bytes_are_a_message_or_malformed(line: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(line)


def test_a_message_is_one_line_with_its_text_kept() -> None:
    text = 'NUL \0, line end \n, emoji \U0001f600, quote "'
    line = encode(JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": text}))
    assert line.count(b"\n") == 1
    assert json.loads(line)["result"]["text"] == text


def test_an_answer_that_json_cannot_hold_becomes_an_error_for_its_request() -> None:
    line = encode(JSONRPCResponse(jsonrpc="2.0", id="q", result={"text": "\ud800"}))
    answer = json.loads(line)
    assert (answer["id"], answer["error"]["code"]) == ("q", INTERNAL_ERROR)


def test_the_answer_to_a_long_line_tells_the_limit() -> None:
    assert "5 bytes" in too_long(limit=5).error.message
