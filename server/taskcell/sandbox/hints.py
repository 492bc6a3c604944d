"""Notes that save a turn: what a failed command runs into in this sandbox, which its own words do not say.

What was printed is only the reason to speak: everything that a note says is a fact of the profile or of the tools that
are offered, so that no output can make one untrue.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from taskcell.model import WORKSPACE, Profile
from taskcell.process.output import Excerpt
from taskcell.process.record import Record
from taskcell.sandbox.egress_notes import note_on_the_proxy
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import PATH_SHOWN, shown

#: Returns the names of the offered tools whose image has a program or Python module, and is not the image given.
Elsewhere = Callable[[str, str], Sequence[str]]

#: Characters that are read of the end of the output, of the beginning of a command, and of each end of one line. A
#: reason stands in the last lines, and Maven's at the end of a long one.
TAIL, MOST_TEXT, LINE = 4096, 4096, 400
#: Missing names that are looked for, and tools that one note names.
MOST_NAMES, MOST_TOOLS = 8, 4

#: How programs say that they reached no host: glibc, musl, Node, Go, Rust, Java, curl, wget, git, apt, pip.
_UNREACHED = re.compile(
    r"(?:name|host|address|lookup|resolv|getaddrinfo|Errno -3)[^\n]{0,200}"
    r"(?:Temporary failure in name resolution|Name or service not known|Try again)"
    r"|\[Errno -3\] |\bEAI_AGAIN\b|Could(?: not|n't) resolve (?:host|proxy)|Temporary failure resolving '"
    r"|unable to (?:resolve host address|look up )|failed to lookup address information|: bad address '"
    r"|dial tcp: lookup |\bUnknownHostException\b|\bNetwork is unreachable\b|\bENETUNREACH\b"
    r"|urlopen error \[Errno -[23]\]"
    r"|Failed to connect to (?!localhost|127\.|0\.0\.0\.0)[\w-]+(?:\.[\w-]+)+ port"
)
#: About the machine's own name, not about another one.
_OWN_NAME = re.compile(r"^(?:sudo|hostname): ", re.MULTILINE)
#: pip says no more than this when its output was cut.
_PIP_FOUND_NONE = re.compile(r"\(from versions: none\)|No matching distribution found for ")
_PIP_ELSEWHERE = re.compile(r"--no-index|--index-url|--find-links|\s-[if]\b")
_BEGIN = r"(?:^|[\n;&|(])[ \t]*(?:(?:sudo|time|exec|timeout[ \t]+\S+|\w+=[^\s;&|]*)[ \t]+){0,4}"
#: A command that goes to the network, where a command begins.
_GOES_OUT = re.compile(
    _BEGIN + r"(?:[^\s;&|()]{0,200}/)?(?:apk|apt|apt-get|bundle|cargo|composer|conda|curl|dnf|gem|git|go|gradle|mvn|nc"
    r"|npm|npx|ping|pip3?|pnpm|poetry|python3?|rsync|scp|ssh|uv|wget|yarn|yum)[ \t]"
)
#: curl and wget, which can be silent, with an address that is not the sandbox's own.
_FETCHES = re.compile(
    _BEGIN + r"(?:curl|wget)[ \t](?![^\n;&|]*--(?:resolve|connect-to|unix-socket|proxy)\b)[^\n;&|]{0,400}?"
    r"\bhttps?://(?!localhost\b|127\.|0\.0\.0\.0|\[)(?:[^\s/@'\"]*@)?[\w-]+(?:\.[\w-]+)+"
)
#: Package managers of the system that were not root.
_NEEDS_ROOT = re.compile(
    r"^E: (?:Could not open lock file|Unable to (?:acquire the dpkg frontend lock|lock directory)|List directory) "
    r"|^dpkg: error: requested operation requires superuser"
    r"|^ERROR: Unable to (?:lock|open) (?:database|lock)|^Error: This command has to be run (?:with|under)",
    re.MULTILINE,
)
_READ_ONLY = re.compile(r"\b[Rr]ead-only file system\b")
#: Where the official images of Go and Rust have these point to, their tools cannot write in a read-only sandbox.
_HOMES = {"cargo": "CARGO_HOME", "go": "GOPATH"}
_HAS_HOME = re.compile(_BEGIN + r"(?:[^\s;&|()]{0,200}/)?(cargo|go)[ \t]")
#: cargo makes the folder for its index before it asks the network.
_CARGO_FETCHES = re.compile(r"^ +[Uu]nable to update registry `crates-io`", re.MULTILINE)
_NAME = r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.+-]{0,63})"
#: The same with or without quotes, as GNU's programs write them in UTF-8 and in C.
_QUOTED = rf"[\u2018'\"]?{_NAME}[\u2019'\"]?"
#: How shells and starters of programs say that there is no such program.
_NO_PROGRAM = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"^[^\n:]{{1,200}}: (?:line )?\d+: (?:type: |hash: )?{_NAME}: (?:command )?not found$",
        rf"^(?:\S*/)?(?:ba|da|a|k|z)?sh: {_NAME}: (?:command )?not found$",
        rf"^(?:\S*/)?(?:env|make(?:\[\d+\])?|xargs): {_QUOTED}: No such file or directory$",
        rf"^(?:nice|nohup|setsid|stdbuf|timeout): failed to (?:run command|execute) {_QUOTED}: No such file or "
        r"directory$",
        rf"^FileNotFoundError: \[Errno 2\] No such file or directory: '{_NAME}'$",
        rf"\bspawn {_NAME} ENOENT\b",
    )
)
_NO_MODULE = re.compile(
    rf"^(?:ModuleNotFoundError: No module named '|ERROR: No matching distribution found for ){_NAME}",
    re.MULTILINE,
)
#: Functions that a file defines for the shell that reads it, and the variable that such a file exports.
_SOURCED = {
    "deactivate": "VIRTUAL_ENV",
    "nvm": "NVM_DIR",
    "pyenv": "PYENV_ROOT",
    "sdk": "SDKMAN_DIR",
    "rvm": "rvm_path",
}
#: Asks where programs are, at the end of a line, so that the exit code is its own. With its output redirected or piped,
#: nobody sees the answer.
_ASKS = re.compile(_BEGIN + r"(?:which|command[ \t]+-v|type(?:[ \t]+-[pPt])?)[ \t]+([\w.+ \t-]{1,200})\n?\Z")


def nowhere(name: str, image: str) -> Sequence[str]:
    """Know of no other tool."""
    return ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, or stands.

    Arguments:
        text: the command.
        code: its exit code; None while it runs, or if it has none.
        output, errors: what it printed; for a terminal both are in `output`.
        isolated: its sandbox keeps it from the machine's own network.
        elsewhere: see `Elsewhere`.
        earlier: how the terminal's earlier commands begin.
        exported: names of the variables that commands have exported.
        proxied: it has a proxy for the hosts that its profile names.
    """

    profile: Profile
    text: str
    code: int | None
    output: str
    errors: str
    isolated: bool
    elsewhere: Elsewhere
    earlier: Sequence[str] = ()
    exported: Collection[str] = ()
    proxied: bool = False

    @property
    def has_network(self) -> bool:
        return not self.isolated or self.profile.network != "none" or self.proxied

    @property
    def needs_proxy(self) -> bool:
        """What it reaches, it reaches by its proxy alone."""
        return self.proxied and self.isolated


def hints_on(
    sandbox: Sandbox, record: Record, text: str, texts: tuple[Excerpt, Excerpt], elsewhere: Elsewhere
) -> list[str]:
    """Return the hints on a process as it stands.

    Arguments:
        text: its command, or how that begins.
        texts: what its answer shows of its output.
    """
    ended = record.process.exit
    code = None if ended is None or ended.signal else ended.exit_code
    if needs_none(code, text):
        return []
    return hints(
        Outcome(
            profile=sandbox.profile,
            text=text,
            code=code,
            output=texts[0].text,
            errors=texts[1].text,
            isolated=not sandbox.container.is_child,
            elsewhere=elsewhere,
            earlier=[other.about.text for other in sandbox.processes if other is not record],
            exported=sandbox.spawner.exported,
            proxied=sandbox.egress is not None,
        )
    )


def first_hint(sandbox: Sandbox) -> list[str]:
    """Return, once, which programs an image has that the terminal's description says nothing about."""
    programs, sandbox.spawner.programs = sandbox.spawner.programs, ()
    return [f"Programs in this image: {', '.join(programs)}."] if programs else []


def beside_the_terminal(sandbox: Sandbox, path: str) -> str:
    """Return what a relative path would name if it began where the terminal is; empty if that is where it begins.

    Arguments:
        path: as a file tool takes it.
    """
    if path.startswith(("/", "~")):
        return ""
    folder, workspace = sandbox.spawner.next_folder, sandbox.container.workspace
    inside = posixpath.relpath(folder, workspace) if f"{folder}/".startswith(f"{workspace}/") else None
    whole = posixpath.normpath(posixpath.join(WORKSPACE, folder if inside is None else inside, path))
    return "" if whole == posixpath.normpath(posixpath.join(WORKSPACE, path)) else whole


def relative_hint(found: str) -> str:
    """Say that a file is where the terminal is, and not where a relative path begins. `found`: its path."""
    return f"{shown(found, PATH_SHOWN)} exists, where the terminal is: a relative path begins at {WORKSPACE}."


def needs_none(code: int | None, text: str) -> bool:
    """Whether a command succeeded, and cannot have failed at the network before its end, as in front of a pipe to tail.

    Arguments:
        code, text: as in `Outcome`.
    """
    text = text[:MOST_TEXT]
    return code == 0 and (re.search(r"[|;\n]", text) is None or _GOES_OUT.search(text) is None)


def hints(outcome: Outcome) -> list[str]:
    """Return what would save the caller a turn: at most one sentence of each kind, most often none."""
    if needs_none(outcome.code, outcome.text):
        return []
    text = outcome.text[:MOST_TEXT]
    tail = "\n".join(
        _ends(line) for part in (outcome.output, outcome.errors) for line in part[-TAIL:].splitlines() if line
    )
    names = dict.fromkeys([*_missing_programs(outcome, text, tail), *_missing_modules(tail)])
    found = [*_defined_before(outcome, names), *_elsewhere(outcome, names)][:1]
    return [*found, *_packages_or_network(outcome, text, tail)] or _read_only(outcome, text, tail)


def _ends(line: str) -> str:
    return line if len(line) <= 2 * LINE else f"{line[:LINE]}\n{line[-LINE:]}"


def _read_only(outcome: Outcome, text: str, tail: str) -> list[str]:
    """Say how a language's tool writes elsewhere than to the image."""
    called = (_HOMES[tool] for tool in _HAS_HOME.findall(text))
    variable = next((name for name in called if name not in outcome.exported), None)
    if variable is None or not (outcome.isolated and outcome.profile.read_only and _READ_ONLY.search(tail)):
        return []
    elsewhere = f"{WORKSPACE}/.{variable.lower()}"
    return [f"The image's folders are read-only here: run `export {variable}={elsewhere}`, then the command again."]


def _packages_or_network(outcome: Outcome, text: str, tail: str) -> Iterator[str]:
    if _NEEDS_ROOT.search(tail) and outcome.isolated and not outcome.profile.sudo:
        without = "neither root nor network" if not outcome.has_network else "no root"
        yield f"This sandbox has {without}, so packages of the system cannot be installed in it."
    elif not outcome.has_network and _is_cut_off(outcome, text, tail):
        yield "This sandbox has no network: nothing can be fetched, and trying again does not help."
    elif outcome.needs_proxy and _UNREACHED.search(tail) and _is_cut_off(outcome, text, tail):
        yield note_on_the_proxy(f"{text}\n{tail}")


def _is_cut_off(outcome: Outcome, text: str, tail: str) -> bool:
    """Whether a command failed because there is no network."""
    others = "\n".join(line for line in tail.splitlines() if not _OWN_NAME.match(line))
    if _UNREACHED.search(others):
        return True
    if _CARGO_FETCHES.search(others):
        return True
    if _PIP_FOUND_NONE.search(others) and not _PIP_ELSEWHERE.search(text):
        return True
    if outcome.code is None or (outcome.code == 0 and tail) or "<<" in text:
        return False
    return _FETCHES.search(text) is not None


def _defined_before(outcome: Outcome, names: Iterable[str]) -> Iterator[str]:
    """Say that a function has ended with the command that defined it."""
    for name in names:
        word = re.escape(name)
        defines = re.compile(rf"(?:^|[\s;&({{])(?:function[ \t]+{word}\b|{word}[ \t]*\(\)|alias[ \t]+{word}=)")
        if _SOURCED.get(name) in outcome.exported or any(
            defines.search(text) for text in outcome.earlier if "<<" not in text
        ):
            yield (
                f"'{name}' was defined for an earlier command only; to keep functions, define them in a file and "
                "export BASH_ENV with its path."
            )


def _elsewhere(outcome: Outcome, names: Iterable[str]) -> Iterator[str]:
    """Say which tools have a program or module that the command did not find."""
    for name in names:
        tools = outcome.elsewhere(name, outcome.profile.image)
        if tools:
            named = ", ".join(f"`{tool}`" for tool in tools[:MOST_TOOLS])
            more = " and others" if len(tools) > MOST_TOOLS else ""
            has = "the tool {} has it" if len(tools) == 1 else "the tools {} have it"
            yield f"'{name}' was not found here; {has.format(named + more)}, for the same files."


def _missing_programs(outcome: Outcome, text: str, tail: str) -> list[str]:
    names = [found["name"] for pattern in _NO_PROGRAM for found in pattern.finditer(tail)]
    if outcome.code not in (0, None):
        asked = (word for found in _ASKS.finditer(text) for word in found[1].split())
        names += [word for word in asked if word not in tail]
    return names[:MOST_NAMES]


def _missing_modules(tail: str) -> list[str]:
    return [found["name"] for found in _NO_MODULE.finditer(tail)][:MOST_NAMES]
