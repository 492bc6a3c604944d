"""How large the answer to a request may get, and what else may be in flight beside it."""

from __future__ import annotations

from mcp_types import JSONRPCRequest

from taskcell.files.limits import MAX_PICTURE, MAX_RESOURCE
from taskcell.mcp.transport.in_flight import Kind, KindOf
from taskcell.model import DEFAULT_TASK, MIB

#: Bytes of one file as base64: the largest answer that there is.
FILE_ANSWER = 4 * max(MAX_PICTURE, MAX_RESOURCE) // 3
#: Bytes of an answer beside the output in it: its fields, and its envelope.
ENVELOPE = 16 << 10
#: Bytes in flight of files, and of all other calls. Four of the largest files fit, so that one which is slow to read
#: does not hold up the others; and 500 calls with the default of `output_chars`.
LANE_LIMIT = 32 * MIB
#: Calls that run at once at least, however large the operator lets their answers be.
CALLS_AT_ONCE = 16
#: Their answers are a few bytes, and nothing waits behind them.
SMALL = frozenset({"initialize", "ping"})


def kinds(output_chars: int) -> KindOf:
    """Two lanes, so that calls run on while files wait for a client to take them.

    Arguments:
        output_chars: characters of text in one answer. They count as one byte each: those of more bytes count when the
            answer is made.
    """
    call = output_chars + ENVELOPE
    calls = Kind("calls", max(LANE_LIMIT, CALLS_AT_ONCE * call), call)
    files = Kind("files", LANE_LIMIT, FILE_ANSWER)

    def kind_of(request: JSONRPCRequest) -> Kind | None:
        if request.method in SMALL:
            return None
        params = request.params or {}
        is_file = request.method == "resources/read" or params.get("name") == "read_file"
        return (files if is_file else calls)._replace(task=_task(request))

    return kind_of


def _task(request: JSONRPCRequest) -> str | None:
    """The task of a tool's call. What is not the name of one is refused later, and waits for nothing."""
    if request.method != "tools/call":
        return None
    arguments = (request.params or {}).get("arguments")
    task = arguments.get("task_id") if isinstance(arguments, dict) else None
    return DEFAULT_TASK if task is None else task if isinstance(task, str) else None
