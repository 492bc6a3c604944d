"""Parse the options of `docker run` as docker does: which exist, which take a value, and which were given.

The table is that of Docker 20.10 to 28, hidden and deprecated options included. `extra_args` says what they mean.
"""

from __future__ import annotations

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
    """A word is not an option of docker's. The words after it can be options or values, and nobody knows which."""


def parse(words: Sequence[str]) -> tuple[tuple[Given, ...], Refusal | None]:
    """Return the options that were given, in order, up to the first word that is not one, and the refusal of that word.

    Both forms are read, `--flag value` and `--flag=value`, and short ones as docker joins them: `-v/:/h`, `-itd`.
    """
    given: list[Given] = []
    try:
        for found in _read(iter(words)):
            given.append(found)  # noqa: PERF402 - what was read before a fault is kept
    except _Malformed as error:
        return tuple(given), Refusal(Rule.EXTRA_ARGS, f"{error}; correct extra_args.")
    return tuple(given), None


def _read(words: Iterator[str]) -> Iterator[Given]:
    for word in words:
        if word.startswith("--") and word != "--":
            name, equals, value = word[2:].partition("=")
            yield _one(f"--{name}", name, value if equals else None, words)
        elif word.startswith("-") and word not in ("-", "--"):
            yield from _cluster(word[1:], words)
        else:
            # What comes after '=' may be a secret that lost its option.
            bare = shown(word.partition("=")[0])
            raise _Malformed(f"{bare} is not an option; a word by itself would be the image or the command")


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
    raise _Malformed(f"{shown(written)} is not an option of docker run")


def _switch(written: str, value: str | None) -> str:
    if value is None or value in _TRUE:
        return "true"
    if value in _FALSE:
        return "false"
    raise _Malformed(f"{shown(written)} is on or off, and takes 'true' or 'false' after '='")


def _value(written: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise _Malformed(f"{shown(written)} needs a value")
    return value
