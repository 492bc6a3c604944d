"""What a token's scopes allow within a tool that several of them may use."""

from __future__ import annotations

import pytest

from taskcell.caller import Caller, Scope
from taskcell.errors import BadArgument
from taskcell.mcp.scopes import check_arguments

SKILLS_ALONE = Caller("ann", frozenset({Scope.SKILLS}))
WITH_TERMINAL = Caller("ann", frozenset({Scope.TERMINAL}))


@pytest.mark.parametrize(
    ("tool", "action"), [("process", "write"), ("sandbox", "fork"), ("sandbox", "snapshot"), ("sandbox", "restore")]
)
def test_what_works_in_the_terminal_needs_its_scope(tool: str, action: str) -> None:
    check_arguments(WITH_TERMINAL, tool, {"action": action})
    with pytest.raises(BadArgument, match="Only a token with the scope 'terminal'"):
        check_arguments(SKILLS_ALONE, tool, {"action": action})


@pytest.mark.parametrize(("tool", "action"), [("process", "kill"), ("sandbox", "close"), ("sandbox", "status")])
def test_what_ends_or_shows_a_task_does_not(tool: str, action: str) -> None:
    check_arguments(SKILLS_ALONE, tool, {"action": action})
