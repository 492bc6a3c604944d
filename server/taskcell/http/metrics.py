"""What Prometheus reads at `/metrics`: calls, sandboxes, sessions and connections of this server, and its process."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taskcell.egress.gate import Carried
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.ports import PortTraffic
from taskcell.model import ToolCall
from taskcell.pool.slot import Slot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Principals that have rows of their own. Those who come later share one, for each row is kept until the server ends.
MAX_PRINCIPALS = 200
OTHERS = "(others)"
#: Seconds that a call may take, as the buckets of a histogram: a warm call takes milliseconds, a slow one minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)


class Metrics:
    """Counts the gateway's calls from now on, and reads everything else when it is asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Sandboxes(gateway))
        if gateway.egress is not None:
            self._registry.register(_Network(gateway.egress.totals))
        self._registry.register(_Ports(gateway.ports.totals))
        self._principals: set[str] = set()
        names = ["principal", "tool", "outcome"]
        self._calls = Counter("taskcell_calls", "Calls that have ended.", names, registry=self._registry)
        self._seconds = Histogram(
            "taskcell_call_seconds", "How long calls took.", ["tool"], buckets=_BUCKETS, registry=self._registry
        )
        gateway.observers.append(self.observe)

    def observe(self, call: ToolCall, outcome: str, seconds: float) -> None:
        """Count a call that has ended."""
        principal = call.principal
        if principal not in self._principals and len(self._principals) >= MAX_PRINCIPALS:
            principal = OTHERS
        self._principals.add(principal)
        self._calls.labels(principal, call.tool, outcome).inc()
        self._seconds.labels(call.tool).observe(seconds)

    def gauge(self, name: str, meaning: str, read: Callable[[], int]) -> None:
        """Add a number that is read when it is asked for.

        Arguments:
            name: without `taskcell_`.
        """
        Gauge(f"taskcell_{name}", meaning, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Sandboxes(Collector):
    """Counts the sandboxes at the moment that it is asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        sandboxes = GaugeMetricFamily("taskcell_sandboxes", "Sandboxes of this server.", labels=["profile", "state"])
        for (profile, state), count in Counts(map(_state, self._gateway.pool.slots)).items():
            sandboxes.add_metric([profile, state], count)
        yield sandboxes


class _Network(Collector):
    """What sandboxes have done with the network by name."""

    def __init__(self, totals: Carried) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        totals = self._totals
        connections = CounterMetricFamily(
            "taskcell_egress_connections", "Connections that sandboxes asked for by name.", labels=["outcome"]
        )
        outcomes = {"connected": totals.connected, "refused": totals.refused, "failed": totals.failed}
        for outcome, count in outcomes.items():
            connections.add_metric([outcome], count)
        yield connections
        carried = CounterMetricFamily("taskcell_egress_bytes", "Bytes of connections that ended.", labels=["way"])
        carried.add_metric(["sent"], totals.sent)
        carried.add_metric(["received"], totals.received)
        yield carried
        yield GaugeMetricFamily("taskcell_egress_open", "Connections that stand.", value=totals.open)


class _Ports(Collector):
    """What people have done with ports of sandboxes."""

    def __init__(self, totals: PortTraffic) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        totals = self._totals
        yield CounterMetricFamily("taskcell_port_connections", "Connections to ports.", value=totals.connected)
        carried = CounterMetricFamily("taskcell_port_bytes", "Bytes of connections that ended.", labels=["way"])
        carried.add_metric(["sent"], totals.sent)
        carried.add_metric(["received"], totals.received)
        yield carried
        yield GaugeMetricFamily("taskcell_port_open", "Connections to ports that stand.", value=totals.open)


def _state(slot: Slot) -> tuple[str, str]:
    """The profile of a place, and its state: busy, idle, or warm (ready for a new task)."""
    return slot.shared_key[1], "warm" if slot.is_warm else "busy" if slot.is_busy else "idle"
