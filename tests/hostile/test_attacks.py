"""The table of attacks and the tests hold each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from attacks import ATTACKS, Attack

TESTS = Path(__file__).parents[1]


def names_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.tries)
def test_every_attack_has_tests_and_each_of_them_exists(attack: Attack) -> None:
    for test in attack.tests:
        path, _, name = test.partition("::")
        function = name.partition("[")[0]
        assert any(found.startswith(function) for found in names_in(TESTS / path)), test


def test_every_test_of_this_folder_stands_for_an_attack() -> None:
    tests = tuple(test for attack in ATTACKS for test in attack.tests)
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            left = [name for name in names_in(path) if not f"hostile/{path.name}::{name}".startswith(tests)]
            assert not left, path.name
