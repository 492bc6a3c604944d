"""A client that asks and never reads, against a real `taskcell serve`: what it costs, and what still works."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from observe import alive, eventually, marker
from raw_client import LOCAL, MUST_END, command
from serving import peak_memory
from taskcell.mcp.transport.answer_sizes import LANE_LIMIT
from taskcell.model import MIB

#: Bytes of the file that is read, as many reads, and what a server takes by itself at most (80 MiB when measured).
FILE = 3_500_000
READS = 200
SERVER = 128 * MIB


class DeafClient:
    """Speaks to a server over its standard input, and reads nothing but the answer to the handshake."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.say(
            "initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "d", "version": "1"}
        )
        assert process.stdout is not None
        assert b"serverInfo" in process.stdout.readline()
        self.say("notifications/initialized")

    def say(self, method: str, identity: int | None = None, **params: Any) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if identity is not None:
            message["id"] = identity
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def run(self, identity: int, line: str) -> None:
        self.say("tools/call", identity, name="terminal", arguments={"command": line})

    def run_to_its_end(self, identity: int, line: str) -> None:
        """Run a command, and see by a file outside of the protocol that it has ended."""
        done = self.folder / f"done-{identity}"
        self.run(identity, f"{line}; touch {done}")
        assert eventually(done.exists)


@contextmanager
def deaf_client(folder: Path) -> Iterator[DeafClient]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command(folder, LOCAL), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    try:
        yield DeafClient(process, folder)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


def test_a_client_that_never_reads_costs_a_bounded_amount_of_memory(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with deaf_client(tmp_path) as client:
        client.run_to_its_end(2, f"head -c {FILE} /dev/urandom > file")
        for number in range(READS):
            client.say("resources/read", 100 + number, uri="taskcell://tasks/default/files/file")
            if number % 4 == 3:
                # Reads that come slowly, one after the other, pile up as well as those that come at once.
                client.run_to_its_end(1000 + number, "true")
        peak = peak_memory(client.process.pid)
    # For the table of `make test-hostile`.
    record_property("figure", f"the server took {peak / MIB:.0f} MiB at most")
    assert peak < SERVER + 3 * LANE_LIMIT


def test_for_a_client_that_never_reads_commands_run_are_cancelled_and_end_with_the_server(tmp_path: Path) -> None:
    cancelled, left = marker(), marker()
    with deaf_client(tmp_path) as client:
        client.run_to_its_end(2, f"head -c {FILE} /dev/urandom > file")
        for number in range(READS):
            client.say("resources/read", 100 + number, uri="taskcell://tasks/default/files/file")
        client.run(3, f"sleep {cancelled}")
        assert eventually(lambda: bool(alive(cancelled)))
        client.say("notifications/cancelled", requestId=3)
        assert eventually(lambda: not alive(cancelled))
        client.run(4, f"sleep {left}")
        assert eventually(lambda: bool(alive(left)))
        assert client.process.stdin is not None
        client.process.stdin.close()
        assert client.process.wait(MUST_END) == 0
    assert not alive(left)
