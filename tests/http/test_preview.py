"""A page that an agent wrote, in a real browser: whole by `taskcell forward`, without any origin at `/ports/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from http_serving import PATIENCE, HttpServer, serving_http

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.engine]

CONFIG = 'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n'
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=8000"),
)
#: Seconds for the browser to start and to show a page, on a busy machine.
BROWSER_PATIENCE = 120.0
PAGE = """<!doctype html><meta charset="utf-8"><title>Sales</title>
<style>body{font:18px sans-serif;margin:24px;color:#223}svg{display:block}p{color:#556}rect{fill:#3a7bd5}</style>
<h1>Sales by quarter</h1><svg width="560" height="170"></svg><p id="said">loading</p>
<script type="module" src="chart.js"></script>"""
CHART = """const rows = await (await fetch("sales.json")).json();
rows.forEach((value, at) => {
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  Object.entries({x: at * 140, y: 160 - value, width: 110, height: value}).forEach(([k, v]) => bar.setAttribute(k, v));
  document.querySelector("svg").append(bar);
});
localStorage.setItem("seen", rows.length);
document.querySelector("#said").textContent = `${localStorage.getItem("seen")} quarters, drawn by a script`;
"""
#: A page that tries what a hostile one would: to use the server that shows it, or that forwards it.
HOSTILE = """<!doctype html><p id="said">loading</p><script>
const call = JSON.stringify({jsonrpc: "2.0", id: 1, method: "tools/call",
  params: {name: "terminal", arguments: {command: "touch /workspace/owned", task_id: "victim"}}});
const headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"};
const tries = [
  fetch("SERVER/mcp", {method: "POST", body: call, headers}),
  fetch("SERVER/mcp", {method: "POST", body: call, mode: "no-cors"}).then(() => { throw 0; }),
  fetch("SERVER/files/victim/owned", {method: "PUT", body: "x"}),
  fetch("SERVER/healthz").then(answer => answer.text()),
];
Promise.allSettled(tries).then(done => {
  let kept = "kept";
  try { localStorage.setItem("a", "b"); document.cookie = "a=b; path=/"; } catch { kept = "nothing kept"; }
  const got = done.filter(one => one.status === "fulfilled" && one.value && one.value.ok !== false).length;
  document.querySelector("#said").textContent = `origin ${self.origin}, ${got} reached, ${kept}`;
});
</script>"""


async def serve_pages(server: HttpServer, port: int) -> None:
    """Do as an agent does: write files, start a server in the background, wait until it listens."""
    hostile = HOSTILE.replace("SERVER", server.url)
    async with server.client() as client:
        for name, text in {
            "index.html": PAGE,
            "chart.js": CHART,
            "hostile.html": hostile,
            "sales.json": "[90,120,70,150]",
        }.items():
            await client.call_tool("write_file", {"path": name, "content": text, "task_id": "web"})
        line = f"exec python3 -u -m http.server {port} --bind 127.0.0.1"
        started = await client.call_tool(
            "terminal", {"command": line, "background": True, "task_id": "web"}, meta={"taskcell/structured": True}
        )
        assert started.structured_content is not None
        wait = {"action": "wait", "process_id": started.structured_content["process_id"], "task_id": "web"}
        found = await client.call_tool("process", {**wait, "until": "Serving", "wait": PATIENCE})
        assert f"taskcell forward web {port}" in str(found.content)


@asynccontextmanager
async def previewed(folder: Path) -> AsyncIterator[tuple[HttpServer, str]]:
    """A server whose task `web` has pages on port 8000, and the address that they are forwarded to."""
    with serving_http(folder, CONFIG) as server:
        await serve_pages(server, 8000)
        command = [sys.executable, "-m", "taskcell", "forward", "web", "8000:0"]
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        words = [*command, "--config", str(folder / "taskcell.toml")]
        forward = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
        try:
            assert forward.stdout is not None
            yield server, "http://" + forward.stdout.readline().split()[2]
        finally:
            forward.kill()
            forward.communicate()


def browse(folder: Path, *words: str) -> str:
    """Show a page in a browser that has never been used; return what it prints."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed; `make test-browser` does that."
    command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BROWSER_PATIENCE, check=False)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return done.stdout


async def test_a_forwarded_page_works_whole_and_a_hostile_one_gets_nothing(tmp_path: Path) -> None:
    async with previewed(tmp_path) as (server, address):
        picture = Path(os.environ.get("PREVIEW_PNG", tmp_path / "preview.png"))
        browse(tmp_path, f"--screenshot={picture}", "--window-size=640,380", f"{address}/")
        assert picture.read_bytes().startswith(b"\x89PNG")
        shown = browse(tmp_path, "--dump-dom", f"{address}/")
        assert "4 quarters, drawn by a script" in shown
        assert shown.count("<rect ") == 4
        forwarded = browse(tmp_path, "--dump-dom", f"{address}/hostile.html")
        assert f"origin {address}, 0 reached, kept" in forwarded
        direct = browse(tmp_path, "--dump-dom", f"{server.url}/ports/web/8000/hostile.html")
        assert "origin null, 0 reached, nothing kept" in direct
        async with server.client() as client:
            listed = await client.call_tool("terminal", {"command": "ls -A", "task_id": "victim"})
            assert "owned" not in str(listed.content)
