"""What a program sends to have a command run: JSON, checked by hand, because every word of it means itself."""

from __future__ import annotations

import base64
import binascii
import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from taskcell.errors import BadArgument, ErrorCode
from taskcell.gateway.apart import WantedRun
from taskcell.model import MIB
from taskcell.supervisor.protocol import STDIN_CHUNK
from taskcell.text import shown
from taskcell.tools.binding import MAX_ARGUMENT
from taskcell.tools.terminal import environment_of

#: Bytes of a body of JSON: arguments and variables are below a frame to the supervisor (4 MiB), as is a file's text.
MAX_JSON = 16 * MIB
#: Bytes of all arguments, with a pointer to each: what Linux takes beside a stack of 8 MiB, the usual one (execve(2)).
MAX_ARGV, _POINTER = 2 * MIB, 8
#: Seconds that a reader of output may take nothing: whoever reads that slowly for so long has gone.
OUTPUT_PATIENCE = 3600.0
#: Seconds that a command may live on without its reader: as long as a reader may take nothing.
MAX_LINGER = OUTPUT_PATIENCE
_FIELDS = {
    "argv": "a list of texts",
    "line": "a text",
    "cwd": "a text",
    "env": "an object of texts",
    "user": "a text",
    "timeout": "a number of seconds, or null for none",
    "stdin": "base64",
    "input": "true or false",
    "linger": "a number of seconds",
}


def wanted_of(body: bytes) -> WantedRun:
    """Return the command that a body describes. Raises BadArgument."""
    fields = json_object(body, _FIELDS)
    argv, line = fields.get("argv"), fields.get("line")
    if (argv is None) == (line is None):
        raise BadArgument("Give either 'argv', the program and its arguments, or 'line', a line for the shell.")
    words = _words(argv) if argv is not None else []
    takes_input = _typed(fields, "input", bool, False)
    given, linger = _stdin(fields.get("stdin", "")), _linger(fields.get("linger", 0))
    if linger and len(given) > STDIN_CHUNK:
        raise BadArgument(
            f"With 'linger', 'stdin' has at most {STDIN_CHUNK} bytes, which go with the command's start; send more by "
            "'input': true and the route …/stdin.",
            code=ErrorCode.TOO_LARGE,
        )
    return WantedRun(
        argv=words,
        line=None if line is None else line_of(line),
        text=shlex.join(words) if line is None else line,
        stdin=None if takes_input else given,
        workdir=_word("cwd", fields["cwd"]) if fields.get("cwd") is not None else None,
        env=_env(_typed(fields, "env", dict, {})),
        user=_user(fields.get("user") or ""),
        timeout=run_timeout(fields),
        linger=linger,
    )


def _linger(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_LINGER:
        raise BadArgument(f"'linger' must be a number of seconds from 0 to {MAX_LINGER:g}.")
    return float(value)


def run_timeout(fields: Mapping[str, Any]) -> float:
    """Return the field `timeout`, `math.inf` where it is null or missing. Raises BadArgument."""
    timeout = fields.get("timeout")
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise BadArgument("'timeout' must be a number of seconds above 0, or null for none.")
    return float(timeout)


def json_object(body: bytes, known: Mapping[str, str]) -> dict[str, Any]:
    """Return an object of JSON whose fields are all known; null is what is left out. Raises BadArgument.

    Arguments:
        known: fields, with what each may be.
    """
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise BadArgument("The body is not JSON in UTF-8.") from None
    if not isinstance(fields, dict):
        raise BadArgument("The body must be an object of JSON.")
    for name in fields:
        if name not in known:
            raise BadArgument(f"There is no field {name!r}; there are {', '.join(known)}.")
    return {name: value for name, value in fields.items() if value is not None}


def _typed(fields: Mapping[str, Any], name: str, kind: type, usual: Any) -> Any:
    value = fields.get(name, usual)
    if not isinstance(value, kind):
        raise BadArgument(f"'{name}' must be {_FIELDS[name]}.")
    return value


def _words(argv: Any) -> list[str]:
    if not isinstance(argv, list) or not argv:
        raise BadArgument("'argv' must be a list of texts, the program first.")
    words = [_word("argv", word) for word in argv]
    sizes = [len(word.encode("utf-8", "surrogateescape")) + 1 for word in words]
    if max(sizes) > MAX_ARGUMENT or sum(sizes) + _POINTER * len(sizes) > MAX_ARGV:
        raise BadArgument(
            f"Linux takes {MAX_ARGUMENT - 1} bytes in one argument, and {MAX_ARGV} in all of them, with {_POINTER} "
            "for each; pass more through stdin or a file.",
            code=ErrorCode.TOO_LARGE,
        )
    return words


def line_of(line: Any) -> str:
    """Return a line for a shell. Raises BadArgument."""
    word = _word("line", line)
    if len(word.encode("utf-8", "surrogateescape")) >= MAX_ARGUMENT:
        raise BadArgument(
            f"'line' has more than the {MAX_ARGUMENT - 1} bytes that one argument of a program may have; pass a script "
            "through the stdin of a shell, or write it to a file.",
            code=ErrorCode.TOO_LARGE,
        )
    return word


def _word(name: str, word: Any) -> str:
    """Return a word that can be an argument of a program. A byte that is not UTF-8 is U+DC80 to U+DCFF (PEP 383)."""
    if not isinstance(word, str):
        raise BadArgument(f"'{name}' must be {_FIELDS[name]}.")
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadArgument(f"'{name}' holds half of a character; send whole ones.") from None
    if "\0" in word:
        raise BadArgument(f"'{name}' holds a NUL byte, which no argument of a program can; pass it through stdin.")
    return word


def _env(variables: Mapping[str, Any]) -> Mapping[str, str]:
    for name, value in variables.items():
        if not isinstance(value, str):
            raise BadArgument(f"'env' must be an object of texts, and the value of {shown(name, 40)} is none.")
    return environment_of(variables)


def _user(user: Any) -> str:
    word = _word("user", user)
    if ":" in word or word.startswith(("-", "#")):
        raise BadArgument("'user' must be the name or number of a user of the image, without a group.")
    return word


def _stdin(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadArgument("'stdin' must be base64; send long input with 'input': true and the route …/stdin.") from None
