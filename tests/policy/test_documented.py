"""docs/security.md tells the rules as they are."""

from __future__ import annotations

import re
from pathlib import Path

from taskcell.refusal import Rule

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def test_the_table_of_rules_in_the_documentation_is_that_of_the_code():
    section = SECURITY.read_text().split("## The rules over profiles")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(rule.value, rule.guards) for rule in Rule]


def test_every_rule_tells_what_it_guards_in_a_sentence():
    for rule in Rule:
        assert rule.guards.endswith(".")
        assert "|" not in rule.guards
