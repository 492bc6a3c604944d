"""What both ends of a sandbox's channel agree on: the version, the limits, and the named numbers.

`docs/protocol.md` is the reference. `requests.py` encodes frames for the supervisor; `decoder.py` decodes the
supervisor's frames into the classes of `events.py`.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

VERSION = 7
#: Frame limits of `docs/protocol.md`; the length counts type, process and body.
MAX_TO_SUPERVISOR = 4 << 20
MAX_FROM_SUPERVISOR = 1 << 17
MIN_LENGTH = 5
#: Bytes of a process's stdin that may be unacknowledged, for one with BULK_INPUT, and that one frame may hold.
STDIN_WINDOW = 1 << 16
BULK_WINDOW = 1 << 20
STDIN_CHUNK = 1 << 16
#: Bytes of a process's tag, and of one READ's answer.
TAG_MAX = 1024
READ_MAX = 1 << 16
#: Bytes of a tunnel in one frame, and that its program may send before the first TUNNEL_CREDIT.
TUNNEL_PIECE = 1 << 16
TUNNEL_FIRST_CREDIT = 1 << 16
#: Tunnels that the supervisor has accepted have numbers from here on; those that the server opens have lower ones.
TUNNEL_ACCEPTED = 1 << 31
#: A READ with this cursor returns the last bytes.
FROM_THE_END = (1 << 64) - 1
#: A number of processes that the supervisor could not find out.
UNKNOWN_COUNT = (1 << 32) - 1

#: The start of every frame: length, type, process.
HEADER = struct.Struct("<IBI")
#: The start of a string (its length in bytes) and of a list (its number of strings).
COUNT = struct.Struct("<I")


class Stream(IntEnum):
    STDOUT = 1
    STDERR = 2


class Reason(IntEnum):
    """Why a main process ended."""

    ITSELF = 0
    TIMEOUT = 1
    KILL = 2
    CANCEL = 3


class SpawnFlag(IntFlag):
    NONE = 0
    STDIN = 1
    MERGE_STDERR = 2
    PTY = 4
    REPORT_STATE = 8
    #: The last argument stands in no argument list that others can read.
    HIDE_LAST = 16
    #: The program is told the last part of its path as its name, as if it had been found in PATH.
    SHORT_NAME = 32
    #: Its stdin's window is BULK_WINDOW: a file on its way does not wait for each piece's acknowledgement.
    BULK_INPUT = 64
    #: Nothing of its output is dropped: it waits while its spool is full of what the server has not got.
    HOLD = 128


class SudoFlag(IntFlag):
    NONE = 0
    SET_PASSWORD = 1


class WelcomeFlag(IntFlag):
    CHANGES_USER = 1
    IS_PID_1 = 2
    FIRST_CLAIM = 4


class Loopback(IntFlag):
    """The addresses that the supervisor listens on."""

    NONE = 0
    IPV4 = 1
    IPV6 = 2


class ProcessState(IntEnum):
    RUNNING = 0
    EXITED = 1
    GONE = 2


class Request(IntEnum):
    HELLO = 0x01
    SPAWN = 0x02
    STDIN = 0x03
    STDIN_EOF = 0x04
    SIGNAL = 0x05
    KILL = 0x06
    CREDIT = 0x07
    ATTACH = 0x08
    LIST = 0x09
    FORGET = 0x0A
    RESIZE = 0x0B
    PING = 0x0C
    SHUTDOWN = 0x0D
    READ = 0x0E
    SUDO = 0x0F
    STATE = 0x10
    NO_REPORT = 0x11
    LISTEN = 0x12
    ACCEPT = 0x13
    OPEN = 0x14
    TUNNEL_DATA = 0x15
    TUNNEL_CREDIT = 0x16
    TUNNEL_END = 0x17
    TUNNEL_RESET = 0x18
    ACK = 0x19


class FailedStage(IntEnum):
    """The step at which the start of a process failed."""

    REQUEST = 1
    FORK = 2
    USER = 3
    CWD = 4
    EXEC = 5
    PTY = 6
