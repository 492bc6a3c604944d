"""Do the main job with a real MCP client over stdio, and print a transcript that checks itself.

Exit code 1, with a sentence, at the first step that is not as it should be.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import ROOT, Answer, call, connect

EXAMPLES = ROOT / "examples"
LOG = ROOT / ".cache" / "demo-server.log"
TASK = "quarterly-report"
OTHER_TASK = "somebody-else"
#: Lines of a command or an answer that the transcript shows.
SHOWN_LINES = 12
WARM_CALLS = 50
#: Seconds until a command has started, or is gone: the server gives it two after SIGTERM, then kills and counts.
SOON = 8.0

console = Console(highlight=False, soft_wrap=True)


class Unexpected(Exception):
    """A step did not do what it should; the message says which, and what was seen."""


def heading(text: str) -> None:
    console.print(f"\n[bold cyan]## {escape(text)}[/]")


def check(truth: object, sentence: str, answer: Answer | None = None) -> None:
    """Print a sentence that holds. Raises Unexpected where it does not."""
    if not truth:
        seen = f" The answer was: {answer.text[-600:]!r}" if answer else ""
        raise Unexpected(f"This does not hold: {sentence}.{seen}")
    console.print(f"   [green]✓[/] {escape(sentence)}")


def shorten(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    left_out = len(lines) - SHOWN_LINES
    return "\n".join([*lines[:SHOWN_LINES], f"… {left_out} more lines"] if left_out > 0 else lines)


def indent(text: str, prefix: str) -> str:
    return "\n".join(prefix + line for line in text.split("\n"))


def show_call(tool: str, arguments: dict[str, Any]) -> None:
    shown = {key: value for key, value in arguments.items() if key not in ("command", "stdin", "task_id")}
    if "stdin" in arguments:
        shown["stdin"] = f"<{len(arguments['stdin'])} characters>"
    task = arguments.get("task_id", "default")
    details = f" {escape(json.dumps(shown, ensure_ascii=False))}" if shown else ""
    console.print(f"\n[bold]{tool}[/] [dim]task {escape(task)}[/]{details}")
    if "command" in arguments:
        console.print(indent(arguments["command"], " $ "), style="yellow", markup=False)


def show_answer(answer: Answer) -> None:
    console.print(indent(shorten(answer.text), "   "), style="red" if answer.is_error else "dim", markup=False)


class Demo:
    """The steps, in order, on one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def run(self, tool: str, *, task: str = TASK, fields: bool = True, **arguments: Any) -> Answer:
        arguments["task_id"] = task
        show_call(tool, arguments)
        answer = await call(self.client, tool, arguments, fields=fields)
        show_answer(answer)
        return answer

    async def terminal(self, command: str, *, task: str = TASK, **arguments: Any) -> Answer:
        return await self.run("terminal", task=task, command=command, **arguments)

    async def tools(self) -> None:
        heading("The tools that the model sees")
        table = Table("tool", "what it does", box=None, header_style="bold")
        tools = (await self.client.list_tools()).tools
        for tool in tools:
            table.add_row(tool.name, escape((tool.description or "").split(". ")[0].strip()))
        console.print(table)
        check({"terminal", "sql", "jq"} <= {tool.name for tool in tools}, "terminal, sql and jq are among the tools")

    async def files(self) -> None:
        heading("A terminal with files of its own")
        written = await self.terminal("mkdir -p notes && cd notes && echo 'ask Ana about Q3' > todo.txt && pwd")
        check(written.run.get("exit_code") == 0, "the command ran in a container", written)
        read = await self.terminal("pwd && cat todo.txt")
        check("ask Ana" in read.stdout, "the file is there in the next call", read)
        check("/workspace/notes" in read.stdout, "so is the folder that the last call went to", read)

    async def data(self) -> None:
        heading("Data goes in through standard input")
        for name in ("orders.csv", "customers.json"):
            content = (EXAMPLES / name).read_text()
            answer = await self.terminal(f"cd /workspace && cat > {name} && sha256sum {name}", stdin=content)
            digest = hashlib.sha256(content.encode()).hexdigest()
            check(digest in answer.stdout, f"{name} arrived to the byte", answer)

    async def skills(self) -> None:
        heading("Skills work on the same files, each in a container of its own")
        query = "SELECT region, COUNT(*) AS orders, ROUND(SUM(amount + 0), 2) AS total FROM orders GROUP BY region"
        answer = await self.run("sql", args=[":memory:", "-cmd", ".import orders.csv orders", query])
        rows = {row["region"]: float(row["total"]) for row in csv.DictReader(answer.stdout.splitlines())}
        check(rows == totals_by_region(), "the totals are those that Python counts", answer)
        chosen = '[.[] | select(.tags | index("courier")) | .id] | length'
        counted = await self.run("jq", args=[chosen, "customers.json"])
        couriers = [one for one in read_customers() if "courier" in one["tags"]]
        check(counted.stdout.strip() == str(len(couriers)), "jq counts as many couriers as Python", counted)
        await self.sharing()

    async def sharing(self) -> None:
        load = [".import orders.csv orders", ".save shop.db"]
        saved = await self.run("sql", args=[":memory:", "-cmd", load[0], load[1]])
        check(not saved.is_error, "sql wrote a database", saved)
        seen = await self.terminal("file shop.db && sqlite3 shop.db 'SELECT COUNT(*) FROM orders'")
        check("SQLite" in seen.stdout and "480" in seen.stdout, "the terminal finds it, with every row", seen)
        failed = await self.run("sql", args=["shop.db", "SELECT no_such_column FROM orders"])
        check(failed.is_error, "a skill's failure is an error for the model, with the program's own words", failed)

    async def edits(self) -> None:
        heading("Files are read and changed without a shell")
        await self.run("write_file", path="notes/plan.md", content="1. count orders\n2. ask Ana\n")
        edited = await self.run("edit_file", path="notes/plan.md", old="ask Ana", new="ask Ana and Ben")
        check(not edited.is_error, "the text was there once and was replaced", edited)
        read = await self.run("read_file", path="notes/plan.md", fields=False)
        check("2\t2. ask Ana and Ben" in read.text, "the model reads it with line numbers", read)

    async def hand_off(self) -> None:
        heading("What takes longer than a client waits goes on")
        build = "for step in 1 2 3; do echo step $step; sleep 0.5; done; echo built"
        begun = await self.terminal(build, wait=0.2)
        check(begun.run.get("status") == "running", "the call answered, and the build goes on", begun)
        done = await self.run("process", action="wait", process_id=begun.run["process_id"])
        check("step 1" in done.stdout and "built" in done.stdout, "its whole output can be asked for", done)

    async def time_out(self) -> None:
        heading("A time-out ends everything that the command started")
        late = await self.terminal("echo started; setsid sleep 333 & sleep 334", timeout=2)
        check(late.run.get("status") == "timed_out" and late.is_error, "it timed out", late)
        check("started" in late.stdout, "what it had printed is kept", late)
        check(late.run.get("survivors") == 0, "nothing survived, not even what detached itself by setsid", late)
        await self.sleeping(0, "no sleep is left in the container")

    async def cancel(self) -> None:
        heading("A cancel does the same")
        arguments = {"command": "echo working; setsid sleep 335 & sleep 336", "task_id": TASK}
        show_call("terminal", arguments)
        async with anyio.create_task_group() as group:
            group.start_soon(call, self.client, "terminal", arguments)
            await self.sleeping(2, "two sleeps run in the container; now the client cancels")
            group.cancel_scope.cancel()
        await self.sleeping(0, "no sleep is left in the container")

    async def sleeping(self, count: int, sentence: str) -> None:
        """Check that so many processes named sleep run in the task's terminal, now or soon."""
        answer = None
        with anyio.move_on_after(SOON):
            while answer is None or answer.stdout.strip() != str(count):
                answer = await call(self.client, "terminal", {"command": "pgrep -cx sleep", "task_id": TASK})
        check(answer and answer.stdout.strip() == str(count), sentence, answer)

    async def isolation(self) -> None:
        heading("Another task has another container and other files")
        await self.terminal("sleep 337 > /dev/null 2>&1 &")
        other = await self.terminal("ls -A /workspace; pgrep -cx sleep", task=OTHER_TASK)
        check(other.stdout.split() == ["0"], "it sees none of the first task's files and processes", other)

    async def hardening(self) -> None:
        heading("What the sandbox is")
        answer = await self.terminal(
            "id; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ls /sys/class/net; touch /etc/x"
        )
        words = " ".join(answer.stdout.split())
        check("uid=1000(agent)" in words, "commands run as an ordinary user", answer)
        check("CapEff: 0000000000000000" in words, "without any capability", answer)
        check("NoNewPrivs: 1" in words and "Seccomp: 2" in words, "with no-new-privileges and a seccomp filter", answer)
        check(" lo touch" in words, "with no network but the loopback", answer)
        check("Read-only file system" in words, "on a read-only root file system", answer)

    async def speed(self) -> None:
        heading(f"{WARM_CALLS} warm calls, one after the other")
        took = []
        for _ in range(WARM_CALLS):
            begin = time.perf_counter()
            answer = await call(self.client, "terminal", {"command": "true", "task_id": TASK})
            took.append((time.perf_counter() - begin) * 1000)
            if answer.run.get("exit_code") != 0:
                raise Unexpected(f"A warm call of `true` failed: {answer.text!r}")
        took.sort()
        last = took[int(len(took) * 0.95)]
        console.print(f"   median {statistics.median(took):.1f} ms, 95 % within {last:.1f} ms, client and server")

    async def close(self) -> None:
        heading("The end")
        for task in (TASK, OTHER_TASK):
            answer = await self.run("sandbox", task=task, action="close")
            check(not answer.is_error, f"the containers of {task} are gone, and its files", answer)


def read_customers() -> list[dict[str, Any]]:
    customers: list[dict[str, Any]] = json.loads((EXAMPLES / "customers.json").read_text())
    return customers


def totals_by_region() -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    with (EXAMPLES / "orders.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            totals[row["region"]] += float(row["amount"])
    return {region: round(total, 2) for region, total in totals.items()}


STEPS = (
    "tools", "files", "data", "skills", "edits", "hand_off", "time_out", "cancel", "isolation", "hardening", "speed",
    "close",
)  # fmt: skip


async def steps(chosen: list[str]) -> None:
    begin = time.monotonic()
    async with connect(LOG) as client:
        demo = Demo(client)
        for step in chosen:
            await getattr(demo, step)()
    console.print(f"\n[bold green]Everything was as it should be, in {time.monotonic() - begin:.0f} s.[/]")


def sentence_of(error: BaseException) -> str | None:
    """Return the sentence for what went wrong; None for a fault of the demo itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Unexpected):
        return str(error)
    if isinstance(error, (MCPError, OSError, TimeoutError)):
        return f"The server did not answer as it should: {error}."
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", choices=[*STEPS, []], help="all, if none is named")
    try:
        anyio.run(steps, parser.parse_args().steps or list(STEPS))
    except (Exception, ExceptionGroup) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        console.print(f"\n[bold red]{escape(sentence)}[/]\nThe server's log is {Path(LOG).relative_to(ROOT)}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
