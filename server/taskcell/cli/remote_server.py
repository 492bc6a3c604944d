"""A server over HTTP that a command line names by `--http`: its address, and the token for it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.errors import ConfigError

_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
#: Names the variable that may hold the token for --http.
TOKEN_VARIABLE = "TASKCELL_TOKEN"  # noqa: S105 - a name
#: Characters of standard input that are read for a token.
MAX_TOKEN_FILE = 1 << 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

SERVER_URL = Annotated[str | None, typer.Option("--http", metavar="URL", help="A server that runs already, at URL.")]
TOKEN_FILE = Annotated[str | None, typer.Option(metavar="FILE", help="Holds the token for URL; - is standard input.")]


def checked_url(url: str) -> SplitResult:
    """Return the parts of a URL, of which there is a host. Raises BadParameter."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or "$" in url:
        raise typer.BadParameter("--http takes a URL such as http://127.0.0.1:8765/mcp.")
    if parts.username is not None or parts.password is not None:
        raise typer.BadParameter("--http takes a URL without a name and a password; give the token by --token-file.")
    return parts


def read_token(run: Invocation, token_file: str | None, url: SplitResult) -> str | None:
    """Read the token; None without one. Raises ConfigError, and never shows what was read.

    It says so when the token would cross a network as it is.

    Arguments:
        token_file: a path, or `-` for standard input; None: the variable TASKCELL_TOKEN.
    """
    token, source = _text(run, token_file)
    if token is None:
        return None
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"{source} does not hold a token: one word, as `taskcell token create` prints it.")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        sentence = f"{url.geturl()} is not encrypted: everyone on the way to it can read the token."
        typer.echo(f"taskcell: {sentence}", err=True)
    return token


def _text(run: Invocation, token_file: str | None) -> tuple[str | None, str]:
    """What is to be the token, and where it was read. Raises ConfigError."""
    if token_file is None:
        return run.environ.get(TOKEN_VARIABLE) or None, TOKEN_VARIABLE
    from_input = Path(token_file) == Path("-")
    source = "standard input" if from_input else token_file
    try:
        text = sys.stdin.read(MAX_TOKEN_FILE) if from_input else (run.cwd / token_file).read_text("utf-8")
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}. Name the file with the token.") from None
    return text, source
