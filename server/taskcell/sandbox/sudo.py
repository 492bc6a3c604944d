"""sudo in a sandbox: handing PID 1 the password that sudo will ask for, and what to say where sudo cannot work."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator

import anyio
import structlog

from taskcell.errors import SandboxLost
from taskcell.model import Profile
from taskcell.policy.capabilities import as_mask, root_capabilities
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)

#: Seconds for the supervisor to move one program and to hash one password, on a machine that is busy.
SET_UP_TIMEOUT = 15.0
#: Random bytes of a generated password.
_GENERATED_BYTES = 24


class _Answer:
    """Listens for the supervisor's word on sudo."""

    def __init__(self) -> None:
        self.told = anyio.Event()
        self.problem: str | None = None

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Sudo):
            self.problem = event.problem
            self.told.set()

    def on_lost(self, reason: str) -> None:
        self.told.set()


async def set_up(channel: Channel, profile: Profile, password: str | None) -> str:
    """Let the profile's user become root by sudo, before the sandbox's first command; answers a problem, or nothing.

    Arguments:
        password: what the image's user has already; None gives the user a random one, known to nobody else.

    Raises SandboxLost, also when the supervisor does not answer.
    """
    flags = protocol.SudoFlag.SET_PASSWORD if password is None else protocol.SudoFlag.NONE
    secret = secrets.token_urlsafe(_GENERATED_BYTES) if password is None else password
    answer = _Answer()
    channel.listen_to_all(answer)
    mask = as_mask(root_capabilities(profile))
    await channel.send(requests.sudo(profile.user.encode(), secret.encode("utf-8", "surrogateescape"), mask, flags))
    with anyio.move_on_after(SET_UP_TIMEOUT):
        await answer.told.wait()
    if answer.problem is None:
        raise SandboxLost("The sandbox is gone: its supervisor does not answer.")
    if answer.problem:
        log.warning("sudo cannot work in a sandbox", profile=profile.name, image=profile.image, reason=answer.problem)
    return answer.problem


def notes_on_sudo(profile: Profile, text: str, problem: str) -> list[str]:
    """One sentence where a command calls sudo and cannot have it, judged by the command's own words alone.

    Arguments:
        text: the command as a person reads it.
        problem: what the supervisor found when sudo was set up; empty when it works.
    """
    if profile.sudo and not problem:
        return []
    if not calls_sudo(text):
        return []
    if problem:
        return [f"sudo cannot work in this sandbox: {problem}. Ask the operator for an image with sudo and that user."]
    table = "[terminal]" if profile.kind == "terminal" else f"[skills.{profile.name}.docker]"
    return [
        f"The profile '{profile.name}' has no sudo; do the task without root, or have the operator set sudo = true in "
        f"{table} and allow_sudo = true in [policy]."
    ]


_SUDO = re.compile(r"(?:\S*/)?sudo(?:edit)?")
_SUBSTITUTED = re.compile(r"(?:\$\(|`)\s*(?:[\w./-]*/)?sudo(?:edit)?(?![\w-])")
#: Words after which a command still begins, with their options and numbers between.
_BEFORE_A_COMMAND = frozenset(
    (
        "!", "{", "builtin", "command", "coproc", "do", "elif", "else", "env", "eval", "exec", "if", "ionice", "nice",
        "nohup", "setsid", "stdbuf", "then", "time", "timeout", "until", "watch", "while", "xargs",
    )
)  # fmt: skip
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)
_OPTION_OR_NUMBER = re.compile(r"-.*|[0-9.]+[smhd]?", re.DOTALL)
#: What a line goes on after, and a document in the line, which is somebody's input. `<<<` begins none, nor does a shift
#: in `((…))`; one without an end goes on to the end of what is looked at.
_CONTINUED = re.compile(r"\\\n")
_DOCUMENT = re.compile(
    r"(?<!<)<<-?[ \t]*[\"'\\]?(?P<end>[\w.-]{1,64})[\"']?(?![^\n]*\)\))(?P<rest>[^\n]*)\n"
    r"(?:[^\n]*\n)*?(?:[ \t]*(?P=end)[ \t]*(?=\n|\Z)|[^\n]*\Z)"
)
#: Options of find(1) that a command follows.
_EXECUTES = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
#: Characters of a command that are looked at; a script that is longer only costs its note.
_MOST_TEXT = 8192
#: How deep `sh -c '…'` is looked into; deeper ones only cost a note.
_DEPTH = 3


def calls_sudo(text: str, depth: int = _DEPTH) -> bool:
    """Whether a shell line has sudo where a command's name stands, and not just as a word.

    It reads as a shell would in common lines, and misses what only running it could tell: a script that calls sudo, an
    alias, a variable.
    """
    if "sudo" not in text:
        return False
    text = _DOCUMENT.sub(r"\g<rest>", _CONTINUED.sub(" ", text[:_MOST_TEXT]))
    expects_command, after, in_comment, runs_lines = True, "", False, _runs_lines(text)
    for word, is_operator in _words(text):
        if is_operator:
            in_comment = in_comment and "\n" not in word
            expects_command = "<" not in word and ">" not in word
            after = ""
        elif in_comment or word.startswith("#"):
            in_comment = True
        elif _SUBSTITUTED.search(word):
            return True
        elif expects_command:
            name = word.lstrip("`$")
            if _SUDO.fullmatch(name):
                return True
            if name in _BEFORE_A_COMMAND:
                after = name
            elif _OPTION_OR_NUMBER.fullmatch(word) and after:
                # `command -v sudo` only asks where it is.
                expects_command = not (after == "command" and word in ("-v", "-V"))
            elif not _ASSIGNMENT.fullmatch(word):
                expects_command = False
        elif word in _EXECUTES:
            expects_command = True
        elif depth and runs_lines and calls_sudo(word, depth - 1):
            return True
    return False


def _runs_lines(text: str) -> bool:
    """Some word of the line is a shell's `-c`, or eval: a quoted word may be a command line itself."""
    return re.search(r"\b(?:sh|bash|dash|zsh)\s+(?:-\w+\s+)*-\w*c\b|\beval\b", text) is not None


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Words and operators, unquoted; a line that no shell would take ends early."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    try:
        for word in lexer:
            yield word, bool(word) and not word.strip("();<>|&\n")
    except ValueError:
        return
