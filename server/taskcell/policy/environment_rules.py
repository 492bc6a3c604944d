"""Judge what a profile gives its user, keeps secret and writes on disk."""

from __future__ import annotations

from collections.abc import Iterator

from taskcell.config.fields import check_variable_name
from taskcell.config.policy_tables import PolicySettings
from taskcell.model import MIB, Profile
from taskcell.policy.host_paths import HostFacts
from taskcell.policy.target_rules import is_at_or_below, is_needed, is_plain_path
from taskcell.refusal import Refusal, Rule
from taskcell.text import shown

#: Folders that one profile may give away: each is walked when a sandbox starts.
MAX_OWN = 16
#: Bytes; an engine's own bookkeeping needs some.
MIN_DISK = 16 * MIB
_ELSEWHERE = "name the folder of a project, such as '/testbed'"


def own(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of folders of the image that are to become the user's."""
    if profile.own and profile.read_only:
        reason = "The profile gives folders to its user (own) in a read-only root file system, where nothing can change"
        yield Refusal(Rule.OWN, f"{reason}; leave read_only out, or set it to false.")
    if len(profile.own) > MAX_OWN:
        yield Refusal(Rule.OWN, f"The profile names {len(profile.own)} folders in own; the most is {MAX_OWN}.")
    mounted = [*(mount.target for mount in profile.mounts), *(tmpfs.target for tmpfs in profile.tmpfs)]
    for path in profile.own:
        if not is_plain_path(path):
            yield Refusal(Rule.OWN, f"The folder {shown(path)} in own must be absolute, without '..'; {_ELSEWHERE}.")
        elif is_needed(path):
            reason = f"The folder {shown(path)} in own is the system's: who may write there may become root"
            yield Refusal(Rule.OWN, f"{reason}; {_ELSEWHERE}.")
        elif any(is_at_or_below(path, target) for target in mounted):
            reason = f"The folder {shown(path)} in own is not the image's, for something is mounted there"
            yield Refusal(Rule.OWN, f"{reason}; leave it out.")


def disk(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of a bound of what the root file system may hold."""
    if profile.disk is None:
        return
    if profile.read_only:
        yield Refusal(
            Rule.DISK, "The profile bounds its disk, and its root file system is read-only; leave one of the two out."
        )
    if profile.disk < MIN_DISK:
        yield Refusal(Rule.DISK, f"The profile's disk must hold at least {MIN_DISK // MIB} MiB; write more.")


def secrets(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of secret variables."""
    for secret in profile.secrets:
        try:
            check_variable_name(secret.name)
        except ValueError as error:
            yield Refusal(Rule.ENVIRONMENT, f"{shown(secret.name)} {error}.")
