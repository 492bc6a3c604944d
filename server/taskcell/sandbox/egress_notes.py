"""Notes on hosts that a sandbox tried to reach by name and was refused, and on programs that do not use its proxy."""

from __future__ import annotations

import re

from taskcell.egress.egress import SandboxEgress
from taskcell.egress.rules import NotConnected, Why
from taskcell.text import shown

#: Hosts that one note names.
MOST_NAMED = 4
#: How programs that read no $https_proxy are made to use it, by what shows that it was one of them.
_WAYS = (
    (
        re.compile(r"\b(?:java|mvn|gradlew?|sbt)\b|\bUnknownHostException\b"),
        'Java does with `JAVA_TOOL_OPTIONS="-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=${https_proxy##*:} '
        '-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=${https_proxy##*:}"`.',
    ),
    (
        re.compile(r"\bgetaddrinfo EAI_AGAIN\b|\bnode:internal\b"),
        "Node.js does with `NODE_USE_ENV_PROXY=1` from version 24 on, an older one with undici's EnvHttpProxyAgent.",
    ),
)


def notes_on_egress(egress: SandboxEgress | None) -> list[str]:
    """Return, once, what was refused since the last answer: a sentence for each kind of refusal."""
    refused = [] if egress is None else egress.gate.take_refused()
    by_name, by_address = (_named(refused, why) for why in (Why.DENIED, Why.ADDRESS))
    notes = []
    if by_name:
        notes.append(
            f"This sandbox may not reach {by_name}; trying again does not help. The operator can allow a host in "
            "`egress` of its profile and in policy.allowed_egress."
        )
    if by_address:
        notes.append(
            f"This sandbox may not reach {by_address}, because its address is not public; trying again does not help. "
            "The operator can allow it by naming that very address in `egress` and in policy.allowed_egress."
        )
    notes += [str(failure) for failure in refused if failure.why is Why.ASKED][:MOST_NAMED]
    return notes + [str(failure) for failure in refused if failure.why in (Why.BOUND, Why.MALFORMED)][:1]


def note_on_the_proxy(said: str) -> str:
    """Return a sentence for a program that looked a name up itself. `said`: its command, and how its output ends."""
    how = next((way for signs, way in _WAYS if signs.search(said)), "Give it the address in $https_proxy.")
    return (
        "Names are not resolved in this sandbox: what it may reach, it reaches by its proxy, and this program did "
        f"not use it. {how}"
    )


def _named(refused: list[NotConnected], why: Why) -> str:
    """Name the first few hosts that were refused for one reason; empty if none was."""
    hosts = [shown(str(failure.to), 120) for failure in refused if failure.why is why]
    more = f" and {len(hosts) - MOST_NAMED} more" if len(hosts) > MOST_NAMED else ""
    return ", ".join(hosts[:MOST_NAMED]) + more
