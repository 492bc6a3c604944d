"""The composition root: the only reader of the process's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    from taskcell.cli.app import run

    try:
        cwd = Path.cwd()
    except FileNotFoundError:
        # A folder that was deleted under us holds no configuration.
        cwd = Path("/")
    sys.exit(run(sys.argv[1:], environ=dict(os.environ), cwd=cwd))


if __name__ == "__main__":
    main()
