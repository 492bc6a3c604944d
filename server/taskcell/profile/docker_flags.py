"""Parse the options of `docker run` as docker does: which exist, which take a value, and which were given.

The table is that of Docker 20.10 to 28, hidden and deprecated options included. `extra_args` says what they mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from taskcell.refusal import Refusal, Rule
from taskcell.text import shown

#: `name` or `name:short`, of the options that take a value.
_WITH_VALUE = """
add-host annotation attach:a blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count
cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares:c cpus cpuset-cpus cpuset-mems detach-keys
device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns dns-option dns-search
domainname entrypoint env:e env-file expose gpus group-add health-cmd health-interval health-retries
health-start-interval health-start-period health-timeout hostname:h io-maxbandwidth io-maxiops ip ip6 ipc isolation
kernel-memory label:l label-file link link-local-ip log-driver log-opt mac-address memory:m memory-reservation
memory-swap memory-swappiness mount name network network-alias oom-score-adj pid pids-limit platform publish:p pull
restart runtime security-opt shm-size stop-signal stop-timeout storage-opt sysctl tmpfs ulimit user:u userns uts
volume:v volume-driver volumes-from workdir:w
"""
#: The same for options that are on or off.
_SWITCHES = """
detach:d disable-content-trust help init interactive:i no-healthcheck oom-kill-disable privileged publish-all:P quiet:q
read-only rm sig-proxy tty:t use-api-socket
"""
_ALIASES = {"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"}
#: What Go's strconv.ParseBool takes, which docker reads switches with.
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def _names(table: str) -> dict[str, str]:
    """Map the name and the short form of each entry to the name."""
    pairs = [entry.partition(":")[::2] for entry in table.split()]
    return {key: name for name, short in pairs for key in (name, short) if key}


_VALUED = {**_names(_WITH_VALUE), **_ALIASES}
_ON_OFF = _names(_SWITCHES)
#: Every option's full name.
NAMES = frozenset({*_VALUED.values(), *_ON_OFF.values()})
SWITCHES = frozenset(_ON_OFF.values())


@dataclass(frozen=True, slots=True)
class Given:
    """One option that was given, by its full name; a switch's value is `true` or `false`."""

    name: str
    value: str

    @property
    def is_on(self) -> bool:
        return self.value == "true"


class _Malformed(ValueError):
    """A word is not an option of docker's."""


def parse(words: Sequence[str]) -> tuple[tuple[Given, ...], tuple[Refusal, ...]]:
    """Return the options that were given, in order, and the refusals of words that are none.

    Both forms are read, `--flag value` and `--flag=value`, and short ones as docker joins them: `-v/:/h`, `-itd`. After
    a word that is not an option, reading goes on at the next word with a dash: nobody knows what those between are.
    """
    given: list[Given] = []
    refused: list[Refusal] = []
    rest = list(words)
    while rest:
        word, rest = rest[0], rest[1:]
        taken = iter(rest)
        try:
            given += _read(word, taken)
            rest = list(taken)
        except _Malformed as error:
            refused.append(Refusal(Rule.EXTRA_ARGS, f"{error}."))
            while rest and not rest[0].startswith("-"):
                rest = rest[1:]
    return tuple(given), tuple(refused)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words after `docker run` into its options, and image and command."""
    options: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        taken = iter(rest[1:])
        try:
            list(_read(rest[0], taken))
            after = list(taken)
        except _Malformed:
            after = rest[1:]
        options += rest[: len(rest) - len(after)]
        rest = after
    return options, rest[1:] if rest[:1] == ["--"] else rest


def _read(word: str, words: Iterator[str]) -> list[Given]:
    """Read one word, and its values from the words after it."""
    if word.startswith("--") and word != "--":
        name, equals, value = word[2:].partition("=")
        return [_one(f"--{name}", name, value if equals else None, words)]
    if word.startswith("-") and word not in ("-", "--"):
        return list(_cluster(word[1:], words))
    # What comes after '=' may be a secret that lost its option.
    bare = shown(word.partition("=")[0])
    raise _Malformed(
        f"{bare} is not an option; a word by itself would be the image, which belongs into 'image', or the command, "
        "which belongs into 'command'; remove it from extra_args"
    )


def _cluster(letters: str, words: Iterator[str]) -> Iterator[Given]:
    """`itd`, `v/:/h`, `v=/:/h`, `iv`: switches until one takes a value, which is the rest or the next word."""
    while letters:
        letter, rest = letters[0], letters[1:]
        takes_rest = rest.startswith("=") or (letter in _VALUED and bool(rest))
        yield _one(f"-{letter}", letter, rest.removeprefix("=") if takes_rest else None, words)
        letters = "" if takes_rest else rest


def _one(written: str, key: str, value: str | None, words: Iterator[str]) -> Given:
    # A short form is one letter after one dash: `--v` is not an option.
    if len(key) == len(written) - 1 or len(key) > 1:
        if key in _ON_OFF:
            return Given(_ON_OFF[key], _switch(written, value))
        if key in _VALUED:
            return Given(_VALUED[key], _value(written, words) if value is None else value)
    near = difflib.get_close_matches(key, [name for name in (*_VALUED, *_ON_OFF) if len(name) > 1], n=1)
    hint = f"did you mean --{near[0]}? Otherwise " if near and len(key) > 1 else ""
    raise _Malformed(f"{shown(written)} is not an option of docker run; {hint}remove it from extra_args")


def _switch(written: str, value: str | None) -> str:
    if value is None or value in _TRUE:
        return "true"
    if value in _FALSE:
        return "false"
    raise _Malformed(f"{shown(written)} is on or off; write it alone, or with '=true' or '=false'")


def _value(written: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise _Malformed(f"{shown(written)} needs a value; write one after it, or remove it from extra_args")
    return value
