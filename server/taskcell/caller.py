"""Who calls, and what the caller may do. Doors make it, and every handler that serves a request asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from taskcell.model import LOCAL_PRINCIPAL


class Scope(Enum):
    """What a token allows. `ports` is for ports of sandboxes, `admin` for what concerns all principals."""

    TERMINAL = "terminal"
    SKILLS = "skills"
    FILES = "files"
    PORTS = "ports"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
#: What a token may do whose creator names no scope.
USUAL_SCOPES = ALL_SCOPES - {Scope.ADMIN}


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and what this request of it may do."""

    principal: str
    scopes: frozenset[Scope] = USUAL_SCOPES

    def may(self, any_of: frozenset[Scope]) -> bool:
        """Whether it has one of these scopes."""
        return bool(self.scopes & any_of)


#: The user whom the server runs as, through a pipe or a socket that only this user can open.
LOCAL_CALLER = Caller(LOCAL_PRINCIPAL, ALL_SCOPES)


def parse_scopes(names: str) -> frozenset[Scope]:
    """Read scopes as OAuth writes them: names between spaces. Names that taskcell does not know are left out."""
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[name] for name in names.split() if name in known)


def format_scopes(scopes: frozenset[Scope]) -> str:
    """Write scopes as OAuth does, in the order in which taskcell declares them."""
    return " ".join(scope.value for scope in Scope if scope in scopes)
