"""Notes on hosts that a sandbox tried to reach by name and was refused."""

from __future__ import annotations

from taskcell.egress.egress import SandboxEgress
from taskcell.egress.rules import NotConnected, Why
from taskcell.text import shown

#: Hosts that one note names.
MOST_NAMED = 4


def notes_on_egress(egress: SandboxEgress | None) -> list[str]:
    """Return, once, a sentence about what was refused since the last answer."""
    refused = [] if egress is None else egress.gate.take_refused()
    denied = [failure for failure in refused if failure.why is Why.DENIED and failure.to is not None]
    others = [failure for failure in refused if failure not in denied]
    return [*(_denied(denied) if denied else ()), *dict.fromkeys(map(str, others[:1]))]


def _denied(denied: list[NotConnected]) -> list[str]:
    named = ", ".join(shown(str(failure.to), 120) for failure in denied[:MOST_NAMED])
    more = f" and {len(denied) - MOST_NAMED} more" if len(denied) > MOST_NAMED else ""
    return [
        f"This sandbox may not reach {named}{more}; trying again does not help. The operator can allow a host in "
        "`egress` of its profile and in policy.allowed_egress."
    ]
