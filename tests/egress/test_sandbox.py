"""The network by name in a task's sandbox: what programs find, and what the answer says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateways import GatewayFactory
from proxied import Names, Seen, serving
from taskcell.audit.log import AuditLog
from taskcell.errors import Denied
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#: What asks by its own means, without a program that an image may lack.
FETCH = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://{}/\").read().decode())'"


def allowing(*entries: str, allowed: tuple[str, ...] | None = None, more: str = "") -> str:
    return (
        f"[terminal]\nshell = ['bash', '-c']\negress = {json.dumps(entries)}\n"
        f"[policy]\nallowed_egress = {json.dumps(entries if allowed is None else allowed)}\n{more}"
    )


def to(server: Seen) -> tuple[str, str]:
    return f"files.test:{server.port}", f"127.0.0.1:{server.port}"


async def run(gw: Gateway, command: str, **arguments: object) -> ProcessResult:
    report = await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": "t", **arguments}))
    assert isinstance(report, ProcessResult)
    return report


def resolver() -> Names:
    return Names({"files.test": ["127.0.0.1"], "other.test": ["1.1.1.1"]})


@pytest.mark.parametrize("engine", ["local", pytest.param("docker", marks=pytest.mark.engine)])
async def test_a_program_reaches_what_its_profile_names_and_the_answer_says_what_was_refused(
    gateway: GatewayFactory, tmp_path: Path, engine: str
) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    async with serving(OK) as server:
        names = resolver()
        async with gateway(toml=allowing(*to(server)), engine=engine, audit=audit, resolve=names) as gw:
            done = await run(gw, FETCH.format(to(server)[0]))
            assert (done.stdout, done.notes) == ("hello\n", ())
            refused = await run(gw, FETCH.format("other.test"))
            assert refused.exit_code == 1
            (note,) = refused.notes
            assert "may not reach 'other.test:80'" in note
            assert "policy.allowed_egress" in note
            assert names.asked == ["files.test"]
            assert (await run(gw, "true")).notes == ()
    events = [json.loads(line) for line in audit.path.read_text().splitlines()]
    assert [line["to"] for line in events if line["event"] == "egress"] == [to(server)[0], "other.test:80"]


async def test_every_spelling_of_the_variables_names_the_proxy_and_a_profile_may_say_otherwise(
    gateway: GatewayFactory,
) -> None:
    toml = allowing("files.test").replace("[policy]", "environment = ['http_proxy=http://mine']\n[policy]")
    async with gateway(toml=toml, engine="local", resolve=resolver()) as gw:
        shown = (await run(gw, "env | grep -i _proxy | sort")).stdout.split()
        found = dict(line.split("=", 1) for line in shown)
        port = found["https_proxy"].rpartition(":")[2]
        proxy = f"http://127.0.0.1:{port}"
        assert found == {
            "http_proxy": "http://mine",
            "NODE_USE_ENV_PROXY": "1",
            **dict.fromkeys(("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), proxy),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
        }
        # A reset gives a fresh sandbox, and its proxy.
        await gw.call(ToolCall("local", "sandbox", {"action": "reset", "task_id": "t"}))
        assert "http://127.0.0.1:" in (await run(gw, "echo $https_proxy")).stdout


async def test_a_sandbox_without_egress_has_no_proxy(gateway: GatewayFactory) -> None:
    async with gateway(engine="local") as gw:
        assert (await run(gw, "env | grep -ci _proxy")).stdout == "0\n"


async def test_what_the_policy_does_not_cover_runs_nothing(gateway: GatewayFactory) -> None:
    toml = allowing("files.test", "10.0.0.5", allowed=("files.test:443", "*"))
    async with gateway(toml=toml, engine="local") as gw:
        with pytest.raises(Denied, match=r"'10\.0\.0\.5'") as denied:
            await run(gw, "true")
        assert denied.value.rule == "allowed-egress"


async def test_a_task_that_floods_its_proxy_slows_no_command_down(gateway: GatewayFactory) -> None:
    """Counted, not timed: while thousands of connections are tried, another task's commands all run."""
    async with serving(OK) as server:
        flood = (
            "python3 - <<'END'\nimport socket, os\nport = int(os.environ['https_proxy'].rpartition(':')[2])\n"
            "held = []\nfor i in range(3000):\n s = socket.socket(); s.setblocking(False)\n"
            " s.connect_ex(('127.0.0.1', port))\n if i % 10: s.close()\n else: held.append(s)\n"
            "print('flooded', flush=True)\nimport time; time.sleep(60)\nEND"
        )
        toml = allowing(*to(server), more="[egress]\nmax_connections = 4\n")
        async with gateway(toml=toml, engine="local", resolve=resolver()) as gw:
            await run(gw, flood, background=True)
            arguments = {"action": "wait", "process_id": "p1", "until": "flooded", "task_id": "t"}
            await gw.call(ToolCall("local", "process", arguments))
            for number in range(10):
                assert (await run(gw, f"echo {number}", task_id="other")).stdout == f"{number}\n"
            assert (await run(gw, FETCH.format(to(server)[0]), task_id="other")).stdout == "hello\n"


@pytest.mark.engine
async def test_nothing_but_the_proxy_leads_out_of_a_sandbox(gateway: GatewayFactory) -> None:
    """No interface, no route, no other address, no name, no raw socket; and the proxy reaches no host of ours."""
    look = (
        "python3 - <<'END'\n"
        "import os, socket\n"
        "print('interfaces', sorted(os.listdir('/sys/class/net')))\n"
        "print('routes', len(open('/proc/net/route').read().splitlines()) - 1)\n"
        "for host in ('1.1.1.1', '172.17.0.1', '192.168.0.1', '169.254.169.254', '2606:4700::1111'):\n"
        "    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET); s.settimeout(5)\n"
        "    try: s.connect((host, 80)); print('reached', host)\n"
        "    except OSError as e: print('no', host)\n"
        "for kind in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0)):\n"
        "    try: socket.socket(*kind); print('raw')\n"
        "    except OSError: print('no raw')\n"
        "try: socket.getaddrinfo('files.test', 80); print('resolved')\n"
        "except OSError: print('no name')\n"
        "END"
    )
    async with serving(OK) as server, gateway(toml=allowing(*to(server)), resolve=resolver()) as gw:
        done = await run(gw, look)
        hosts = ("1.1.1.1", "172.17.0.1", "192.168.0.1", "169.254.169.254", "2606:4700::1111")
        lines = ["interfaces ['lo']", "routes 0", *(f"no {host}" for host in hosts), "no raw", "no raw", "no name"]
        assert done.stdout.splitlines() == lines
        for host in ("localhost", "172.17.0.1", "127.0.0.1:22", "[::1]", "0x7f000001"):
            refused = await run(gw, f"curl -sS --noproxy '' -o /dev/null -w '%{{http_code}}' http://{host}/")
            assert refused.stdout in ("403", "400"), (host, refused.stdout)


@pytest.mark.engine
async def test_a_program_that_knows_no_proxy_is_told_which_variable_has_it(gateway: GatewayFactory) -> None:
    async with gateway(toml=allowing("files.test"), resolve=resolver()) as gw:
        done = await run(gw, "curl -sS --noproxy '*' http://files.test/")
        assert done.exit_code == 6
        assert ["$https_proxy" in note for note in done.notes] == [True]
        assert "no network" not in "".join(done.notes)


async def test_a_host_with_a_private_address_is_said_to_be_one(gateway: GatewayFactory) -> None:
    names = Names({"files.test": ["10.0.0.5"]})
    async with gateway(toml=allowing("files.test"), engine="local", resolve=names) as gw:
        (note,) = (await run(gw, FETCH.format("files.test"))).notes
        assert "'files.test:80', because its address is not public" in note


async def test_a_note_names_a_few_hosts_and_quotes_them(gateway: GatewayFactory) -> None:
    async with gateway(toml=allowing("files.test"), engine="local", resolve=resolver()) as gw:
        many = "; ".join(FETCH.format(f"a{number}.test") for number in range(6))
        (note,) = (await run(gw, many)).notes
        assert "'a0.test:80', 'a1.test:80', 'a2.test:80', 'a3.test:80' and 2 more" in note


async def test_the_terminals_own_packages_need_one_line(gateway: GatewayFactory) -> None:
    presets = "[egress.presets]\npackages = ['files.test']\n"
    own = f"[terminal]\negress = ['@packages']\n{presets}"
    async with gateway(toml=own, engine="local", resolve=resolver()) as gw:
        assert "https_proxy" in (await run(gw, "env")).stdout
    foreign = f"[terminal]\negress = ['@packages']\nimage = 'other/base'\n{presets}"
    async with gateway(toml=foreign, engine="local", resolve=resolver()) as gw:
        with pytest.raises(Denied, match="'@packages'"):
            await run(gw, "true")
