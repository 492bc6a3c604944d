"""Limits of file commands and of their replies."""

from __future__ import annotations

from taskcell.model import MIB

#: Bytes of a picture that is shown to a model: the limit of model providers. As base64 it is a third larger.
MAX_PICTURE = 5 * MIB
#: Bytes of a file that is served as a resource.
MAX_RESOURCE = 4 * MIB
#: Bytes of one reply of a `supervisor file` command: a picture and its header.
MAX_REPLY = 6 * MIB
#: Entries of a listing and places of an edit; the supervisor has the same limits.
MAX_ENTRIES = 1000
MAX_PLACES = 20
#: Bytes, including the closing NUL: PATH_MAX, Linux include/uapi/linux/limits.h.
MAX_PATH = 4096
