"""The clients of the matrix, and an environment of its own for each library, below .cache/clients/matrix."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DRIVERS = Path(__file__).parent / "drivers"
HOME = ROOT / ".cache" / "clients" / "matrix"
#: Installs an environment in two seconds where pip takes a minute.
UV = "uv==0.13.9"
#: Seconds for one installation on a slow line.
INSTALL_TIMEOUT = 600

#: One installation at a time: two clients may be of one environment.
_installing = threading.Lock()


@dataclass(frozen=True)
class Client:
    """One row of the matrix.

    Arguments:
        title: as the page names it; the version is that of the first package.
        packages: with exact versions: what a client does changes from one to the next.
        driver: the file in drivers/ that makes the checks, and its arguments.
        raised_by: what raises its time-out for a call; empty where it waits for ever.
    """

    title: str
    environment: str
    packages: tuple[str, ...]
    driver: tuple[str, ...]
    raised_by: str = ""

    @property
    def version(self) -> str:
        return self.packages[0].replace("==", "@").rpartition("@")[2]

    @property
    def is_node(self) -> bool:
        return self.packages[0].startswith("@")

    @property
    def folder(self) -> Path:
        return HOME / self.environment

    @property
    def argv(self) -> list[str]:
        """The command line of its driver."""
        file, *arguments = self.driver
        python = sys.executable if self.is_node else str(self.folder / "bin" / "python")
        program = "node" if file.endswith(".mjs") else python
        return [program, str(DRIVERS / file), *arguments]


_LANGCHAIN = ("langchain-mcp-adapters==0.3.2", "langchain==1.5.2", "langgraph==1.2.24", "mcp==1.30.0")
_OPENAI = ("openai-agents==0.24.0", "mcp==2.3.0")
_TIMEOUT = "`timeout` of a request's options, or `resetTimeoutOnProgress`"

CLIENTS = (
    Client(
        "TypeScript SDK v1", "typescript-1", ("@modelcontextprotocol/sdk@1.32.2",), ("typescript.mjs", "v1"), _TIMEOUT
    ),
    Client(
        "TypeScript SDK v2", "typescript-2", ("@modelcontextprotocol/client@2.4.0",), ("typescript.mjs", "v2"), _TIMEOUT
    ),
    Client(
        "Inspector, `--strict`",
        "inspector",
        ("@modelcontextprotocol/inspector@2.12.0", "node@22.23.3"),
        ("inspector.py",),
    ),
    Client("Python SDK 1.x", "python-1", ("mcp==1.30.0",), ("python_sdk_1.py",)),
    Client("Python SDK 2.x", "python-2", ("mcp==2.3.0",), ("python_sdk_2.py",)),
    Client("FastMCP", "fastmcp", ("fastmcp==4.2.3", "mcp==2.3.0"), ("fastmcp_client.py",)),
    Client("mcp-use's agent", "mcp-use", ("mcp-use==1.7.1", "langchain==1.5.2", "mcp==1.30.0"), ("mcp_use_agent.py",)),
    Client(
        "pydantic-ai",
        "pydantic-ai",
        ("pydantic-ai-slim[mcp]==2.68.0", "mcp==2.3.0"),
        ("pydantic_ai_agent.py",),
        "`MCPToolset(read_timeout=…)`",
    ),
    Client("LangChain, `get_tools()`", "langchain", _LANGCHAIN, ("langchain_agent.py",)),
    Client("LangChain, in a session", "langchain", _LANGCHAIN, ("langchain_agent.py", "session")),
    Client(
        "openai-agents",
        "openai-agents",
        _OPENAI,
        ("openai_agent.py",),
        "`MCPServerStdio(client_session_timeout_seconds=300)`",
    ),
    Client(
        "openai-agents, strict",
        "openai-agents",
        _OPENAI,
        ("openai_agent.py", "strict"),
        "`MCPServerStdio(client_session_timeout_seconds=300)`",
    ),
    Client(
        "smolagents",
        "smolagents",
        ("smolagents[mcp]==1.26.0", "mcp==1.30.0"),
        ("smolagents_agent.py",),
        '`MCPClient(adapter_kwargs={"connect_timeout": 300})`',
    ),
    Client(
        "LlamaIndex",
        "llama-index",
        ("llama-index-tools-mcp==0.6.0", "mcp==2.3.0"),
        ("llama_index_agent.py",),
        "`BasicMCPClient(timeout=300)`",
    ),
    Client(
        "google-adk",
        "google-adk",
        ("google-adk==2.13.0", "mcp==2.3.0"),
        ("google_adk_agent.py",),
        "`StdioConnectionParams(timeout=300)`",
    ),
    Client(
        "AutoGen, `mcp_server_tools()`",
        "autogen",
        ("autogen-ext[mcp]==0.7.5", "autogen-agentchat==0.7.5", "mcp==1.30.0"),
        ("autogen_agent.py",),
        "`StdioServerParams(read_timeout_seconds=300)`",
    ),
)


def is_installed(client: Client) -> bool:
    """Whether the client's environment is there, whole and of this version."""
    stamp = client.folder / "installed"
    return stamp.exists() and stamp.read_text() == "\n".join(client.packages)


def install(client: Client, deadline: float = math.inf) -> None:
    """Make the client's environment; quick when done.

    Arguments:
        deadline: on the monotonic clock; nothing goes on after it.

    Raises subprocess.SubprocessError, OSError without npm, TimeoutError.
    """
    if not _installing.acquire(timeout=min(INSTALL_TIMEOUT, max(0.0, deadline - time.monotonic()))):
        raise TimeoutError("other clients were installed for as long as there was time")
    try:
        if not is_installed(client):
            _install(client, deadline)
    finally:
        _installing.release()


def _install(client: Client, deadline: float) -> None:
    shutil.rmtree(client.folder, ignore_errors=True)
    client.folder.mkdir(parents=True)
    if client.is_node:
        options = ["--no-audit", "--no-fund", "--no-save", "--loglevel", "error"]
        _run(deadline, "npm", "install", "--prefix", str(client.folder), *options, *client.packages)
    else:
        uv = _installed_uv(deadline)
        _run(deadline, uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(client.folder))
        _run(deadline, uv, "pip", "install", "--quiet", "--python", client.argv[0], *client.packages)
    (client.folder / "installed").write_text("\n".join(client.packages))


def _installed_uv(deadline: float) -> str:
    folder = HOME / "uv"
    if not (folder / "installed").exists():
        _run(deadline, sys.executable, "-m", "venv", "--clear", str(folder))
        _run(deadline, str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", UV)
        (folder / "installed").touch()
    return str(folder / "bin" / "uv")


def _run(deadline: float, *argv: str) -> None:
    """Run a program, and end it with all that it started when the time is over. Raises subprocess.SubprocessError."""
    index = os.environ.get("PIP_INDEX_URL")  # uv does not read pip's configuration
    environ = {**os.environ, **({"UV_DEFAULT_INDEX": index} if index else {})}
    seconds = min(INSTALL_TIMEOUT, max(0.0, deadline - time.monotonic()))
    with subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        raise subprocess.CalledProcessError(code, argv[0])
