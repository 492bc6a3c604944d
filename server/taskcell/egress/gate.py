"""The one way out of a sandbox: every connection is judged, counted, and written down here."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from taskcell.audit.log import AuditFailed, AuditLog
from taskcell.destinations import Destination, Pattern
from taskcell.egress.bounds import Account
from taskcell.egress.dial import Resolve, dial
from taskcell.egress.questions import Questions
from taskcell.egress.relay import Traffic
from taskcell.egress.rules import NotConnected, Rules, Why
from taskcell.model import TaskKey
from taskcell.raw_stream import RawStream

#: Seconds for a program to say where it wants to connect.
REQUEST_TIMEOUT = 30.0
#: Destinations that a sandbox was refused and that no answer has said yet.
MOST_REFUSED = 32
#: Refusals alike of one sandbox are one line of the audit log in so many seconds: a loop must not fill the disk.
SAME_REFUSAL = 60.0


@dataclass(slots=True)
class Carried:
    """What a server's sandboxes have done with the network, for its metrics."""

    connected: int = 0
    refused: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    open: int = 0


@dataclass(slots=True)
class Gate:
    """The way out of one sandbox.

    Arguments:
        account: returns what its task may use; the task of a warm sandbox changes once.
        task: returns the task, for the audit log.
        questions: asks the person about other hosts than the rules allow; None asks about none.
    """

    rules: Rules
    resolve: Resolve
    account: Callable[[], Account]
    task: Callable[[], TaskKey]
    profile: str
    totals: Carried
    audit: AuditLog | None = None
    questions: Questions | None = None
    #: What was refused since the last answer, with the sentence.
    refused: dict[str, NotConnected] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def connection(self, to: Destination, protocol: str) -> AsyncIterator[tuple[RawStream, Traffic]]:
        """Connect, and write down how that began and ended. Raises NotConnected.

        Arguments:
            protocol: what the program spoke: `http`, `connect` or `socks5`.
        """
        account, traffic, began = self.account(), Traffic(), time.monotonic()
        try:
            with account.connection(to):
                rules = await self._rules_for(to)
                stream, address = await dial(to, rules, partial(account.look_up, self.resolve))
                try:
                    self._write("egress", to, protocol=protocol, effect="allow", address=str(address))
                    self.totals.connected += 1
                    self.totals.open += 1
                    try:
                        yield stream, traffic
                    finally:
                        self.totals.open -= 1
                        self._ended(to, traffic, time.monotonic() - began)
                finally:
                    await stream.aclose()
        except NotConnected as failure:
            self.refuse(failure, protocol)
            raise

    async def _rules_for(self, to: Destination) -> Rules:
        """The rules, and what the person allows. Raises NotConnected."""
        if self.questions is None or self.rules.has(to):
            return self.rules
        await self.questions.check(self.task(), to)
        return Rules((*self.rules.patterns, Pattern(to.host, to.port)))

    def refuse(self, failure: NotConnected, protocol: str) -> None:
        """Keep a failure for the command's answer, and write a refusal down."""
        key = str(failure.to or failure)
        is_refusal = failure.why in (Why.DENIED, Why.ADDRESS, Why.BOUND, Why.MALFORMED, Why.ASKED)
        self.totals.refused += is_refusal
        self.totals.failed += not is_refusal
        if is_refusal and (key in self.refused or len(self.refused) < MOST_REFUSED):
            self.refused[key] = failure
        now = time.monotonic()
        if is_refusal and now - self._written.get(key, -SAME_REFUSAL) >= SAME_REFUSAL:
            if len(self._written) >= MOST_REFUSED:
                self._written = {name: at for name, at in self._written.items() if now - at < SAME_REFUSAL}
            if len(self._written) < MOST_REFUSED:
                self._written[key] = now
                with suppress(NotConnected):  # nothing is connected anyway
                    self._write("egress", failure.to, protocol=protocol, effect="deny", reason=str(failure))

    def take_refused(self) -> list[NotConnected]:
        """What was refused since this was last asked."""
        found, self.refused = list(self.refused.values()), {}
        return found

    def _ended(self, to: Destination, traffic: Traffic, seconds: float) -> None:
        self.totals.sent += traffic.sent
        self.totals.received += traffic.received
        with suppress(NotConnected):
            self._write(
                "egress_end", to, sent=traffic.sent, received=traffic.received, duration_ms=round(seconds * 1000)
            )

    def _write(self, event: str, to: Destination | None, **fields: object) -> None:
        """Raises NotConnected when the line cannot be written: then nothing may go out."""
        if self.audit is None:
            return
        task = self.task()
        try:
            self.audit.write(
                event,
                principal=task.principal,
                task=task.task,
                profile=self.profile,
                to=None if to is None else str(to),
                **fields,
            )
        except AuditFailed as error:
            raise NotConnected(Why.BOUND, str(error), to) from None
