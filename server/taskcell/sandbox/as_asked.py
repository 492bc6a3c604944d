"""Looks from inside whether a sandbox is what was asked of the engine, before any command runs in it.

Engines drop what they cannot do, and some say in their answers that they have done it. The supervisor's own program
reads it off the running sandbox, as whoever commands run as.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from taskcell.engine.base import Container
from taskcell.errors import EngineError, SpawnFailed
from taskcell.model import Profile
from taskcell.mounts import Tmpfs
from taskcell.sandbox.own_program import run_own
from taskcell.sandbox.spawn import Spawner
from taskcell.supervisor.channel import Channel
from taskcell.text import shown
from taskcell.units import SHM, format_size

#: Seconds for a program that reads a dozen small files.
FACTS_TIMEOUT = 10.0
#: statfs(2): a file system in memory.
_TMPFS = "1021994"
#: Engines round a size up to whole pages, and the largest pages of Linux have so many bytes.
_PAGE = 65_536
#: A limit that the engine rounds to whole microseconds of each period.
_CPU_ROUNDING = 0.011
#: proc(5): a filter of system calls.
_FILTERED = "2"
#: Runtimes under which a sandbox's kernel is the machine's. With another one, it is the runtime that keeps the sandbox
#: apart, and its kernel need not say what this machine's says of filters and limits.
_ON_THIS_KERNEL = frozenset({"", "runc", "crun", "oci", "io.containerd.runc.v2"})
#: What a profile bounds, by the names of its keys.
BOUNDS = frozenset({"memory", "pids", "cpus"})
_LIMITS = (
    "The engine does not bound {what} of its sandboxes. Use an engine that can (rootless ones need cgroup v2 and "
    "systemd), or set policy.require_resource_limits = false (for processes alone: policy.allow_unenforced = ['pids'])."
)
_WRONG = "The sandbox is not what was asked of the engine: {what}. It was removed; no command ran in it."
#: Bytes that the variables of image and profile may take together: beside them a request has the call's arguments and
#: variables. And of one variable, with its name and its end: Linux executes nothing that has a longer one.
MOST_IN_VARIABLES, MOST_IN_VARIABLE = 256 << 10, 128 << 10
_NOT_WRITABLE = (
    "Commands run as user {user}, who cannot write to {folder}: it belongs to {owner} and has mode {mode:o}. If the "
    "task began before that user was configured, close it (`sandbox close`); else leave 'user' out."
)


@dataclass(frozen=True, slots=True)
class Folder:
    """What is at a path, for the user that looked. `kind`: of its file system, as statfs(2) has it, in hexadecimals."""

    mode: int
    owner: str
    kind: str
    size: int
    is_read_only: bool
    can_write: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a sandbox is like.

    Arguments:
        user: uid and gid, as in `1000:1000`.
        values: lines of /proc/self/status and of the cgroup, by name; what is not there is missing.
        interfaces: of the network, that are up, beside loopback.
        places: None for a path that cannot be seen.
    """

    user: str
    values: Mapping[str, str]
    interfaces: Sequence[str]
    places: Mapping[str, Folder | None]


async def check(channel: Channel, spawner: Spawner, *, files: int | None, bounds: Collection[str]) -> None:
    """Compare a sandbox that has just started with its profile.

    Raises:
        EngineError: it is something else.
        SandboxLost: it has ended.

    Arguments:
        files: bytes of memory that the task's files may take; None where they are on disk.
        bounds: what must be bounded as the profile says; some of BOUNDS.
    """
    profile, container = spawner.profile, spawner.container
    check_variables(spawner.base_env(), profile.image)
    looked_at = [mount for mount in profile.tmpfs if mount.target != SHM and mount.target not in _covered(profile)]
    words = ["/", container.workspace, *(f"{mount.mode:o}:{mount.target}" for mount in looked_at)]
    try:
        text = await run_own(channel, spawner, ["facts", *words], within=FACTS_TIMEOUT)
    except SpawnFailed:
        return  # the first command is told why nothing starts
    facts = parse_facts(text, ["/", container.workspace, *(mount.target for mount in looked_at)])
    unbounded = list(unlimited(profile, container, facts, bounds))
    if unbounded:
        raise EngineError(_LIMITS.format(what=" and ".join(unbounded)))
    if files is not None:
        looked_at.append(Tmpfs(container.workspace, files))
    if wrong := list(differences(profile, container, facts, looked_at)):
        raise EngineError(_WRONG.format(what="; ".join(wrong)))
    place = facts.places[container.workspace]
    if place is not None and not (place.can_write or profile.is_reader or profile.folder is not None):
        raise EngineError(
            _NOT_WRITABLE.format(user=facts.user, folder=container.workspace, owner=place.owner, mode=place.mode)
        )


def check_variables(env: Mapping[str, str], image: str) -> None:
    """Raise EngineError where an image sets so much that no command could start."""
    sizes = {name: len(f"{name}={value}".encode("utf-8", "replace")) + 1 for name, value in env.items()}
    longest, total = max(sizes, key=lambda name: sizes[name]), sum(sizes.values())
    if sizes[longest] > MOST_IN_VARIABLE:
        size, most, what = sizes[longest], MOST_IN_VARIABLE, f"the variable {shown(longest)}"
    elif total > MOST_IN_VARIABLES:
        size, most, what = total, MOST_IN_VARIABLES, "variables"
    else:
        return
    raise EngineError(
        f"The image {shown(image)} sets {what} of {format_size(size)}, and commands start with {format_size(most)} at "
        "most; use an image that sets less, or set the variable anew in `environment`."
    )


def _covered(profile: Profile) -> set[str]:
    return {mount.target for mount in profile.mounts}


def parse_facts(text: str, paths: Sequence[str]) -> Facts:
    """Read what `supervisor facts` prints: a line for each fact, and for each of the paths in their order."""
    values: dict[str, str] = {}
    interfaces: list[str] = []
    places: list[Folder | None] = []
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "interface":
            interfaces.append(value)
        elif name == "at":
            places.append(_folder(value))
        else:
            values[name] = value
    places += [None] * (len(paths) - len(places))
    return Facts(values.pop("user", "?"), values, interfaces, dict(zip(paths, places, strict=False)))


def _folder(value: str) -> Folder | None:
    try:
        mode, owner, kind, size, bound, access = value.split()
        return Folder(int(mode, 8), owner, kind, int(size), bound == "ro", access == "writes")
    except ValueError:
        return None


def is_on_this_kernel(profile: Profile, container: Container) -> bool:
    """Whether a sandbox runs on the kernel of its engine's machine, which bounds it and says so."""
    return (profile.runtime or container.runtime) in _ON_THIS_KERNEL


def unlimited(profile: Profile, container: Container, facts: Facts, bounds: Collection[str] = BOUNDS) -> Iterator[str]:
    """What is not bounded as the profile says, by the files of the cgroup itself, of version 1 or 2."""
    if not is_on_this_kernel(profile, container):
        return
    values = facts.values
    if "memory" in bounds and profile.memory and not 0 < _number(values.get("memory")) <= profile.memory:
        yield "the memory"
    if "pids" in bounds and profile.pids and not 0 < _number(values.get("pids")) <= profile.pids:
        yield "the number of processes"
    if "cpus" in bounds and profile.cpus and not 0 < _cpus(values) <= profile.cpus + _CPU_ROUNDING:
        yield "the processor time"


def _number(text: str | None) -> int:
    """A limit; 0 where there is none or it is not known. Version 2 says `max` where there is none."""
    return int(text) if text is not None and text.isdigit() else 0


def _cpus(values: Mapping[str, str]) -> float:
    """Quota and period: in one line of version 2, in two of version 1, where -1 is no quota."""
    quota, _, period = values.get("cpus", "").partition(" ")
    length = _number(period or values.get("period"))
    return _number(quota) / length if length else 0.0


def differences(profile: Profile, container: Container, facts: Facts, looked_at: Sequence[Tmpfs]) -> Iterator[str]:
    """What is not as the profile says, each in a few words.

    Arguments:
        looked_at: the file systems in memory that were.
    """
    values, same_kernel = facts.values, is_on_this_kernel(profile, container)
    if same_kernel and not profile.sudo and values.get("NoNewPrivs") != "1":
        yield "its commands may gain privileges (no-new-privileges)"
    if same_kernel and container.is_filtered and values.get("Seccomp") != _FILTERED:
        yield "no filter of system calls is in force (seccomp)"
    if _mask(values, "CapEff") or (not profile.sudo and _mask(values, "CapBnd")):
        yield "its commands hold capabilities"
    if profile.network == "none" and facts.interfaces and not container.is_pod:
        yield f"it has a network, by {', '.join(facts.interfaces)}"
    root = facts.places["/"]
    if profile.read_only and root is not None and not root.is_read_only:
        yield "its root file system can be written"
    for mount in looked_at:
        place, is_files = facts.places[mount.target], mount.target == container.workspace
        # Whoever owns the task's files may change the mode of their folder, and a skill may only read them.
        wrong = None if place is None else _wrong_at(place, mount, same_kernel, is_files)
        if wrong is not None:
            yield f"{mount.target} {wrong}"


def _mask(values: Mapping[str, str], name: str) -> int:
    return int(values.get(name, "0"), 16)


def _wrong_at(place: Folder, mount: Tmpfs, same_kernel: bool, is_files: bool) -> str | None:
    if same_kernel and place.kind != _TMPFS:
        return "is not a file system in memory"
    if place.is_read_only and not is_files:
        return "cannot be written"
    if place.size > mount.size + _PAGE:
        return f"holds {format_size(place.size)} instead of {format_size(mount.size)}"
    if place.mode != mount.mode and not is_files:
        return f"has mode {place.mode:o} instead of {mount.mode:o}"
    return None
