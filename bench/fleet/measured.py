"""What the simulation takes for granted: how long each step takes, and what bounds it, with the source of each number.

"Measured" means: on a cluster of two nodes on one machine with 2 cores, Kubernetes 1.20.2, in November 2026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from taskcell.deployment.cluster import members

#: The standard normal distribution's 90th percentile.
_Z90 = 1.2816


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, log-normal, by the two percentiles that were measured."""

    p50: float
    p90: float

    def draw(self, random: Random) -> float:
        """One value."""
        return self.p50 * math.exp(random.gauss(0.0, 1.0) * math.log(self.p90 / self.p50) / _Z90)


#: Measured: a PATCH of a pod, with `test`.
API_WRITE = Latency(0.008, 0.016)
#: Measured: a GET; a list by label of one task's pod is no slower.
API_READ = Latency(0.004, 0.008)
#: Measured: from the pod's creation until it runs, alone on its node.
POD_START = Latency(1.109, 1.153)
#: Measured: exec and HELLO.
OPEN_CHANNEL = Latency(0.062, 0.072)
#: Measured: `echo hi` on an open channel.
COMMAND = Latency(0.002, 0.0038)
#: Measured: a deleted pod's object, which holds its place and its share of the quota, is gone after so many seconds.
POD_GONE = (7.0, 13.0)
#: Measured: seconds until a running call hears that its node was cut off (5 of silence, 15 of patience).
NODE_SILENCE = 19.1
#: Measured: seconds that a killed API server was away in the trial of a session that outlives its stream.
API_OUTAGE = 6.6
#: Measured, rounded down: 30 pods in 6.8 s on two nodes; each node starts so many at a time.
STARTS_AT_ONCE = 2
#: Kubernetes' default (`maxPods` of the kubelet).
PODS_PER_NODE = 110
#: Kubernetes' default (`kubeAPIQPS` of the scheduler): pods that it binds in a second.
BINDS_PER_SECOND = 50
#: Seconds after which Kubernetes' defaults take a silent node for lost: a pod that was to start there has failed.
NODE_GRACE = 40.0
#: Processor time of a server for a call, seconds: 487 calls a second were measured with one client on 2 cores.
CALL_COST = 0.002
#: The same for a request that is handed on: an HTTP request is read and written twice. An estimate.
HAND_ON_COST = 0.001
#: The product's own: seconds between two renewals of a server's Lease, between two looks at the others', between two
#: writings of what only says how busy sandboxes are; and the looks at a dead server before its Lease goes.
RENEW_EVERY, LOOK_EVERY, BUSY_EVERY, LOOKS = members.RENEW_EVERY, members.RENEW_EVERY, 10.0, 5
#: The product's own: seconds without a renewal of a server's Lease until others take it for dead.
LEASE_TERM = members.TERM


# Processor time of the API server with its etcd, in seconds, measured by counts while other work ran on the machine.

#: Processors of the API server's machine, as Kubernetes' own scripts choose for 11 to 100 nodes.
API_CORES = 4
#: Measured: one object is created, patched or deleted; and read.
WRITE_COST, READ_COST = 0.0025, 0.001
#: Measured: a list reads every object of its kind in the namespace from etcd, whatever its labels. For each of them.
LEASE_FROM_ETCD, POD_FROM_ETCD = 13e-6, 87e-6
#: Measured: the same from the API server's own memory (`resourceVersion=0`).
LEASE_FROM_MEMORY, POD_FROM_MEMORY = 1.2e-6, 0.8e-6
#: Measured: each object that is returned.
RETURNED = 10e-6
#: Measured: all that a pod costs from its creation to its first command, and at its end, with what kubelet, scheduler
#: and controllers ask for, and the requests of each.
POD_BEGINS, POD_ENDS, BEGIN_REQUESTS, END_REQUESTS = 0.054, 0.040, 14, 12
#: Measured: a call's bytes pass the API server, which joins the two halves of an exec.
CALL_PASSES = 0.0003
#: What is sent to each watcher of a pod in its life: created, scheduled, started, ready, taken, two of its end.
EVENTS_OF_A_POD = 7
