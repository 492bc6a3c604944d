"""Whether a folder of the host answers at all: on a network file system without its server, looks wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from taskcell.errors import ConfigError
from taskcell.text import shown

#: Seconds for a look that takes a millisecond, and for the start of the program that looks, on a busy machine.
FOLDER_PATIENCE = 10.0
_LOOK = "import os, sys; os.path.realpath(sys.argv[1]), os.access(sys.argv[1], os.R_OK)"


def check_answers(folder: Path) -> None:
    """Look at a folder in a process of its own, which no signal may end before the file system answers. Blocking.

    Raises ConfigError: it does not answer.
    """
    looking = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LOOK, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        looking.wait(FOLDER_PATIENCE)
    except subprocess.TimeoutExpired:
        looking.kill()
        raise ConfigError(
            f"The folder {shown(str(folder))} did not answer within {FOLDER_PATIENCE:.0f} s, as a network file system "
            "does that hangs; mend it, or name another folder as workspace.folder."
        ) from None
