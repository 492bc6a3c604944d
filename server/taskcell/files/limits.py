"""Limits of file commands and of their replies."""

from __future__ import annotations

from taskcell.model import MIB

#: Bytes of a picture that is shown to a model: as base64 they are 5 MiB, the limit of model providers.
MAX_PICTURE = 3_932_160
#: Pixels of a picture's longer side: the limit of model providers.
MAX_SIDE = 8000
#: Pixels of the longer side that a larger picture is shown with: providers make smaller what is above 1,568, and refuse
#: what is above 2,000 in a talk with more than twenty pictures.
GOOD_SIDE = 2000
#: Bytes of a file that is served as a resource.
MAX_RESOURCE = 4 * MIB
#: Bytes of a file that is read as a whole; of a larger one, the lines that are asked for.
MAX_READ_WHOLE = 1 * MIB
#: Bytes of a file that is decoded as a whole: one that is edited, UTF-16, a notebook, or long lines by columns.
MAX_DECODED = 16 * MIB
#: Bytes of one file after a change.
MAX_CHANGED = 64 * MIB
#: Bytes of one reply of a `supervisor file` command: a whole text and its header.
MAX_REPLY = 17 * MIB
#: Entries of a listing's page, and places of an edit that are shown.
MAX_ENTRIES = 1000
MAX_PLACES = 20
#: Bytes, including the closing NUL: PATH_MAX, Linux include/uapi/linux/limits.h.
MAX_PATH = 4096
