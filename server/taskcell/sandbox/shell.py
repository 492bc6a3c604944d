"""How a shell runs a terminal command so that where it ends is known, though the command sees and feels nothing of it.

A command that can change neither folder nor exported variables runs as it is. For bash, any other one runs as it is
too, after a file that bash reads first (BASH_ENV): it sets an EXIT trap which reports by builtins alone, to a FIFO that
only the supervisor reads. Other shells get that trap on the command's own line.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

#: Of the file that bash reads first, beside the FIFO.
PROLOGUE_SUFFIX = ".bash"
_MARKER = b"\0taskcell\0"
#: The report: the folder, the variables, the functions, each with a NUL behind it. It uses builtins alone: no limit on
#: processes, files or arguments stands in its way, and bash raises a signal that ends it once more after the trap.
_IN_BASH = (
    r"{ \builtin printf '\0taskcell\0'; \builtin pwd -P || :; \builtin printf '\0'; \builtin export -p; "
    r"\builtin printf '\0'; \builtin export -fp; \builtin printf '\0'; } 2>/dev/null >"
)
#: The same in words that every shell knows; only bash exports functions.
_ANYWHERE = r"{ printf '\0taskcell\0'; pwd -P; printf '\0'; export -p; printf '\0\0'; } 2>/dev/null >"
_TRAPS = Path(__file__).with_name("report_traps.bash").read_text("utf-8")
#: A shell that `exec` replaces runs no EXIT trap, so it reports just before.
_BEFORE_EXEC = r"{ [[ $BASH_COMMAND != ?(command\ |builtin\ )exec\ [!0-9\<\>{]* ]] || %s; } 2>/dev/null"

#: Whatever could change the folder or an exported variable has one of these in it, once quotes and backslashes are
#: gone: an expansion or an assignment, or the name of a builtin that does it.
_QUOTES = re.compile(r"[\\'\"]")
_MAY_CHANGE = re.compile(
    r"[$`={]|(?:^|[\s;&|(!])\.\s|\b(?:cd|pushd|popd|export|declare|typeset|local|readonly|unset|source|eval|set|read|"
    r"printf|mapfile|readarray|getopts|let|for|select|coproc|wait|trap|exec|builtin|command|shopt|ulimit)\b"
)
_TRAP = re.compile(r"\btrap\b")
#: `exec PROGRAM` where a command may stand, and not `exec 3>file`.
_EXEC = re.compile(
    r"(?:^|[\n;&|(){}!]|\b(?:then|do|else|time)\b)[ \t]*(?:(?:command|builtin)[ \t]+)?exec[ \t]+[^0-9<>{\s]"
)
#: What separates the parts of a line; patterns that match in one of them, one after the other; a part of a sentence.
Unreported = tuple[re.Pattern[str], tuple[str, ...], str]
_COMMANDS, _LINES = re.compile(r"[\n;|&]"), re.compile(r"\n")
#: What would show the report, or keep it from being made, with the reason that the answer gives: patterns that match
#: one after the other in one command or line. One pattern with gaps takes the square of the line's length to try.
_UNREPORTABLE: tuple[Unreported, ...] = (
    (_COMMANDS, (r"\b(?:set|shopt)\b", r"\s-[a-zA-Z]*v|\bverbose\b"), "it shows what the shell reads (set -v)"),
    (_LINES, (r"\bBASH_XTRACEFD\b",), "it sets BASH_XTRACEFD"),
    (_LINES, (r"\btrap\b", r"\b(?:DEBUG|RETURN)\b"), "it sets a DEBUG or RETURN trap"),
    (_COMMANDS, (r"\bulimit\b", "n", r"\b\d{1,2}\b"), "it leaves the shell too few open files"),
    # A shell with a trap starts its last command as a process of its own, where one without becomes that command.
    (_COMMANDS, (r"\bulimit\b", "u", r"\b\d{1,3}\b"), "it leaves the shell too few processes"),
)
#: The same of lines that name `trap`, which a function stands for: POSIX mode finds the builtin before it, and a list
#: of functions shows it.
_UNTRAPPABLE: tuple[Unreported, ...] = (
    (_COMMANDS, (r"\b(?:set|shopt)\b", r"\bposix\b"), "it names traps in POSIX mode"),
    (_COMMANDS, (r"\bPOSIXLY_CORRECT\b",), "it names traps in POSIX mode"),
    (_COMMANDS, (r"\b(?:declare|typeset)\b", r"\s-[a-zA-Z]*[fF]"), "it names traps and lists functions"),
    (_COMMANDS, (r"\btype\b|\bcommand\s+-V", r"\btrap\b"), "it names traps and lists functions"),
    (_COMMANDS, (r"^\s*set\s*(?:[<>]|\Z)|\bcompgen\b",), "it names traps and lists functions"),
)
_DECLARED = re.compile(
    rb"(?:(?:declare|typeset) -(?P<kinds>[A-Za-z]+)|export) (?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<equals>=?)"
)
#: One piece of a word as shells print it: '…', "…", $'…', \c, or bare characters.
_PIECE = re.compile(
    rb"'(?P<single>[^']*)'"
    rb'|"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"'
    rb"|\$'(?P<ansi>[^'\\]*(?:\\.[^'\\]*)*)'"
    rb"|\\(?P<escaped>.)"
    rb"|(?P<bare>[^\s'\"\\$]+|\$)",
    re.DOTALL,
)
_IN_DOUBLE = re.compile(rb'\\([$`"\\\n])')
_ANSI = re.compile(
    rb"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9A-Fa-f]{1,2})|u(?P<u4>[0-9A-Fa-f]{1,4})|U(?P<u8>[0-9A-Fa-f]{1,8})"
    rb"|c(?P<control>.)|(?P<letter>.))",
    re.DOTALL,
)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"E": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_LETTERS[b"v"] = b"\v"
#: `export -fp`: how each function begins; a line that says that it is exported ends it.
_FUNCTION = re.compile(rb"(?P<name>[^\s()]+) \(\) ?\n(?=\{ )")


class Way(Enum):
    """How a shell comes to report where a command ends."""

    NONE = "not at all"
    INLINE = "by a trap on the command's own line"
    PROLOGUE = "by a trap that bash sets first"
    PROLOGUE_EXEC = "by that trap, and before an exec"
    PROLOGUE_TRAPS = "by a trap that leaves room for the command's own"


@dataclass(frozen=True, slots=True)
class ShellRun:
    """How one line is given to a shell.

    Arguments:
        line: the command.
        bash_env: the user's own BASH_ENV, which bash reads after ours; None: none.
        unreported: why it does not report though it may change something; a part of a sentence.
    """

    line: str
    way: Way = Way.NONE
    bash_env: str | None = None
    unreported: str = ""

    def argument(self, fifo: str) -> str:
        """The shell's last argument. `fifo`: path of the report."""
        # On the command's own first line, so that its line numbers stay right.
        return f"{_on_exit(report_now(fifo))}; {self.line}" if self.way is Way.INLINE else self.line

    def prologue(self, fifo: str, name: str) -> str:
        """What bash reads first; empty: nothing. `name`: what bash is called by."""
        if self.way in (Way.NONE, Way.INLINE):
            return ""
        report = _IN_BASH + shlex.quote(fifo)
        words = _TRAPS.replace("@REPORT@", report)
        if self.way is not Way.PROLOGUE_TRAPS:
            before = f"; trap -- {shlex.quote(_BEFORE_EXEC % report)} DEBUG" if self.way is Way.PROLOGUE_EXEC else ""
            words = f"{{ {_on_exit(report)}{before}; unset BASH_ENV; }} 2>/dev/null\n"
        if self.bash_env is not None:
            words += f'export BASH_ENV={shlex.quote(self.bash_env)}\n[[ ! -r $BASH_ENV ]] || . "$BASH_ENV"\n'
        # The last word of the last command is what `$_` begins with.
        return f"{words}: {shlex.quote(name)}\n"


def _on_exit(report: str) -> str:
    return f"trap -- {shlex.quote(report)} EXIT"


@dataclass(frozen=True, slots=True)
class Ended:
    """Where a command ended. `folder` is empty where it is gone; `env` holds the exported variables."""

    folder: str
    env: Mapping[str, str]


def may_change_state(line: str) -> bool:
    """Whether a command could end in another folder, or with other exported variables, than it began with.

    Errs on the side of yes: quotes are taken away first, and any expansion or assignment counts.
    """
    return _MAY_CHANGE.search(_QUOTES.sub("", line)) is not None


def is_bash(shell: Sequence[str]) -> bool:
    """Whether a shell, as a program with its first arguments, is bash by its name."""
    return posixpath.basename(shell[0]) == "bash"


def plan(line: str, shell: str, env: Mapping[str, str]) -> ShellRun:
    """How to run a line.

    Arguments:
        shell: path of the shell.
        env: what the shell starts with.
    """
    # A function may hide behind any word, and the file that BASH_ENV names is read before any line.
    hides_more = any(name.startswith("BASH_FUNC_") or name == "BASH_ENV" for name in env)
    if not may_change_state(line) and not hides_more:
        return ShellRun(line)
    if reason := _unreportable(line):
        return ShellRun(line, unreported=reason)
    if not is_bash([shell]) or "POSIXLY_CORRECT" in env:
        if _TRAP.search(line):
            return ShellRun(line, unreported="it names traps, of which this shell has but one for its end")
        return ShellRun(line, Way.INLINE)
    way = Way.PROLOGUE_EXEC if _EXEC.search(line) else Way.PROLOGUE
    return ShellRun(line, Way.PROLOGUE_TRAPS if _TRAP.search(line) else way, env.get("BASH_ENV"))


def _unreportable(line: str) -> str:
    """Return why a line leaves no report, or nothing."""
    for between, patterns, reason in (*_UNREPORTABLE, *(_UNTRAPPABLE if _TRAP.search(line) else ())):
        if _follow_each_other(patterns, between.split(line)):
            return reason
    return ""


def _follow_each_other(patterns: Iterable[str], parts: Iterable[str]) -> bool:
    """Whether all patterns match in one of the parts, each behind the one before it."""
    for part in parts:
        at = 0
        for pattern in patterns:
            found = re.compile(pattern).search(part, at)
            if found is None:
                break
            at = found.end()
        else:
            return True
    return False


def report_now(fifo: str) -> str:
    """A command for any shell that reports at once."""
    return _ANYWHERE + shlex.quote(fifo)


def parse_report(report: bytes) -> Ended | None:
    """Read the last whole report. None where there is none: the command may have written something else to the FIFO."""
    for text in reversed(report.split(_MARKER)[1:]):
        folder, _, rest = text.partition(b"\0")
        exports, _, rest = rest.partition(b"\0")
        functions, end, _ = rest.partition(b"\0")
        env = _exports(exports) if end and folder[:1] in (b"", b"/") else None
        if env is not None:
            for name, body in _functions(functions):
                env[b"BASH_FUNC_" + name + b"%%"] = b"() " + body
            return Ended(_text(folder.removesuffix(b"\n")), {_text(name): _text(value) for name, value in env.items()})
    return None


def _functions(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and bodies that `export -fp` printed, in time that grows with the text and not faster."""
    at = 0
    while begin := _FUNCTION.match(text, at):
        end = re.compile(rb"\n(?:declare -[a-z]+|export -f) %s\n" % re.escape(begin["name"])).search(text, begin.end())
        if end is None:
            return
        yield begin["name"], text[begin.end() : end.start()]
        at = end.end()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _exports(text: bytes) -> dict[bytes, bytes] | None:
    """What `export -p` printed; None where it is something else."""
    env: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        found = _DECLARED.match(text, at)
        if found is None:
            return None
        at = found.end()
        value: list[bytes] = []
        # bash lists arrays, `([0]="a" [1]="b")`, and passes none of them on.
        is_array = re.search(rb"[aA]", found["kinds"] or b"") is not None
        while at < len(text) and text[at] != ord("\n"):
            if is_array and text[at] == ord(" "):
                at += 1
                continue
            piece = _PIECE.match(text, at)
            if piece is None:
                return None
            value.append(_unquoted(piece))
            at = piece.end()
        at += 1
        if found["equals"] and not is_array:
            env[found["name"]] = b"".join(value)
    return env


def _unquoted(piece: re.Match[bytes]) -> bytes:
    kind = piece.lastgroup
    assert kind is not None
    data: bytes = piece[kind]
    match kind:
        case "double":
            return _IN_DOUBLE.sub(lambda found: b"" if found[1] == b"\n" else found[1], data)
        case "ansi":
            return _ANSI.sub(_ansi, data)
        case _:
            return data


def _ansi(found: re.Match[bytes]) -> bytes:
    if (octal := found["octal"]) is not None:
        return bytes([int(octal, 8) & 0xFF])
    if (two := found["hex"]) is not None:
        return bytes([int(two, 16)])
    if (point := found["u4"] or found["u8"]) is not None:
        number = int(point, 16)
        return chr(number).encode("utf-8", "surrogatepass") if number < 0x110000 else b""
    if (control := found["control"]) is not None:
        return bytes([control[0] & 0x1F])
    letter: bytes = found["letter"]
    return _LETTERS.get(letter, letter)
