"""MCP over streamable HTTP: sessions of the handshake's era, each a principal's own, and single requests of later ones.

A client of a session that loses its connection gets what it has missed: each session keeps its last messages.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import structlog
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore, StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import JSONRPCMessage

from taskcell.mcp.server import TaskcellServer
from taskcell.model import MIB

log = structlog.get_logger(__name__)

#: Sessions at once, and of one principal: each costs a few tasks and some 50 kB.
MAX_SESSIONS, MAX_SESSIONS_PER_PRINCIPAL = 1000, 100
#: Seconds without a request after which a session ends; its client then begins a new one.
SESSION_IDLE_TIMEOUT = 1800.0
#: Milliseconds after which a client that has lost its connection comes back.
RETRY_INTERVAL = 1000
#: Messages that a session keeps, and bytes that all sessions keep together. The largest answer has about 7 MiB.
MAX_EVENTS, MAX_KEPT = 256, 64 * MIB


@dataclass
class KeptEvents:
    """What all sessions keep. Where it is too much, the oldest go first, whosever they are."""

    limit: int = MAX_KEPT
    size: int = 0
    #: By event id.
    events: OrderedDict[str, tuple[SessionEvents, str, JSONRPCMessage | None, int]] = field(default_factory=OrderedDict)

    def add(self, identity: str, owner: SessionEvents, stream: str, message: JSONRPCMessage | None, size: int) -> None:
        self.events[identity] = (owner, stream, message, size)
        self.size += size
        while self.size > self.limit and self.events:
            self.drop(next(iter(self.events)))

    def drop(self, identity: str) -> None:
        owner, _, _, size = self.events.pop(identity)
        self.size -= size
        owner.identities.pop(identity, None)


class SessionEvents(EventStore):
    """The messages of one session. One store for all would replay the messages of other sessions, whose streams have
    the same names: the numbers that clients give their requests.
    """

    def __init__(self, kept: KeptEvents) -> None:
        self._kept = kept
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        #: In the order in which they came.
        self.identities: OrderedDict[str, None] = OrderedDict()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        identity = f"{self._name}-{next(self._numbers)}"
        size = 100 if message is None else len(message.model_dump_json(by_alias=True, exclude_unset=True))
        self.identities[identity] = None
        self._kept.add(identity, self, stream_id, message, size)
        if len(self.identities) > MAX_EVENTS:
            self._kept.drop(next(iter(self.identities)))
        return identity

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if last_event_id not in self.identities:
            return None
        _, stream, _, _ = self._kept.events[last_event_id]
        known = list(self.identities)
        for identity in known[known.index(last_event_id) + 1 :]:
            event = self._kept.events.get(identity)
            if event is not None and event[1] == stream and event[2] is not None:
                await send_callback(EventMessage(event[2], identity))
        return stream

    def forget(self) -> None:
        """Keep nothing any more: the session has ended."""
        for identity in list(self.identities):
            self._kept.drop(identity)


class Sessions(StreamableHTTPSessionManager):
    """The SDK's manager of sessions, with bounds for each principal. `run` serves; an instance runs once."""

    def __init__(self, server: TaskcellServer, *, max_body: int) -> None:
        super().__init__(
            server,
            event_store=SessionEvents(KeptEvents()),
            retry_interval=RETRY_INTERVAL,
            session_idle_timeout=SESSION_IDLE_TIMEOUT,
            max_request_body_size=max_body,
            max_sessions=MAX_SESSIONS,
        )
        self._kept = KeptEvents()

    @property
    def count(self) -> int:
        """How many sessions are open."""
        return len(self._server_instances)

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        owners = Counter(owner["client_id"] for owner in self._session_owners.values())
        if requestor is not None and owners[requestor["client_id"]] >= MAX_SESSIONS_PER_PRINCIPAL:
            log.warning("A principal has too many sessions; another one is refused.", principal=requestor["client_id"])
            return None
        # The SDK gives every session the same store.
        self.event_store = SessionEvents(self._kept)
        return super()._admit_session(requestor)

    async def _discard_session(self, session_id: str, transport: StreamableHTTPServerTransport) -> None:
        await super()._discard_session(session_id, transport)
        if isinstance(transport._event_store, SessionEvents):
            transport._event_store.forget()
