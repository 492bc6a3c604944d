"""How much a file command may be asked for, and how much of its reply is believed."""

from __future__ import annotations

from taskcell.model import MIB

#: Bytes of a picture that is shown to the model: what its providers take, and a third more as base64.
MAX_PICTURE = 5 * MIB
#: Bytes of a file that is answered as a resource.
MAX_RESOURCE = 4 * MIB
#: Bytes of one reply of a `supervisor file` command: a picture and its header.
MAX_REPLY = 6 * MIB
#: As the supervisor has it.
MAX_ENTRIES = 1000
MAX_PLACES = 20
#: Bytes, with the closing NUL: PATH_MAX, Linux include/uapi/linux/limits.h.
MAX_PATH = 4096
