"""Each refusal has a code for programs, and no sentence asks a model for what only the person at the host can do."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import taskcell
from taskcell import errors
from taskcell.engine.kubernetes.api import ApiRefused
from taskcell.errors import (
    Denied,
    ErrorCode,
    HeldElsewhere,
    ManifestError,
    MustAsk,
    OutputLost,
    ReadElsewhere,
    TaskcellError,
    TaskMoved,
)
from taskcell.files.refusals import Errno, RefusalReason, Refused
from taskcell.gateway.admission import EndedByServer
from taskcell.mcp.answer import Failure

CODES = {
    "TaskcellError": ErrorCode.INTERNAL,
    "ConfigError": ErrorCode.INTERNAL,
    "ManifestError": ErrorCode.INTERNAL,
    "BadArgument": ErrorCode.INVALID_ARGUMENT,
    "UnknownTool": ErrorCode.NOT_FOUND,
    "UnknownProcess": ErrorCode.NOT_FOUND,
    "UnknownResource": ErrorCode.NOT_FOUND,
    "FileRefused": ErrorCode.INVALID_ARGUMENT,
    "Denied": ErrorCode.DENIED,
    "MustAsk": ErrorCode.DENIED,
    "NotConfirmed": ErrorCode.DENIED,
    "EngineError": ErrorCode.ENGINE_UNAVAILABLE,
    "EngineUnavailable": ErrorCode.ENGINE_UNAVAILABLE,
    "NetworkOpen": ErrorCode.ENGINE_UNAVAILABLE,
    "ImageMissing": ErrorCode.IMAGE_MISSING,
    "ProtocolError": ErrorCode.LOST,
    "SandboxLost": ErrorCode.LOST,
    "OutputLost": ErrorCode.LOST,
    "ReadElsewhere": ErrorCode.LOST,
    "NoRoom": ErrorCode.NO_CAPACITY,
    "SpawnFailed": ErrorCode.INVALID_ARGUMENT,
    "AuditFailed": ErrorCode.INTERNAL,
    "KeysUnavailable": ErrorCode.INTERNAL,
    "TokensUnreadable": ErrorCode.INTERNAL,
    "HeldElsewhere": ErrorCode.LOST,
    "Taken": ErrorCode.LOST,
    "TaskMoved": ErrorCode.LOST,
    "EndedByServer": ErrorCode.LOST,
    "NothingListens": ErrorCode.NOT_FOUND,
    "ApiRefused": ErrorCode.ENGINE_UNAVAILABLE,
    "NotForwarded": ErrorCode.INTERNAL,
}
SOURCES = sorted(Path(taskcell.__file__).parent.rglob("*.py"))
#: What an error's fields say beside its code and sentence.
MORE: dict[type[TaskcellError], dict[str, Any]] = {
    HeldElsewhere: {"door": "x"},
    TaskMoved: {"moved": True},
    OutputLost: {"output_lost": True},
    ReadElsewhere: {"goes_on": True},
}
#: What a person reads at a terminal, and never a model.
FOR_PERSONS = {"assembly", "auth", "http", "cli", "images", "clients", "config", "skills", "descriptors.py"}
#: A command of the host, in a sentence.
AT_THE_HOST = re.compile(r"`(?:taskcell|docker|pip install|systemctl) ?[^`]*`|\bDOCKER_HOST\b|\bTMPDIR\b")


def all_of(kind: type[TaskcellError]) -> Iterator[type[TaskcellError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from all_of(one)


def made(kind: type[TaskcellError]) -> TaskcellError:
    arguments: dict[type[TaskcellError], tuple[Any, ...]] = {
        Denied: ("rule", "reason"),
        MustAsk: ("rule", "reason", "tool", "command"),
        ManifestError: (["x"],),
        ApiRefused: ("x", 403, "Forbidden"),
        EndedByServer: (),
    }
    return kind(*arguments.get(kind, ("x",)))


def test_every_error_has_the_code_of_its_kind() -> None:
    for module in pkgutil.walk_packages(taskcell.__path__, "taskcell."):
        # An adapter needs its framework, and raises the framework's own errors.
        if not module.name.endswith("__main__") and not module.name.startswith("taskcell.integrations."):
            import_module(module.name)
    assert {kind.__name__: made(kind).code for kind in all_of(TaskcellError)} == CODES


@pytest.mark.parametrize("kind", list(all_of(TaskcellError)))
def test_a_refusal_carries_its_code_and_sentence(kind: type[TaskcellError]) -> None:
    error = made(kind)
    more = {"rule": "rule"} if issubclass(kind, Denied) else MORE.get(kind, {})
    assert Failure.of(error).structured() == {"error": {"code": error.code.value, **more, "message": str(error)}}


def test_one_case_may_have_another_code_than_its_class() -> None:
    assert errors.BadArgument("x", code=ErrorCode.TOO_LARGE).code is ErrorCode.TOO_LARGE
    assert errors.SpawnFailed("x", no_room=True).code is ErrorCode.NO_CAPACITY
    assert errors.FileRefused("x", code=ErrorCode.TIMEOUT).noted(["y"]).code is ErrorCode.TIMEOUT


def test_every_refusal_of_a_file_has_a_code() -> None:
    codes = {reason: Refused(reason, 0, 0, "").code for reason in RefusalReason if reason != RefusalReason.SYSTEM}
    assert ErrorCode.INTERNAL not in codes.values()
    assert codes[RefusalReason.FOLDER] is ErrorCode.IS_A_DIRECTORY
    by_errno = {number: Refused(RefusalReason.SYSTEM, number, 0, "").code for number in Errno}
    assert ErrorCode.INTERNAL not in by_errno.values()
    assert by_errno[Errno.ENOENT] is ErrorCode.NOT_FOUND
    assert by_errno[Errno.EACCES] is ErrorCode.PERMISSION_DENIED
    assert Refused(255, 0, 0, "").code is ErrorCode.INTERNAL


def sentences(tree: ast.AST) -> Iterator[str]:
    """The texts of a module but its docstrings; of an f-string the fixed parts."""
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    others = {id(part) for node in joined for part in ast.walk(node) if part is not node}
    others |= {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in others:
            yield node.value


def test_what_only_the_person_at_the_host_can_do_is_asked_of_that_person() -> None:
    asked = []
    for path in SOURCES:
        if FOR_PERSONS & {*path.relative_to(SOURCES[0].parent).parts}:
            continue
        said = sentences(ast.parse(path.read_text(encoding="utf-8")))
        asked += [(path.name, text) for text in said if AT_THE_HOST.search(text) and " " in text]
    wrong = [(name, text) for name, text in asked if "person who runs the server" not in text and "host" not in text]
    assert not wrong
    assert len(asked) > 5
