"""A client that sends any bytes: what the official client would never do to a server."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Seconds for an answer that takes milliseconds, on a busy machine with a server that is just starting.
PATIENCE = 90.0
#: Seconds within which the server must be gone: four times what docs/architecture.md says under "Ends", for the
#: machine that runs tests in several processes is busier than a user's.
MUST_END = 20.0

LOCAL = '[engine]\nkind = "local"\n'


def command(folder: Path, toml: str = LOCAL) -> list[str]:
    """The server's command line, with a configuration in `folder`."""
    config = folder / "taskcell.toml"
    config.write_text(toml, encoding="utf-8")
    return [sys.executable, "-m", "taskcell", "serve", "--config", str(config)]


class RawClient:
    """A started server, and lines to and from it."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                # Under nohup it is ignored, and the server leaves it so.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - no thread runs yet
            )
        self._heard: queue.Queue[bytes] = queue.Queue()
        self._numbers = iter(range(1, 1_000_000))
        self._reading = threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                self._reading.wait(PATIENCE)
                self._heard.put(line)
        except ValueError:
            return  # the test closed it

    def stop_reading(self) -> None:
        """From the next line on, let the server's output pile up."""
        self._reading.clear()

    def say(self, data: bytes | dict[str, Any]) -> None:
        """Send bytes as they are, or a message as its line."""
        assert self.process.stdin is not None
        self.process.stdin.write(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, **params: Any) -> int:
        """Send a request; answers its id."""
        identity = next(self._numbers)
        self.say({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        return identity

    def hear(self) -> dict[str, Any]:
        """The next message from the server; every line must be one."""
        message: dict[str, Any] = json.loads(self._heard.get(timeout=PATIENCE))
        assert message["jsonrpc"] == "2.0"
        return message

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and wait for its answer, which must be the next message."""
        identity = self.send(method, **params)
        answer = self.hear()
        assert answer["id"] == identity
        return answer

    def shake_hands(self) -> dict[str, Any]:
        """The handshake of the 2025-11-25 era; answers the server's part."""
        info = {"name": "raw", "version": "1"}
        answer = self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: dict[str, Any] = answer["result"]
        return result

    def start_command(self, line: str, **more: Any) -> int:
        """Send a call of the terminal; answers the request's id."""
        return self.send("tools/call", name="terminal", arguments={"command": line, **more})

    def run_command(self, line: str, **more: Any) -> dict[str, Any]:
        """Call the terminal and wait for the result, with its fields."""
        arguments = {"command": line, **more}
        answer = self.ask("tools/call", name="terminal", arguments=arguments, _meta={"taskcell/structured": True})
        result: dict[str, Any] = answer["result"]
        return result

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self, within: float = MUST_END) -> int:
        """Wait for the server's end."""
        return self.process.wait(within)

    def unheard(self) -> list[dict[str, Any]]:
        """Messages that the ended server had sent and nobody asked for."""
        self._reader.join(PATIENCE)
        return [json.loads(line) for line in self.heard_so_far()]

    def heard_so_far(self) -> list[bytes]:
        """Lines from the server that nobody asked for yet."""
        return [self._heard.get() for _ in range(self._heard.qsize())]


@contextmanager
def raw_client(folder: Path, toml: str = LOCAL) -> Iterator[RawClient]:
    """A started server that is gone when the test is."""
    client = RawClient(command(folder, toml), folder)
    try:
        yield client
    finally:
        client._reading.set()
        if client.process.poll() is None:
            client.process.send_signal(signal.SIGTERM)
            try:
                client.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                client.process.kill()
                client.process.wait()
        for stream in (client.process.stdin, client.process.stdout):
            if stream is not None and not stream.closed:
                with suppress(BrokenPipeError):
                    stream.close()
