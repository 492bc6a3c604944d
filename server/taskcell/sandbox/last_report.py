"""Asks a supervisor where the last terminal command ended, whichever server started it."""

from __future__ import annotations

from taskcell.supervisor import events, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel


async def last_report(channel: Channel) -> tuple[bytes, bytes]:
    """Return the tag of the last process that reported where it ended, and its report. Raises SandboxLost."""
    report = b""
    while True:
        (state,) = await channel.ask(requests.state(len(report)), events.LastState, ANSWER_TIMEOUT)
        report += state.report
        if not state.report or len(report) >= state.size:
            return state.tag, report
