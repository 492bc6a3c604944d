"""Judge a profile before its container exists, and a call before its command runs.

Deny wins; a rule that fails to evaluate denies; every decision carries the rule's name and a sentence for the model.
The rules do no I/O: `host_paths` looks at the host paths of a profile, and the rules judge what it found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from taskcell.config.policy_tables import PolicySettings, RuleSettings
from taskcell.errors import Denied, MustAsk
from taskcell.model import WORKSPACE, Command, Profile
from taskcell.mounts import Mount
from taskcell.policy.host_paths import Changed, HostFacts, HostPath, held, survey
from taskcell.policy.mount_rules import folder, workspace_root
from taskcell.policy.profile_rules import judge
from taskcell.policy.user_rules import why_not_as
from taskcell.refusal import Refusal, Rule
from taskcell.text import shown

T = TypeVar("T")

#: Bytes of command text that the rules look through: the longest command of Linux, quoted. A regular expression's time
#: grows with it.
MAX_COMMAND_TEXT = 4 << 20
#: Profiles whose judgement is remembered; a server has one for each skill, and new ones when a manifest changes.
MAX_REMEMBERED_PROFILES = 1024


class Effect(Enum):
    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, by which rule, and why: a sentence for the model."""

    effect: Effect
    rule: str
    reason: str


class _MadeByThePolicy(type):
    """A class that only `_make` can make objects of, so that to hold one is to have been authorised."""

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"only a Policy makes an {cls.__name__}")

    def _make(cls: type[T], *args: Any, **kwargs: Any) -> T:
        made: T = type.__call__(cls, *args, **kwargs)
        return made


class _Sealed:
    """Cannot be changed, copied or pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"an {type(self).__name__} cannot be copied or pickled: only a Policy makes one")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")


@dataclass(frozen=True, slots=True)
class HostMount:
    """A host path that the policy looked at and allows, and its place in the container."""

    path: HostPath
    target: str
    read_only: bool


class AuthorizedProfile(_Sealed, Profile, metaclass=_MadeByThePolicy):
    """A profile that the policy allows. It has the fields of the profile, and is equal to one with equal fields."""

    __slots__ = ("_policy",)

    _policy: Policy

    @property
    def is_mounted_unseen(self) -> bool:
        """The operator allows host folders that cannot be compared with what was mounted."""
        return self._policy._settings.mounts_in_vm

    @contextmanager
    def host_mounts(self, engine_socket: str = "") -> Iterator[tuple[HostMount, ...]]:
        """Look at the host paths to mount and judge them now. Inside the context nothing else can get their identities.

        This reads the file system: use it in a thread, around the creation of one container, and compare with what
        the engine mounted in the end. Raises Denied.

        Arguments:
            engine_socket: path of the socket that the engine in use answers at; empty where that is not known.
        """
        sources = _host_sources(self)
        if not sources:
            yield ()
            return
        policy = self._policy
        host = survey(sources, policy._settings, engine_socket, policy._own_files, policy._secret_files)
        refusal = next(judge(self, policy._settings, host), None)
        if refusal is not None:
            raise Denied(refusal.rule.value, refusal.reason)
        found = {path.asked: path for path in host.sources}
        mounts = tuple(
            HostMount(found[source], mount.target, mount.read_only)
            for mount in _all_mounts(self)
            if not mount.volume and (source := mount.source or (self.folder and self.folder.path))
        )
        try:
            with held(host.sources):
                yield mounts
        except Changed as error:
            reason = f"The host path {shown(str(error))} changed while the server looked at it; try again."
            raise Denied(Rule.MOUNTS.value, reason) from None


@dataclass(frozen=True, slots=True)
class AuthorizedCommand(_Sealed, metaclass=_MadeByThePolicy):
    """A command that the policy allows, with its allowed profile, and the rule that allows it."""

    command: Command
    profile: AuthorizedProfile
    rule: str


class Policy:
    """The one maker of authorised profiles and commands.

    Arguments:
        settings: the section `[policy]`.
        own_files: absolute paths of files that decide what the server does; no sandbox may write to them.
        secret_files: absolute paths of files that no sandbox may even read.
    """

    def __init__(
        self, settings: PolicySettings, own_files: Iterable[Path] = (), secret_files: Iterable[Path] = ()
    ) -> None:
        self._settings = settings
        self._own_files = tuple(map(str, own_files))
        self._secret_files = tuple(map(str, secret_files))
        self._remembered: dict[Profile, AuthorizedProfile | Decision] = {}

    def authorize_profile(self, profile: Profile) -> AuthorizedProfile:
        """Allow a profile. Raises Denied with the first rule that refuses it."""
        judged = self._judged(profile)
        if isinstance(judged, Decision):
            raise Denied(judged.rule, judged.reason)
        return judged

    def refusals(self, profile: Profile) -> tuple[Refusal, ...]:
        """Return everything that speaks against a profile, and not only what `authorize_profile` would name first."""
        return tuple(judge(profile, self._settings, self._host(profile)))

    def authorize_root(self, root: Path) -> None:
        """Allow the folder of persistent workspaces, as `workspace.root` names it. Raises Denied."""
        host = survey((str(root),), self._settings, own_files=self._own_files)
        refusal = next(workspace_root(host.sources[0], self._settings, host), None)
        if refusal is not None:
            raise Denied(refusal.rule.value, f"workspace.root: {refusal.reason}")

    def authorize_folder(self, profile: Profile) -> None:
        """Allow the folder that is the workspace of every task, as a profile has it. Raises Denied."""
        refusal = next(folder(profile, self._settings, self._host(profile)), None)
        if refusal is not None:
            raise Denied(refusal.rule.value, f"workspace.folder: {refusal.reason}")

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied, and MustAsk if a person must confirm the command first."""
        profile = self.authorize_profile(command.profile)
        decision = self._decide_call(command)
        if decision.effect is Effect.ASK and decision.rule not in command.confirmed:
            raise MustAsk(decision.rule, decision.reason, command.tool, command.text)
        if decision.effect is Effect.DENY:
            raise Denied(decision.rule, decision.reason)
        return AuthorizedCommand._make(command, profile, decision.rule)

    def decide(self, command: Command) -> Decision:
        """Return what `authorize` would decide, and why, without raising."""
        judged = self._judged(command.profile)
        return judged if isinstance(judged, Decision) else self._decide_call(command)

    def _judged(self, profile: Profile) -> AuthorizedProfile | Decision:
        known = self._remembered.get(profile)
        if known is not None:
            return known
        sources = _host_sources(profile)
        refusal = next(judge(profile, self._settings, self._host(profile)), None)
        judged: AuthorizedProfile | Decision
        if refusal is None:
            judged = AuthorizedProfile._make(**_fields(profile))
            object.__setattr__(judged, "_policy", self)
        else:
            judged = Decision(Effect.DENY, refusal.rule.value, refusal.reason)
        if sources and refusal is not None:
            return judged  # the person may mend the host's folders while the server runs
        if len(self._remembered) >= MAX_REMEMBERED_PROFILES:
            self._remembered.clear()
        self._remembered[profile] = judged
        return judged

    def _host(self, profile: Profile) -> HostFacts:
        sources = _host_sources(profile)
        if not sources:
            return HostFacts()
        secret = (*self._secret_files, *(secret.file for secret in profile.secrets if secret.file))
        return survey(sources, self._settings, own_files=self._own_files, secret_files=secret)

    def _decide_call(self, command: Command) -> Decision:
        if len(command.text.encode("utf-8", "surrogatepass")) > MAX_COMMAND_TEXT:
            reason = f"The command is longer than the {MAX_COMMAND_TEXT} bytes that can be judged; put it into a file."
            return Decision(Effect.DENY, "command-size", reason)
        if command.user and (reason := why_not_as(command.user, command.profile, self._settings)):
            return Decision(Effect.DENY, "task-users", reason)
        first: Decision | None = None
        for decision in self._matching(command):
            if decision.effect is Effect.DENY:
                return decision
            first = first or decision
        return first or Decision(Effect.ALLOW, "default", "No rule denies it.")

    def _matching(self, command: Command) -> Iterator[Decision]:
        for rule in self._settings.rules:
            try:
                matches = _matches(rule, command)
            except Exception as error:  # whatever it is: a rule that cannot be evaluated must not let a call pass
                reason = f"The rule could not be evaluated ({type(error).__name__}); ask the operator to correct it."
                yield Decision(Effect.DENY, rule.name, reason)
                continue
            if matches:
                yield Decision(Effect(rule.effect), rule.name, rule.reason or _DEFAULT_REASONS[rule.effect])


def _fields(profile: Profile) -> dict[str, Any]:
    return {field.name: getattr(profile, field.name) for field in fields(Profile)}


def _host_sources(profile: Profile) -> tuple[str, ...]:
    named = tuple(mount.source for mount in profile.mounts if mount.source is not None)
    return named if profile.folder is None else (*named, profile.folder.path)


def _all_mounts(profile: Profile) -> tuple[Mount, ...]:
    """The profile's mounts, and the workspace where that is a folder of the host."""
    if profile.folder is None:
        return profile.mounts
    again = (
        replace(mount, read_only=mount.read_only or profile.is_reader) for mount in profile.mounts if mount.is_workspace
    )
    return Mount(None, WORKSPACE, profile.is_reader), *again, *(mount for mount in profile.mounts if mount.source)


_DEFAULT_REASONS = {
    "allow": "The operator's rule allows this.",
    "deny": "The operator's rule forbids this; do the task in another way.",
    "ask": "The operator's rule asks for a confirmation.",
}


def _is_skill_of(rule: RuleSettings, command: Command) -> bool:
    """Whether the rule names the tool's skill. A rule about `terminal` does not cover the file tools beside it."""
    return command.profile.kind == "skill" and fnmatchcase(command.profile.name, rule.tool)


def _matches(rule: RuleSettings, command: Command) -> bool:
    return (
        (fnmatchcase(command.tool, rule.tool) or _is_skill_of(rule, command))
        and fnmatchcase(command.task.principal, rule.principal)
        and re.search(rule.command, command.text) is not None
    )
