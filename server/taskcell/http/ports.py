"""The route `/ports/{task}/{port}/…`: HTTP and WebSocket to what listens in a sandbox, and the port itself."""

from __future__ import annotations

import re

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.byte_streams import BROKEN, FORWARD, PieceStream, splice_pieces
from taskcell.caller import Caller
from taskcell.config.http_table import HttpSettings
from taskcell.errors import BadArgument, TaskcellError
from taskcell.gateway.ports import NothingListens, PortConnections
from taskcell.http.files import parse_task
from taskcell.http.port_exchange import PortExchange
from taskcell.http.port_headers import PortAddress, public_address
from taskcell.http.refuse import error_answer, refused
from taskcell.http.sign_in import ScopedRoute
from taskcell.http.upgrade import UPGRADE, wanted_protocol
from taskcell.mcp.scopes import FOR_PORTS
from taskcell.model import TaskKey

PORTS_PATH = "/ports/"
_FORM = f"{PORTS_PATH}TASK/PORT/PATH"
_PORT = re.compile(rb"[0-9]{1,5}")


class Ports(ScopedRoute):
    """Serves `/ports/` for a caller that is signed in."""

    scopes = FOR_PORTS

    def __init__(self, connections: PortConnections, settings: HttpSettings) -> None:
        self._connections = connections
        self._settings = settings
        super().__init__()

    async def answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> Response | None:
        try:
            return await self._serve(caller, scope, receive, send)
        except NothingListens as error:
            return error_answer(502, str(error), error=error)
        except TaskcellError as error:
            return refused(error)
        except BROKEN:
            return None  # one side has reset the connection, and the other one sees that

    async def _serve(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> Response | None:
        address, is_bare = self._address(scope)
        if scope["method"] == "CONNECT":
            return error_answer(405, "There is no proxy here; ask for a path of the port.")
        task = TaskKey(caller.principal, address.task)
        if is_bare and wanted_protocol(scope) != FORWARD:
            await self._connections.check(task, address.port)
            return _to_folder(scope)
        async with self._connections.connection(task, address.port) as stands:
            if not is_bare:
                return await PortExchange(stands.tunnel, stands.traffic, address, scope).serve(receive, send)
            client = PieceStream(await scope["extensions"][UPGRADE](_SWITCHED))
            count = stands.traffic
            try:
                await splice_pieces(
                    client, stands.tunnel, from_pieces=count.count_sent, from_other=count.count_received
                )
            finally:
                await client.aclose()
        return None

    def _address(self, scope: Scope) -> tuple[PortAddress, bool]:
        """Return where a request goes, and whether it names the port alone. Raises BadArgument."""
        raw: bytes = scope["raw_path"]
        first, _, rest = raw.removeprefix(PORTS_PATH.encode()).partition(b"/")
        number, slash, path = rest.partition(b"/")
        if not _PORT.fullmatch(number):
            raise BadArgument(f"The address must be {_FORM}, where PORT is a number.")
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        host = next(value for name, value in scope["headers"] if name == b"host").decode("latin-1")
        address = PortAddress(
            task=parse_task(first, _FORM),
            port=int(number),
            prefix=f"{PORTS_PATH}{first.decode('latin-1')}/{number.decode()}",
            target=b"/" + path + query,
            public=public_address(self._settings.public_url, scope["scheme"], host),
        )
        return address, not slash


_SWITCHED = [(b"connection", b"upgrade"), (b"upgrade", FORWARD)]


def _to_folder(scope: Scope) -> Response:
    """The answer for the address of a port without a slash: links of pages are relative to the one with it."""
    query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
    return Response(status_code=308, headers={"location": f"{scope['raw_path'].decode('latin-1')}/{query}"})
