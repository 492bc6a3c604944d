"""The network by name for sandboxes without a network: a proxy on their loopback, whose other end is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.abc
import structlog
from anyio.streams.buffered import BufferedByteReceiveStream

from taskcell.audit.log import AuditLog
from taskcell.config.egress_table import EgressSettings
from taskcell.egress import socks
from taskcell.egress.bounds import Accounts
from taskcell.egress.dial import Resolve, SystemResolver
from taskcell.egress.gate import REQUEST_TIMEOUT, Carried, Gate
from taskcell.egress.http_proxy import HttpProxy
from taskcell.egress.presets import patterns_of
from taskcell.egress.questions import Questions
from taskcell.egress.relay import BROKEN
from taskcell.egress.rules import Rules
from taskcell.errors import SandboxLost
from taskcell.model import Profile, TaskKey
from taskcell.supervisor import events, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel
from taskcell.supervisor.tunnels import Tunnel

log = structlog.get_logger(__name__)

#: Where the proxy listens in a container, which has its loopback for itself. Programs use the number of squid for it.
PORT = 3128
#: Seconds that a connection keeps its place at least: a program that opens connections without end gets no more than
#: `max_connections` in so many, whatever it does with them.
MIN_HOLD = 0.25
#: Seconds for a program to read the last answer and close its end.
LINGER = 2.0
#: Variables that programs read for a proxy, in lower case; both spellings are set.
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_OWN_HOSTS = "localhost,127.0.0.1,::1"


def proxy_environment(port: int) -> dict[str, str]:
    """Return the variables by which programs find the proxy.

    `all_proxy` names HTTP and not SOCKS: Python's clients fail at their start where they lack a package for that.
    """
    values = dict.fromkeys(_PROXY_VARIABLES, f"http://127.0.0.1:{port}") | {"no_proxy": _OWN_HOSTS}
    both = {spelling: value for name, value in values.items() for spelling in (name, name.upper())}
    return both | {"NODE_USE_ENV_PROXY": "1"}


@dataclass(slots=True)
class SandboxEgress:
    """What one sandbox has of the network.

    Arguments:
        port: where the proxy listens on its loopback.
    """

    port: int
    gate: Gate

    @property
    def environment(self) -> Mapping[str, str]:
        return proxy_environment(self.port)


class Egress:
    """Serves the proxies of a server's sandboxes.

    Arguments:
        audit: gets a line for each connection's beginning and end; None writes none.
        resolve: finds the addresses of names.
        asks: the person is asked about hosts that are not allowed, so every sandbox without a network has a proxy.
    """

    def __init__(
        self,
        settings: EgressSettings,
        audit: AuditLog | None = None,
        resolve: Resolve | None = None,
        *,
        asks: bool = False,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._resolve = resolve or SystemResolver()
        self._accounts = Accounts(settings)
        self.totals = Carried()
        self.questions = Questions(audit) if asks else None

    def serves(self, profile: Profile) -> bool:
        """Whether a profile's sandboxes have a proxy."""
        return bool(profile.egress) or (self.questions is not None and profile.network == "none")

    async def begin(
        self,
        group: anyio.abc.TaskGroup,
        channel: Channel,
        profile: Profile,
        labels: Mapping[str, str],
        task: Callable[[], TaskKey],
        *,
        any_port: bool,
    ) -> SandboxEgress | None:
        """Listen in a sandbox, and serve who connects until its channel ends. Raises SandboxLost.

        Returns None, with a line in the log, when its supervisor cannot listen.

        Arguments:
            group: runs the connections.
            labels: those of the sandbox's image.
            task: returns the task that has the sandbox.
            any_port: its loopback is shared with others, so that the usual port may be in use.
        """
        gate = Gate(
            rules=Rules(patterns_of(profile.egress, self._settings.presets, labels)),
            resolve=self._resolve,
            account=lambda: self._accounts.of(task()),
            task=task,
            profile=profile.name,
            totals=self.totals,
            audit=self._audit,
            questions=self.questions,
        )
        places = self._settings.max_connections

        def serve(tunnel: Tunnel) -> None:
            group.start_soon(self._serve, channel, tunnel, gate)

        channel.tunnels.on_accepted = serve
        channel.tunnels.count_places(places)
        frame = requests.listen_on(0 if any_port else PORT, places)
        (answer,) = await channel.ask(frame, events.Listening, ANSWER_TIMEOUT)
        if not answer.port:
            log.warning("a sandbox has no network by name: its supervisor cannot listen", errno=answer.errno)
            return None
        return SandboxEgress(answer.port, gate)

    async def _serve(self, channel: Channel, tunnel: Tunnel, gate: Gate) -> None:
        """Serve one connection; whatever it does, its place is free again afterwards."""
        began = time.monotonic()
        try:
            await _serve_protocol(tunnel, gate)
            await _linger(tunnel)
        except (*BROKEN, TimeoutError, anyio.EndOfStream, anyio.IncompleteRead):
            pass
        except Exception:
            log.exception("a connection of a sandbox failed")
        finally:
            with suppress(SandboxLost), anyio.CancelScope(shield=True):
                await tunnel.aclose()
        await anyio.sleep(max(0.0, MIN_HOLD - (time.monotonic() - began)))
        with suppress(SandboxLost):
            await channel.tunnels.give_places(1)


async def _linger(tunnel: Tunnel) -> None:
    """End a connection so that the program can still read what was sent, which a reset would take from it."""
    await tunnel.send_eof()
    with anyio.move_on_after(LINGER):
        while True:
            await tunnel.receive()


async def _serve_protocol(tunnel: Tunnel, gate: Gate) -> None:
    with anyio.fail_after(REQUEST_TIMEOUT):
        first = await tunnel.receive()
    if first[0] == socks.SOCKS_VERSION:
        stream = BufferedByteReceiveStream(tunnel)
        stream.feed_data(first)
        await socks.serve_socks(stream, tunnel, gate)
    else:
        await HttpProxy(tunnel, gate, first).serve()
