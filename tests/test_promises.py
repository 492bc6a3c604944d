"""The table of promises and the tests hold each other."""

from __future__ import annotations

import ast
from pathlib import Path

from promises import PROMISES

TESTS = Path(__file__).parent
#: Where every test must stand for a promise: these see a real sandbox through the whole stack.
HELD = tuple(
    TESTS / path
    for path in (
        "deployment/test_sandboxes.py",
        "engine/test_contract.py",
        "engine/test_engine_faults.py",
        "engine/test_hardening.py",
        "engine/test_mounts.py",
        "engine/test_project_folder.py",
        "files/test_file_tools.py",
        "pool/test_adoption.py",
        "pool/test_end.py",
        "pool/test_faults.py",
        "pool/test_leftovers.py",
        "pool/test_pool.py",
        "pool/test_reuse.py",
        "sandbox/test_flood.py",
        "sandbox/test_kill.py",
        "sandbox/test_sudo.py",
        "sandbox/test_sudo_refused.py",
    )
)


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")}


def test_every_promise_has_tests_and_each_of_them_exists() -> None:
    existing = set().union(*map(names_in, TESTS.rglob("test_*.py")))
    for promise, tests in PROMISES.items():
        assert tests, promise
        assert set(tests) <= existing, f"{promise}: {set(tests) - existing}"


def test_every_test_of_a_real_sandbox_stands_for_a_promise() -> None:
    named = {test for tests in PROMISES.values() for test in tests}
    for path in HELD:
        assert names_in(path) <= named, f"{path.name}: {names_in(path) - named}"
