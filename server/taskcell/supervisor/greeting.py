"""The beginning of a stream: the supervisor's WELCOME, or an engine's words why it could not start what speaks here."""

from __future__ import annotations

from contextlib import suppress

import anyio
import anyio.abc

from taskcell.errors import ProtocolError
from taskcell.supervisor import events, protocol
from taskcell.supervisor.decoder import Decoder
from taskcell.text import MESSAGE_SHOWN, shown

#: Of an engine's words: bytes that are taken, and seconds for all of them.
WORDS_MAX, WORDS_WITHIN = 4096, 1.0
#: What the end of a stream looks like.
STREAM_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


async def first_answer(stream: anyio.abc.ByteStream, *, is_first: bool) -> tuple[events.Welcome, bytes]:
    """Return the WELCOME, which is not a part of the session, and the bytes after it."""
    data = b""
    while len(data) < protocol.COUNT.size or len(data) < (size := protocol.COUNT.unpack_from(data)[0] + 4):
        data += await stream.receive(WORDS_MAX)
        if len(data) >= protocol.COUNT.size and protocol.COUNT.unpack_from(data)[0] > protocol.MAX_FROM_SUPERVISOR:
            if not is_first:
                raise anyio.EndOfStream  # whether the sandbox has ended is asked by other ways
            raise ProtocolError(f"the engine could not start it: {await _words(stream, data)}")
    event = next(iter(Decoder().feed(data[:size])), None)
    if isinstance(event, events.Error):
        raise ProtocolError(f"the supervisor refused the connection: {shown(event.message, MESSAGE_SHOWN)}")
    if not isinstance(event, events.Welcome) or event.version != protocol.VERSION:
        raise ProtocolError("the supervisor did not greet as this version does")
    return event, data[size:]


async def _words(stream: anyio.abc.ByteStream, data: bytes) -> str:
    """One line of the words that begin with `data`: no frame is as long as their first letters would say."""
    with anyio.move_on_after(WORDS_WITHIN), suppress(*STREAM_ENDS):
        while len(data) < WORDS_MAX:
            data += await stream.receive(WORDS_MAX)
    return shown(" ".join(data.decode("utf-8", "replace").split()), MESSAGE_SHOWN)
