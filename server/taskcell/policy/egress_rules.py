"""Judge what a profile wants to reach by name."""

from __future__ import annotations

from collections.abc import Iterator

from taskcell.config.image_reference import NAME_PREFIX
from taskcell.config.policy_tables import PolicySettings
from taskcell.destinations import Pattern
from taskcell.model import Profile
from taskcell.policy.host_paths import HostFacts
from taskcell.refusal import Refusal, Rule
from taskcell.text import shown

#: What an image's package managers ask. For the terminal, and an image that is built here and never pulled, the
#: operator's one line in `[terminal]` says enough: who writes it writes the policy too.
OWN_PACKAGES = "@packages"


def egress(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield a refusal for each entry that the policy does not cover, and for what cannot work beside a network."""
    if profile.egress and profile.network != "none":
        reason = f"'egress' is for a sandbox without a network, and this one has {shown(profile.network)}."
        yield Refusal(Rule.EGRESS, reason)
    for entry in profile.egress:
        is_own = entry == OWN_PACKAGES and profile.kind == "terminal" and profile.image.startswith(NAME_PREFIX)
        if not is_own and not _is_covered(entry, policy.allowed_egress):
            yield Refusal(
                Rule.EGRESS,
                f"The profile wants to reach {shown(entry)}, which is not in policy.allowed_egress; the operator can "
                "add it there.",
            )


def _is_covered(entry: str, allowed: tuple[str, ...]) -> bool:
    if entry.startswith("@"):
        return entry in allowed
    try:
        wanted = Pattern.read(entry)
    except ValueError:
        return False
    return any(Pattern.read(pattern).covers(wanted) for pattern in allowed if not pattern.startswith("@"))
