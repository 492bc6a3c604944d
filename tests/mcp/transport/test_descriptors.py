"""Standard input and output belong to the protocol: nothing else of the process, and no child, can touch them."""

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from taskcell.mcp.transport.descriptors import peer_closed, peer_left

#: Seconds for a Python interpreter to start and end, on a busy machine.
PATIENCE = 90.0


def run(body: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    program = (
        "import os, subprocess, sys\nfrom taskcell.mcp.transport.descriptors import claim_stdio\n"
        + textwrap.dedent(body)
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=False, input=b"one\n", **options
    )  # type: ignore[call-overload, no-any-return]


def test_stray_prints_and_childrens_output_go_to_standard_error() -> None:
    done = run(
        """
        with claim_stdio() as wire:
            print("stray print")
            sys.stdout.flush()
            os.write(1, b"stray write\\n")
            subprocess.run(["echo", "stray child"])
            os.write(wire.write, b"protocol\\n")
        print("after the end")
        """
    )
    assert done.stdout == b"protocol\n"
    assert done.stderr.splitlines() == [b"stray print", b"stray write", b"stray child", b"after the end"]


def test_a_child_reads_an_empty_input_and_the_protocol_keeps_its_bytes() -> None:
    done = run(
        """
        with claim_stdio() as wire:
            child = subprocess.run(["cat"], stdout=subprocess.PIPE)
            os.write(wire.write, b"child read %d, we read %s" % (len(child.stdout), os.read(wire.read, 100)))
        """
    )
    assert done.stdout == b"child read 0, we read one\n"


def test_no_child_inherits_the_protocols_descriptors() -> None:
    done = run(
        """
        with claim_stdio() as wire:
            mine = {os.readlink(f"/proc/self/fd/{fd}") for fd in wire}
            listing = "import os\\nfor fd in os.listdir('/proc/self/fd'):\\n" \\
                "  try: print(os.readlink('/proc/self/fd/' + fd))\\n  except OSError: pass"
            child = subprocess.run([sys.executable, "-c", listing], stdout=subprocess.PIPE, text=True, close_fds=False)
            os.write(wire.write, repr(mine & set(child.stdout.split())).encode())
        """
    )
    assert done.stdout == b"set()"


def test_the_blocking_mode_is_given_back_for_whoever_shares_the_pipe() -> None:
    done = run(
        """
        kept = os.dup(0)
        with claim_stdio() as wire:
            inside = os.get_blocking(wire.read)
        print(inside, os.get_blocking(kept), file=sys.stderr)
        """
    )
    assert done.stderr == b"False True\n"


def test_a_closed_standard_output_is_an_error_that_says_what_to_do() -> None:
    done = run(
        """
        os.close(1)
        try:
            with claim_stdio():
                pass
        except Exception as error:
            print(type(error).__name__, error, file=sys.stderr)
        """
    )
    assert b"TaskcellError Standard output is closed" in done.stderr
    assert b"MCP client" in done.stderr


def test_it_works_without_a_standard_error() -> None:
    done = run(
        """
        os.close(2)
        with claim_stdio() as wire:
            os.write(1, b"lost")
            os.write(wire.write, b"protocol")
        """
    )
    assert done.stdout == b"protocol"


def socket_pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.anyio
@pytest.mark.parametrize("pair", [os.pipe, socket_pair], ids=["pipe", "socket"])
@pytest.mark.parametrize("what", [peer_closed, peer_left])
async def test_that_the_other_end_is_closed_is_noticed_and_not_before(
    pair: Callable[[], tuple[int, int]], what: Callable[[int], Awaitable[None]]
) -> None:
    read, write = pair()
    ours, theirs = (write, read) if what is peer_closed else (read, write)
    noticed = anyio.Event()

    async def watch() -> None:
        await what(ours)
        noticed.set()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch)
            os.write(write, b"bytes do not hide it")
            await anyio.wait_all_tasks_blocked()
            assert not noticed.is_set()
            os.close(theirs)
    os.close(ours)


@pytest.mark.anyio
@pytest.mark.parametrize("what", [peer_closed, peer_left])
async def test_a_file_has_no_other_end(what: Callable[[int], Awaitable[None]], tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with anyio.move_on_after(0.1) as waited:
        await what(fd)
    assert waited.cancelled_caught
    os.close(fd)
