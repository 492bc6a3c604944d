#!/usr/bin/python3
"""Run a program that writes files, so that they appear whole or not at all: `taskcell-write` in the skills' images.

    taskcell-write OVERWRITE OUTPUT PROGRAM [ARGUMENT…]

PROGRAM is run with each argument that is `%output%` replaced by a path of OUTPUT's name in a new folder beside it. When
it succeeds, every file that it left in that folder is moved to where OUTPUT is; else nothing is. OVERWRITE is `true` or
`false`: whether files that are there already may be replaced.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

PLACE = "%output%"
#: How a shell tells that a program was ended by a signal.
SIGNALLED = 128


class Refused(Exception):
    """What cannot be done, in a sentence."""


def main(overwrite: str, output: str, *program: str) -> int:
    # The program gets the signal too; this one stays to remove the folder.
    signal.signal(signal.SIGTERM, lambda *_: None)
    folder, name = os.path.split(output)
    folder = folder or "."
    try:
        if not name or os.path.isdir(output):
            raise Refused(f"The output {output} is a folder; name a file.")
        check_absent([output], overwrite)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".taskcell-", dir=folder, ignore_cleanup_errors=True) as place:
            return run(program, os.path.join(place, name)) or move(place, folder, overwrite)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"The output {output} cannot be written: {error.strerror}.\n")
    return 1


def run(program: tuple[str, ...], place: str) -> int:
    words = [place if word == PLACE else word for word in program]
    code = subprocess.run(words, check=False).returncode
    return SIGNALLED - code if code < 0 else code


def move(place: str, folder: str, overwrite: str) -> int:
    written = [(os.path.join(place, name), os.path.join(folder, name)) for name in sorted(os.listdir(place))]
    if not written:
        raise Refused("The program ended without an error but wrote nothing.")
    check_absent([new for _, new in written], overwrite)
    for made, new in written:
        shutil.move(made, new)
        sys.stdout.write(f"Wrote {os.path.normpath(new)} ({os.path.getsize(new)} bytes).\n")
    return 0


def check_absent(paths: list[str], overwrite: str) -> None:
    there = [path for path in paths if overwrite != "true" and os.path.lexists(path)]
    if there:
        raise Refused(f"{there[0]} exists already; choose another name, or set 'overwrite' to true to replace it.")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
