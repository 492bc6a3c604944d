"""A plain client of the real supervisor for these tests: one socket, every wait bounded."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.decoder import Decoder

#: Longer than anything here takes on a busy machine with a sanitizer; a test that waits for so long has failed.
PATIENCE = 60.0
TOKEN = b"0123456789abcdef-test"
PATH = b"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PLENTY = 1 << 40
#: Bytes of a WELCOME, which is not a part of the session, and bytes received after which they are acknowledged.
WELCOME_SIZE = 34
ACK_STEP = 1 << 18

E = TypeVar("E", bound=events.Event)


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Poll for something outside the protocol, such as the end of a process of the host."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """True while a thread of the process lives: a zombie is dead, unless only its main thread has ended."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" or int(numbers[16]) > 1


class Closed(Exception):
    """The supervisor has closed the connection."""


class Client:
    """One connection. Events that a wait skips are kept in `events`, in their order."""

    def __init__(self, stream: socket.socket) -> None:
        self.socket = stream
        self.events: list[events.Event] = []
        #: Bytes of the session that have come; False has them never acknowledged.
        self.received = -WELCOME_SIZE
        self.acknowledges = True
        self._told = 0
        self._decoder = Decoder()

    @classmethod
    def to(cls, path: Path) -> Self:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(path))
        except BaseException:
            stream.close()
            raise
        return cls(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(b"".join(frames))

    def receive(self, end: float) -> None:
        """Take what comes next. Raises Closed at the end of the connection."""
        left = end - time.monotonic()
        assert left > 0, f"waited too long; so far {[type(event).__name__ for event in self.events]}"
        if select.select([self.socket], [], [], left)[0]:
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed
            self.events += self._decoder.feed(data)
            self.received += len(data)
            if self.acknowledges and self.received - self._told >= ACK_STEP:
                self._told = self.received
                self.send(requests.acknowledge(self.received))

    def wait(self, kind: type[E], process: int | None = None, patience: float = PATIENCE) -> E:
        """The first event of this kind (and process); it is taken out of `events`."""
        end = time.monotonic() + patience
        looked = 0
        while True:
            for index in range(looked, len(self.events)):
                event = self.events[index]
                if isinstance(event, kind) and process in (None, event.process):
                    return self.events.pop(index)
            looked = len(self.events)
            self.receive(end)

    def wait_closed(self, patience: float = PATIENCE) -> None:
        end = time.monotonic() + patience
        try:
            while True:
                self.receive(end)
        except Closed:
            return

    def sync(self) -> None:
        """After this, whatever the supervisor sent before is in `events`."""
        self.send(requests.ping())
        self.wait(events.Pong)

    def hello(self, ttl_ms: int = 0, token: bytes = TOKEN) -> events.Welcome:
        self.send(requests.hello(token, ttl_ms))
        return self.wait(events.Welcome)

    def spawn(self, process: int, *argv: str | bytes, credit: int = PLENTY, **options: object) -> None:
        env = {b"PATH": PATH} | dict(options.pop("env", {}))  # type: ignore[call-overload]
        words = [os.fsencode(word) for word in argv]
        request = requests.Spawn(words, env, options.pop("cwd", b"/"), credit=credit, **options)  # type: ignore[arg-type]
        self.send(requests.spawn(process, request))

    def start(self, process: int, *argv: str | bytes, **options: object) -> int:
        """SPAWN, and the pid that SPAWNED tells."""
        self.spawn(process, *argv, **options)  # type: ignore[arg-type]
        return self.wait(events.Spawned, process).pid

    def shell(self, process: int, script: str, **options: object) -> int:
        return self.start(process, "bash", "-c", script, **options)

    def run(self, process: int, *argv: str | bytes, **options: object) -> events.Exit:
        self.start(process, *argv, **options)
        return self.wait(events.Exit, process)

    def output(self, process: int, stream: protocol.Stream = protocol.Stream.STDOUT) -> bytes:
        """All output of this stream that has come so far, which must be without a gap."""
        data = b""
        for event in self.events:
            if isinstance(event, events.Output) and (event.process, event.stream) == (process, stream):
                assert event.offset == len(data), "a gap in the output"
                data += event.data
        return data

    def wait_output(self, process: int, wanted: bytes, stream: protocol.Stream = protocol.Stream.STDOUT) -> bytes:
        end = time.monotonic() + PATIENCE
        while wanted not in self.output(process, stream):
            self.receive(end)
        return self.output(process, stream)


#: For a sanitized binary. No leak check: it would have to trace a process that is not dumpable, and every fork's exit.
SANITIZER = {"ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=8", "UBSAN_OPTIONS": "print_stacktrace=1"}

#: No sanitizer tells of these: the supervisor takes every signal back to what it is for a new program.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


class Supervisor:
    """A supervisor that runs as a child of the test.

    Arguments:
        through: a program and its arguments that prepare something and then execute the rest of their arguments.
        options: more of the supervisor's.
    """

    def __init__(
        self, binary: Path, folder: Path, through: Sequence[str | Path] = (), options: Sequence[str] = ()
    ) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.binary = binary
        self.path = folder / "s.sock"
        self.log = folder / "stderr"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [*through, binary, "init", "--socket", self.path, *options],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env=os.environ | SANITIZER | {"TASKCELL_TEST_SECRET": "not for commands"},
            )
        until(lambda: self.path.exists() or self.child.poll() is not None, "the socket")
        assert self.child.poll() is None, self.log.read_text()

    def connect(self) -> Client:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return Client.to(self.path)
            except (ConnectionRefusedError, FileNotFoundError):  # it is not listening yet
                assert time.monotonic() < end

    def claim(self, ttl_ms: int = 0) -> Client:
        client = self.connect()
        client.hello(ttl_ms)
        return client

    def wait(self) -> int:
        return self.child.wait(PATIENCE)

    def stop(self) -> None:
        """End it, and see that it had not crashed, and that no sanitizer had anything to say."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            self.wait()
        finally:
            self.child.kill()
            self.child.wait()
        assert self.log.read_text() == ""
        assert -self.child.returncode not in CRASHES
