"""Recognise images and programs that are MCP servers: as skills they would end at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from taskcell.config.toml_source import Fault
from taskcell.text import shown

#: Parts of the names of MCP servers, as their packages and images are called: `mcp/fetch`, `mcp-server-git`,
#: `@modelcontextprotocol/server-everything`.
_NAMED = re.compile(r"(?:^|[-_./@])mcp(?:[-_./@]|$)|modelcontextprotocol", re.IGNORECASE)
_MEND = (
    "an MCP server, to which nobody would speak MCP here: add it to your client beside taskcell, or write the program "
    "that a call is to run as docker.entrypoint"
)


def mcp_server_faults(
    image: str, entrypoint: Sequence[str] | None, command: Sequence[str], extra_args: Sequence[str]
) -> Iterator[Fault]:
    """Report a skill that would start an MCP server, by the names that its table gives."""
    chosen = entrypoint is not None or any(word.startswith("--entrypoint") for word in extra_args)
    repository = re.sub(r"(?::[^/:]*)?(?:@.*)?$", "", image)
    if not chosen and _NAMED.search(repository):
        yield Fault(("docker", "image"), f"{shown(image)} looks like {_MEND}", leaves_out=True)
        return
    for key, words in (("entrypoint", entrypoint or ()), ("command", command)):
        # A path of the container that holds the word may be any file.
        server = next((word for word in words if _NAMED.search(word) and not word.startswith("/")), None)
        if server is not None:
            yield Fault(("docker", key), f"{shown(server)} looks like {_MEND}", leaves_out=True)
            return
