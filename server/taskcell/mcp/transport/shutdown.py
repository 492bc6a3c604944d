"""The one way out of a stdio server: the end of input, a broken pipe and a signal all take it."""

from __future__ import annotations

import os
import signal
import threading

import anyio

from taskcell.log import Logger

log = Logger(__name__)

#: Seconds after which the process ends even if the clean-up has not: hosts kill what is still there after five.
#: Half a second of them is for the interpreter's own end.
SHUTDOWN_LIMIT = 4.5
#: The exit code where sandboxes had to be left behind; they remove themselves after `orphan_ttl`.
EXIT_UNCLEAN = 1


class Shutdown:
    """Cancels the session at the first reason to stop, and ends the process when the clean-up takes too long.

    Arguments:
        session: what is cancelled; its clean-up is expected to be shielded and bounded.
        limit: seconds for the clean-up.
    """

    def __init__(self, session: anyio.CancelScope, limit: float = SHUTDOWN_LIMIT) -> None:
        self._session = session
        self._limit = limit
        self._began = False

    def begin(self) -> None:
        """The clock starts; the session ends by itself (end of input)."""
        if self._began:
            return
        self._began = True
        # A thread, not the loop: what holds the process up may be the loop itself, or a worker thread at its end.
        watchdog = threading.Timer(self._limit, self._give_up)
        watchdog.daemon = True
        watchdog.start()

    def stop(self) -> None:
        """The clock starts and the session is cancelled."""
        self.begin()
        self._session.cancel()

    async def watch_signals(self) -> None:
        """SIGTERM, SIGINT and SIGHUP stop the session; a second one ends the process at once."""
        seen = 0
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under `nohup` it is to be ignored
            watched.append(signal.SIGHUP)
        with anyio.open_signal_receiver(*watched) as signals:
            async for number in signals:
                seen += 1
                if seen > 1:
                    log.warning("A second signal: the server ends now; sandboxes remove themselves after orphan_ttl.")
                    os._exit(128 + number)
                log.info("A signal: the server closes its sandboxes and ends.", signal=signal.Signals(number).name)
                self.stop()

    @staticmethod
    def ignore_signals() -> None:
        """Let no signal end the process from here on: all is cleaned up, and the watchdog sees to the end.

        Without a handler, the signal of a host that is tired of waiting would turn the exit code 0 into a death.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _give_up(self) -> None:
        log.error(
            "The clean-up takes too long and is given up; sandboxes that are left remove themselves after orphan_ttl.",
            seconds=self._limit,
        )
        os._exit(EXIT_UNCLEAN)
