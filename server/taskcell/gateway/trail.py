"""What the gateway writes into the audit log: each decision, each action on what runs, and each end of a process.

No standard input, no values of variables, no output: they may be secret, and the log is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from taskcell.audit.log import AuditLog
from taskcell.model import LOCAL_PRINCIPAL, Command, TaskKey, ToolCall
from taskcell.process.record import Record
from taskcell.process.result import signal_name, status_of

#: Actions of `process` and `sandbox` that change nothing.
_LOOKS = ("list", "poll", "wait", "status")
#: Their arguments that are written: names, and no data.
_ACTION = ("action", "process_id", "signal", "environment", "image", "name", "to")
#: The decisions of the call that is running.
_DECIDED: ContextVar[set[tuple[str, ...]] | None] = ContextVar("decided", default=None)


class Trail:
    """Writes the lines. Each method raises AuditFailed when its line cannot be written.

    Arguments:
        log: None writes nothing.
    """

    def __init__(self, log: AuditLog | None) -> None:
        self._log = log

    @staticmethod
    def begin() -> None:
        """A call begins: what it decides several times alike, as to read a file and then to write it, is one line."""
        _DECIDED.set(set())

    def decided(self, command: Command, effect: str, rule: str) -> None:
        """A command was allowed or denied, and has not run yet."""
        if self._log is None:
            return
        line = {**_of(command), "profile": command.profile.name, "effect": effect, "rule": rule}
        decided, key = _DECIDED.get(), tuple(line.values())
        if decided is None or key not in decided:
            self._log.write("decision", **line)
        if decided is not None:
            decided.add(key)

    def acted(self, call: ToolCall, values: Mapping[str, Any]) -> None:
        """A call changes what runs, without a command of its own."""
        if self._log is not None and values.get("action") not in _LOOKS:
            chosen = {name: values[name] for name in _ACTION if isinstance(values.get(name), str)}
            task = values.get("task_id")
            self._log.write("action", principal=call.principal, task=task, tool=call.tool, **chosen)

    def disconnected(self, task: TaskKey, port: int, sent: int, received: int, seconds: float) -> None:
        """A person's connection to a port of the task has ended. `sent` are bytes towards the sandbox."""
        if self._log is not None:
            line = {"principal": task.principal, "task": task.task, "port": port, "sent": sent, "received": received}
            self._log.write("port_end", **line, duration_ms=round(seconds * 1000))

    def removed(self, task: TaskKey, action: str) -> None:
        """The operator closes a task ("remove"), or its lifetime does ("expire")."""
        if self._log is not None:
            self._log.write("action", principal=LOCAL_PRINCIPAL, owner=task.principal, task=task.task, action=action)

    def ended(self, task: TaskKey, record: Record, *, closed: bool) -> None:
        """A process has ended, or was lost."""
        if self._log is None:
            return
        status, code = status_of(record, closed=closed)
        ended, about = record.process.exit, record.about
        self._log.write(
            "end",
            principal=task.principal,
            task=task.task,
            tool=about.tool,
            process_id=about.process_id,
            status=status.value,
            exit_code=code,
            signal=signal_name(ended.signal) if ended is not None and ended.signal else None,
            duration_ms=record.process.duration_ms,
        )


def _of(command: Command) -> dict[str, str]:
    task = command.task
    user = {"user": command.user} if command.user else {}
    return {"principal": task.principal, "task": task.task, "tool": command.tool, **user, "command": command.text}
