"""The log: whole lines on one descriptor, and never in the way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from taskcell import log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_both_kinds_of_loggers_write_whole_lines_to_the_descriptor(pipe: tuple[int, int]) -> None:
    log.configure("info", fd=pipe[1])
    structlog.get_logger("a").info("ours", key="value")
    logging.getLogger("b").warning("theirs %s", 5)
    first, second = os.read(pipe[0], 1 << 16).decode().splitlines()
    assert "ours" in first
    assert "key=value" in first
    assert "theirs 5" in second


def test_libraries_that_log_messages_do_not_even_when_all_lines_are_wanted(pipe: tuple[int, int]) -> None:
    log.configure("debug", fd=pipe[1])
    logging.getLogger("mcp.server").info("a message with a secret")
    structlog.get_logger().debug("end")
    assert len(os.read(pipe[0], 1 << 16).splitlines()) == 1


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    writer = log.StderrWriter(pipe[1])
    for _ in range(2000):
        writer.write("x" * 99 + "\n")
    os.read(pipe[0], 1 << 20)
    writer.write("after\n")
    assert "lines were dropped" in (said := os.read(pipe[0], 1 << 16).decode())
    assert said.endswith("after\n")


def test_a_closed_standard_error_is_no_failure(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    log.StderrWriter(pipe[1]).write("lost\n")


def test_any_text_can_be_logged(pipe: tuple[int, int]) -> None:
    log.configure("info", fd=pipe[1])
    structlog.get_logger().info("half \ud800 pair", value=json.loads('"\\ud800"'))
    assert b"half" in os.read(pipe[0], 1 << 16)


def test_foreign_words_neither_break_a_line_nor_reach_a_terminal_as_commands(pipe: tuple[int, int]) -> None:
    log.configure("info", fd=pipe[1])
    foreign = "\x1b]52;c;AAAA\x07\n2026-11-27T05:00:00Z\u202e\x9b2J"
    ours, theirs = structlog.get_logger("a"), logging.getLogger("b")
    ours.info("value", uri="\x1b]52;c;AAAA\x07", both=["\x1b", foreign], reason=foreign)
    theirs.warning("theirs %s", foreign)
    try:
        raise ValueError(foreign)
    except ValueError:
        ours.exception("ours")
        theirs.exception("theirs")
    said = os.read(pipe[0], 1 << 16).decode()
    assert not set("\x1b\x07\x9b\u202e") & set(said)
    events = [line.partition("]")[2].split()[0] for line in said.splitlines() if not line.startswith("  ")]
    assert events == ["value", "theirs", "ours", "theirs"]
    assert said.count("Traceback") == 2
