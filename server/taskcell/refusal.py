"""The policy's rules over profiles, and the refusals that name them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from taskcell.text import shown


class Rule(Enum):
    """A rule over profiles. `value` is the name in a denial; `guards` is what docs/security.md says about it."""

    guards: str

    def __new__(cls, name: str, guards: str) -> Rule:
        rule = object.__new__(cls)
        rule._value_ = name
        rule.guards = guards
        return rule

    EXTRA_ARGS = (
        "extra-args",
        "An engine option that no field of a profile can hold, that is malformed, or that is given twice.",
    )
    FORM = ("form", "A malformed name, entrypoint, command, working directory, platform or runtime.")
    ENVIRONMENT = (
        "environment",
        "A variable without a value (it would forward the server's own), a file of variables, a reserved or malformed "
        "name.",
    )
    IMAGES = ("allowed-images", "A malformed image reference, or an image that `policy.allowed_images` does not match.")
    TASK_IMAGES = (
        "task-images",
        "An image that a task is to be opened with, and that `policy.task_images` does not match.",
    )
    USER = ("root-user", "Root, as user or group, and anything that is not a user.")
    GROUPS = ("groups", "Additional groups for the user.")
    SUDO = (
        "sudo",
        "sudo in the sandbox, unless `policy.allow_sudo` is true. With sudo also a read-only root file system, a "
        "writable folder of the host, and any namespace or network of the host.",
    )
    PRIVILEGED = ("privileged", "A privileged container, whatever `policy.allow_privileged` says.")
    CAPABILITIES = (
        "capabilities",
        "A capability that `policy.allowed_capabilities` does not name, and any that no command could hold: without "
        "sudo every one, with sudo all but a few over files and ports.",
    )
    NAMESPACES = (
        "host-namespaces",
        "A namespace of the host, unless `policy.allow_host_namespaces` names it, or of another container; the host's "
        "`pid` and `cgroup` always.",
    )
    NETWORKS = ("allow-networks", "A network that `policy.allow_networks` does not name, or another container's.")
    EGRESS = (
        "allowed-egress",
        "A host in `egress` that `policy.allowed_egress` does not name or cover, and `egress` beside a network.",
    )
    GPUS = ("allow-gpus", "GPUs, unless `policy.allow_gpus` is true.")
    RESOURCES = (
        "resource-limits",
        "Memory, processors or processes without a bound (unless `policy.require_resource_limits` is false), above "
        "`policy.max_memory`, `max_cpus` or `max_pids`, or taken out of the limits.",
    )
    DISK = ("disk", "A bound of the root file system's size where that is read-only, or one that is too small.")
    OWN = (
        "own",
        "A folder in `own` that is the system's, or a mount, or in a read-only root file system; more than 16 of them.",
    )
    DEVICES = ("devices", "A device of the host.")
    SECURITY = ("security-options", "A security option that loosens the sandbox: seccomp, AppArmor, SELinux labels.")
    KERNEL = ("kernel-settings", "A kernel setting (sysctl).")
    MOUNTS = (
        "mounts",
        "A mount that is neither the workspace nor a file or folder of the host: a foreign volume, a relative "
        "path, a device, a path that does not exist; and every host path where the engine is on another machine.",
    )
    VOLUMES = ("allowed-volumes", "A named volume that `policy.allowed_volumes` does not match.")
    SOCKETS = (
        "allow-docker-socket",
        "A socket of the host, a folder with a container engine's socket, or the engine's own files, under whatever "
        "name, unless `policy.allow_docker_socket` is true.",
    )
    BLOCKED = ("blocked-mount-paths", "A host path that is, holds or lies in one of `policy.blocked_mount_paths`.")
    ROOTS = ("allowed-mount-roots", "A host path outside every folder in `policy.allowed_mount_roots`.")
    LIVE_SOCKETS = (
        "sockets",
        "A folder, mounted read-only or not, with a socket that a process of the host has bound at that moment, unless "
        "`policy.allow_docker_socket` is true.",
    )
    OWN_FILES = (
        "own-files",
        "A writable host path that is, holds or lies in the server's configuration file, a manifest or folder of "
        "manifests, or the package taskcell itself; and any host path that is or holds the file with the password for "
        "sudo.",
    )
    FOLDER = (
        "workspace-folder",
        "A `workspace.folder` that is `/`, holds the home folder of whoever runs the server, belongs to root or to "
        "another user since the start, or is not a folder; and a profile that would write there as somebody else.",
    )
    TARGETS = (
        "mount-targets",
        "A mount over what the sandbox needs: system folders, `/proc`, `/sys`, `/dev`, `/run`, the supervisor, the "
        "workspace, or another mount.",
    )
    TMPFS = (
        "tmpfs",
        "A file system in memory that has no bound, is too large, is given twice, or is where none may be.",
    )
    REUSE = ("reuse", "A fresh container for every call of the terminal, whose state lives in its sandbox.")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a profile is refused, and by which rule.

    Arguments:
        reason: a sentence for the model, without secrets, which says what to write instead.
        allowed_by: keys of `[policy]`, each with the value that would allow it: an element of a list, or a whole value.
            Empty where nothing in the policy can.
    """

    rule: Rule
    reason: str
    allowed_by: tuple[tuple[str, str | bool | int | float], ...] = ()


#: Characters of a value that a person is to copy: more than any path or name here has.
_MOST = 4096


def allowed_by_element(rule: Rule, why: str, key: str, element: str, otherwise: str) -> Refusal:
    """Return the refusal of what a list of the policy lacks.

    Arguments:
        why: the beginning of the sentence.
        otherwise: what the writer of the profile can do, as the end of "or …".
    """
    reason = f"{why}; the operator can add {shown(element, _MOST)} to policy.{key}, or {otherwise}."
    return Refusal(rule, reason, ((key, element),))


def allowed_by_value(rule: Rule, why: str, key: str, value: str | bool | int | float, otherwise: str) -> Refusal:
    """Return the refusal of what one value of the policy forbids; the arguments are those of `allowed_by_element`."""
    written = str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else value
    reason = f"{why}; the operator can set policy.{key} = {written}, or {otherwise}."
    return Refusal(rule, reason, ((key, value),))
