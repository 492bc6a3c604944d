"""Many clients of one server over HTTP at once, each of which knows what it was answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from asking import text_of
from http_serving import ERAS, PATIENCE, HttpServer, tokens_for

#: Principals among whom the clients are shared out.
PRINCIPALS = 8
#: Seconds for one call of so many clients on a busy machine: none may take for ever.
CALL_PATIENCE = 120.0


def resident(pid: int) -> int:
    """The bytes of memory that a process holds now."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@dataclass
class LoadClient:
    """One client: what it has sent, and what was answered as done."""

    number: int
    token: str
    task: str
    sent: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    #: What went wrong otherwise, as a sentence.
    faults: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        """The file in its task's workspace that gets a line from each of its commands."""
        return f"log-{self.number}"

    async def work(self, server: HttpServer, ended: Callable[[], bool], *, after: Callable[[], None]) -> None:
        """Run one command after the other until `ended`; what the server's end does to a call is a fault."""
        try:
            async with server.client(self.token, ERAS[self.number % 2], read_timeout_seconds=CALL_PATIENCE) as client:
                while not ended():
                    word = f"w{self.number}-{len(self.sent)}"
                    self.sent.append(word)
                    began = time.monotonic()
                    command = f"echo {word} >>{self.log}; echo {word}"
                    answer = text_of(await client.call_tool("terminal", {"command": command, "task_id": self.task}))
                    if not answer.startswith(f"{word}\n[exit 0 in "):
                        self.faults.append(f"{word}: {answer}")
                        break
                    self.done.append(word)
                    self.seconds.append(time.monotonic() - began)
                    after()
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    async def kept(self, server: HttpServer) -> list[str]:
        """The lines that its commands have left."""
        async with server.client(self.token) as client:
            answer = await client.call_tool("terminal", {"command": f"cat {self.log}", "task_id": self.task})
        return [line for line in text_of(answer).splitlines() if line.startswith(f"w{self.number}-")]


class Load:
    """Clients that work at once.

    Arguments:
        folder: the server's, for its tokens.
        tasks: of each principal.
    """

    def __init__(self, folder: Path, clients: int, *, tasks: int) -> None:
        tokens = tokens_for(folder, *(f"user-{number}" for number in range(PRINCIPALS)))
        self.clients = [
            LoadClient(number, tokens[number % PRINCIPALS], f"t{number // PRINCIPALS % tasks}")
            for number in range(clients)
        ]
        self._answered = 0
        self._awaited: list[tuple[int, anyio.Event]] = []

    async def run(self, server: HttpServer, ended: Callable[[], bool]) -> None:
        """Let all clients work until `ended`."""
        async with anyio.create_task_group() as working:
            for client in self.clients:
                working.start_soon(lambda one=client: one.work(server, ended, after=self._count))

    def _count(self) -> None:
        self._answered += 1
        for count, event in self._awaited:
            if self._answered >= count:
                event.set()

    async def answered(self, count: int) -> None:
        """Wait until so many calls were answered."""
        event = anyio.Event()
        self._awaited.append((count, event))
        with anyio.fail_after(PATIENCE + CALL_PATIENCE):
            await event.wait()

    def quantile(self, share: float) -> float:
        """The seconds that no more than this share of the calls took."""
        seconds = sorted(second for client in self.clients for second in client.seconds)
        return seconds[min(int(len(seconds) * share), len(seconds) - 1)]
