"""Notes on hosts that a sandbox tried to reach by name and was refused."""

from __future__ import annotations

from taskcell.egress.egress import SandboxEgress
from taskcell.egress.rules import NotConnected, Why
from taskcell.text import shown

#: Hosts that one note names.
MOST_NAMED = 4


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


def _named(refused: list[NotConnected], why: Why) -> str:
    """Name the first few hosts that were refused for one reason; empty if none was."""
    hosts = [shown(str(failure.to), 120) for failure in refused if failure.why is why]
    more = f" and {len(hosts) - MOST_NAMED} more" if len(hosts) > MOST_NAMED else ""
    return ", ".join(hosts[:MOST_NAMED]) + more
