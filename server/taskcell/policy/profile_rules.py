"""Judge a profile by rules: each is a small pure function that yields its refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from taskcell.config.fields import check_variable_name
from taskcell.config.image_reference import full_reference
from taskcell.config.policy_tables import PolicySettings
from taskcell.environment import has_own_image
from taskcell.model import DEFAULT_USER, MIB, Profile, Reuse
from taskcell.policy import egress_rules, environment_rules, mount_rules, target_rules
from taskcell.policy.capabilities import GRANTABLE, plain_name
from taskcell.policy.host_paths import HostFacts
from taskcell.refusal import Refusal, Rule, allowed_by_element, allowed_by_value
from taskcell.text import shown
from taskcell.units import format_size

#: Of a skill; or of the terminal, in one of its environments and maybe with an image of the task's own.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}|terminal(?:\.[a-zA-Z0-9_-]{1,32}){1,2}")
_WORD = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}(?:/[a-z0-9][a-z0-9_.-]{0,31}){0,2}")
_GPUS = re.compile(r"all|[1-9][0-9]{0,2}|device=[A-Za-z0-9][A-Za-z0-9-]{0,63}(?:,[A-Za-z0-9][A-Za-z0-9-]{0,63}){0,63}")
_NO_NETWORK = "leave the network out, for none"
_USER = re.compile(r"(?P<user>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63})(?::(?P<group>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}))?")
_NUMBER = re.compile(r"[0-9]+")
#: The engine's own limit. A larger number would wrap, to 0 or to the -1 that changes no user.
MAX_USER = 2**31 - 1

#: The namespaces of the host that a sandbox works in. With the host's pid namespace the supervisor would not be
#: PID 1, and could neither find nor count what outlives a command.
SHAREABLE_NAMESPACES = frozenset({"ipc", "uts", "user"})

#: Fields that can do no harm whatever they hold: how stdout is kept apart; a root file system inside one container
#: and its writable layer; whether a stopped container is kept; what its user runs in it;
#: names and addresses inside it, which open no way that its network does not have.
HARMLESS = frozenset({"kind", "read_only", "remove", "hostname", "hosts", "dns", "shell", "setup", "setup_timeout"})


Judgement = Callable[[Profile, PolicySettings, HostFacts], Iterator[Refusal]]


def judge(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield every refusal of a profile, in the order of the rules; none means that it is allowed.

    Arguments:
        host: what was found at the host paths that the profile wants to mount.
    """
    for rule, _ in JUDGEMENTS:
        yield from rule(profile, policy, host)


def _form(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    if not _NAME.fullmatch(profile.name):
        yield Refusal(
            Rule.FORM, f"The profile's name {shown(profile.name)} may hold letters, digits, '_' and '-' only."
        )
    if any("\0" in word for word in (*(profile.entrypoint or ()), *(profile.command or ()))):
        yield Refusal(Rule.FORM, "The profile's entrypoint or command holds a NUL character.")
    if profile.working_dir is not None and not target_rules.is_plain_path(profile.working_dir):
        yield Refusal(Rule.FORM, f"The working directory {shown(profile.working_dir)} must be absolute, without '..'.")
    for label, value, pattern in (("platform", profile.platform, _PLATFORM), ("runtime", profile.runtime, _WORD)):
        if value and not pattern.fullmatch(value):
            yield Refusal(Rule.FORM, f"The {label} {shown(value)} is malformed; correct it.")


def _environment(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    for name, value in profile.environment:
        try:
            check_variable_name(name)
        except ValueError as error:
            yield Refusal(Rule.ENVIRONMENT, f"{shown(name)} {error}.")
        if "\0" in value:
            yield Refusal(Rule.ENVIRONMENT, f"The value of {shown(name)} holds a NUL character.")


def _image(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    try:
        full = full_reference(profile.image)
    except ValueError as error:
        yield Refusal(Rule.IMAGES, f"{error}.")
        return
    if not any(fnmatchcase(full, pattern) for pattern in policy.allowed_images):
        why = f"The image {full} matches none of policy.allowed_images"
        yield allowed_by_element(Rule.IMAGES, why, "allowed_images", profile.image, "name another image")
    if has_own_image(profile.name) and not any(fnmatchcase(full, pattern) for pattern in policy.task_images):
        why = f"The image {full} matches none of policy.task_images"
        otherwise = "open the task with another one"
        yield allowed_by_element(Rule.TASK_IMAGES, why, "task_images", profile.image, otherwise)


def _capabilities(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    allowed = {plain_name(name) for name in policy.allowed_capabilities}
    for name in profile.cap_add:
        if plain_name(name) not in allowed and "ALL" not in allowed:
            reason = f"The capability {shown(name)} is not in policy.allowed_capabilities; remove it."
        elif profile.sudo and plain_name(name) in GRANTABLE:
            continue
        elif profile.sudo:
            reason = (
                f"The capability {shown(name)} is refused even to root in a sandbox, though the policy allows it; "
                f"cap_add takes {', '.join(GRANTABLE)}."
            )
        else:
            # The supervisor empties the bounding set of what it starts, so that allowing this would be a false promise.
            reason = (
                f"The capability {shown(name)} would have no effect, though the policy allows it: commands run as an "
                "unprivileged user that can hold none; remove it."
            )
        yield Refusal(Rule.CAPABILITIES, reason)


def _network(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    network = profile.network
    if network == "none":
        return
    if network == "host":
        if "network" not in policy.allow_host_namespaces:
            why = "The network is the host's"
            yield allowed_by_element(Rule.NAMESPACES, why, "allow_host_namespaces", "network", _NO_NETWORK)
    elif not _WORD.fullmatch(network):
        reason = f"{shown(network)} is not a network's name, and another container's network is refused"
        yield Refusal(Rule.NETWORKS, f"{reason}; {_NO_NETWORK}.")
    elif network not in policy.allow_networks:
        why = f"The network '{network}' is not in policy.allow_networks"
        yield allowed_by_element(Rule.NETWORKS, why, "allow_networks", network, _NO_NETWORK)


def _namespaces(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    for name in profile.host_namespaces:
        if name not in SHAREABLE_NAMESPACES:
            why = "the supervisor must own it to kill everything that a command started"
            reason = f"The host's {name} namespace is never shared: {why}; leave the option out."
            yield Refusal(Rule.NAMESPACES, reason)
        elif name not in policy.allow_host_namespaces:
            why = f"The {name} namespace is the host's"
            yield allowed_by_element(Rule.NAMESPACES, why, "allow_host_namespaces", name, "the option can be left out")


def _gpus(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    if profile.gpus and not policy.allow_gpus:
        why = "The profile asks for GPUs, and policy.allow_gpus is false"
        yield allowed_by_value(Rule.GPUS, why, "allow_gpus", True, "gpus can be left out")
    if profile.gpus and not _GPUS.fullmatch(profile.gpus):
        reason = f"{shown(profile.gpus)} is not understood; write 'all', a count, or 'device=0,1' for these GPUs."
        yield Refusal(Rule.GPUS, reason)


def _sudo(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    if not profile.sudo:
        return
    if not policy.allow_sudo:
        why = "The profile asks for sudo, and policy.allow_sudo is false"
        yield allowed_by_value(Rule.SUDO, why, "allow_sudo", True, "leave sudo at false")
    if profile.read_only:
        reason = "The profile asks for sudo and read_only, and sudo is set up in the root file system; leave one out."
        yield Refusal(Rule.SUDO, reason)
    # Root of the sandbox is the host's root wherever the two share something: a program left there with the
    # set-user-id bit is root's on the host, and services of the host believe what uid 0 tells their sockets.
    for mount in profile.mounts:
        if mount.source is not None and not mount.read_only:
            reason = f"With sudo, root could leave programs of its own in the host's folder at {shown(mount.target)}"
            yield Refusal(Rule.SUDO, f"{reason}; mount it with ':ro'.")
    if profile.on_host_folder:
        reason = "With sudo, root could leave programs of its own in the workspace's folder on the host"
        leave = f"leave workspace.{'folder' if profile.folder else 'root'} empty, for volumes of the engine"
        yield Refusal(Rule.SUDO, f"{reason}; {leave}.")
    if profile.host_namespaces or profile.network == "host":
        yield Refusal(Rule.SUDO, "With sudo, root could speak to the host in a namespace of the host; share none.")


def _user(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    match = _USER.fullmatch(profile.user)
    if match is None:
        reason = f"{shown(profile.user)} is not a user; write 'uid', 'uid:gid' or a name, such as '{DEFAULT_USER}'."
        yield Refusal(Rule.USER, reason)
        return
    for name in filter(None, match.group("user", "group")):
        if name == "root" or (_NUMBER.fullmatch(name) and not 1 <= int(name) <= MAX_USER):
            yield Refusal(
                Rule.USER,
                f"The user {shown(profile.user)} is root, or not a user at all; name an unprivileged user, such as "
                f"'{DEFAULT_USER}'.",
            )


def _resources(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    memory, most = profile.memory, policy.max_memory
    limits = (
        ("memory", memory, most, "" if memory is None else format_size(memory), format_size(most)),
        ("cpus", profile.cpus, policy.max_cpus, f"{profile.cpus}", f"{policy.max_cpus:g}"),
        ("pids", profile.pids, policy.max_pids, f"{profile.pids}", f"{policy.max_pids}"),
    )
    for label, value, highest, text, bound in limits:
        if value is None:
            if policy.require_resource_limits:
                reason = f"The profile must bound its {label}: write at most {bound}, or leave it out for the default."
                yield Refusal(Rule.RESOURCES, reason)
        elif not math.isfinite(value) or value <= 0:
            yield Refusal(Rule.RESOURCES, f"The profile's {label} must be more than 0, not {text}.")
        elif value > highest:
            why = f"The profile's {label} of {text} is over policy.max_{label}, {bound}"
            wanted = f"{value // MIB + (value % MIB > 0)}m" if label == "memory" else value
            yield allowed_by_value(Rule.RESOURCES, why, f"max_{label}", wanted, "the profile can ask for less")


def _reuse(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    if profile.reuse is Reuse.CALL and profile.kind == "terminal":
        yield Refusal(Rule.REUSE, "The terminal's state lives in its sandbox, which therefore serves its whole task.")


def _refused(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    yield from profile.refused


#: In order of judgement, each with the fields that it judges.
JUDGEMENTS: tuple[tuple[Judgement, tuple[str, ...]], ...] = (
    (_refused, ("refused",)),
    (_form, ("name", "entrypoint", "command", "working_dir", "platform", "runtime")),
    (_image, ("image",)),
    (_user, ("user",)),
    (_sudo, ("sudo", "on_host_folder")),
    (_capabilities, ("cap_add",)),
    (_network, ("network",)),
    (egress_rules.egress, ("egress",)),
    (_namespaces, ("host_namespaces",)),
    (_gpus, ("gpus",)),
    (_resources, ("memory", "cpus", "pids")),
    (mount_rules.mounts, ("mounts",)),
    (mount_rules.folder, ("folder", "is_reader")),
    (target_rules.in_memory, ("tmpfs",)),
    (_environment, ("environment",)),
    (environment_rules.secrets, ("secrets",)),
    (environment_rules.own, ("own",)),
    (environment_rules.disk, ("disk",)),
    (_reuse, ("reuse",)),
)
