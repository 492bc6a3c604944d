"""`/files`: bytes and archives of a workspace over HTTP, and every kind of bad input, on the local engine."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx2
import pytest

from gateways import GatewayFactory
from http_serving import PATIENCE
from served_door import LOCAL, served_door
from taskcell.cli.cp import RemoteFiles, copy_in, copy_out
from taskcell.errors import BadArgument, TaskcellError
from taskcell.files.transfer import StreamedProcess
from taskcell.gateway.gateway import Gateway
from taskcell.http.files import parse_path
from taskcell.http.listener import LARGE_BODY
from taskcell.model import ProcessResult, TaskKey, ToolCall
from taskcell.supervisor.protocol import BULK_WINDOW, SpawnFlag
from taskcell.supervisor.requests import Spawn

pytestmark = pytest.mark.anyio

TAR = {"content-type": "application/x-tar"}


class Served:
    """A server with its local door, and one task `t`."""

    def __init__(self, gateway: Gateway, door: Path, http: httpx2.AsyncClient) -> None:
        self.gateway, self.door, self.http = gateway, door, http

    async def run(self, line: str) -> str:
        report = await self.gateway.call(ToolCall("local", "terminal", {"command": line, "task_id": "t"}))
        assert isinstance(report, ProcessResult)
        return report.stdout

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(f"/files/t/{path}", headers=headers)

    async def put(self, path: str, content: object, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.put(f"/files/t/{path}", content=content, headers=named)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(gateway: GatewayFactory, state: Path, toml: str = LOCAL) -> AsyncIterator[Served]:
    async with served_door(gateway, state, toml) as parts:
        yield Served(*parts)


@pytest.fixture
async def served(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Served]:
    async with opened(gateway, tmp_path / "s") as found:
        yield found


def archive(*entries: tarfile.TarInfo, data: bytes = b"data", form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of these entries; each file has the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info in entries:
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def sentence(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["message"])


# --- one file ----------------------------------------------------------------------------------------------------


async def test_bytes_come_back_as_they_went_in_whatever_the_name(served: Served) -> None:
    data = os.urandom(3_000_001)
    for name in ("new/folder/f", "with%20space%3F%23", "%C3%A4"):
        answer = await served.put(name, data)
        assert (answer.status_code, answer.json()["size"]) == (200, len(data))
        got = await served.get(name)
        assert (got.status_code, got.content == data) == (200, True)
        assert got.headers["content-length"] == str(len(data))
        looked = await served.http.head(f"/files/t/{name}")
        assert (looked.status_code, looked.headers["etag"], looked.content) == (200, got.headers["etag"], b"")
    assert (await served.run("ls -A; stat -c %a new/folder/f")).split("\n") == ["new", "with space?#", "ä", "644", ""]


async def test_a_body_without_a_length_is_taken_to_its_end_and_permissions_of_a_file_stay(served: Served) -> None:
    await served.run("echo old > f; chmod 750 f")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 10_000

    assert (await served.put("f", pieces())).json()["size"] == 400_000
    assert await served.run("stat -c '%a %s' f; ls -A") == "750 400000\nf\n"


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=0-0", 206, b"0"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=4-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=a-b", 200, b"0123456789"),
        ("bytes=99999999999999999999999999-", 200, b"0123456789"),
    ],
)
async def test_a_range_is_served_or_refused_or_answered_by_the_whole(
    served: Served, wanted: str, status: int, content: bytes | None
) -> None:
    await served.put("f", b"0123456789")
    answer = await served.get("f", range=wanted)
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */10"
    else:
        assert answer.content == content
        assert ("content-range" in answer.headers) == (status == 206)


async def test_a_range_of_another_version_is_answered_by_the_whole(served: Served) -> None:
    await served.put("f", b"0123456789")
    tag = (await served.get("f")).headers["etag"]
    same = await served.http.get("/files/t/f", headers={"range": "bytes=0-1", "if-range": tag})
    other = await served.http.get("/files/t/f", headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("none", 404),
        ("f/below", 404),
        ("d/%2e%2e/f", 400),
        ("%2e%2e/f", 400),
        ("%2E/f", 400),
        ("a%00b", 400),
        ("d%2ff", 400),
        ("out", 400),
        ("out/passwd", 400),
        ("up/x", 400),
        ("loop", 404),
        ("pipe", 400),
        ("/".join(["x" * 200] * 30), 400),
        ("x" * 300, 400),
    ],
)
async def test_a_path_that_cannot_be_read_has_one_clear_answer_for_each_way(
    served: Served, path: str, status: int
) -> None:
    await served.run("echo x > f; mkdir d; ln -s /etc out; ln -s ../.. up; ln -s loop loop; mkfifo pipe")
    got = await served.get(path)
    assert got.status_code == status
    assert len(sentence(got)) > 20
    put = await served.put(path, b"x")
    assert put.status_code >= 400 or path == "none"
    assert await served.run("cat f; ls /etc/x 2>/dev/null") == "x\n"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"/files/t", ("t", ".")),
        (b"/files/t/", ("t", ".")),
        (b"/files/a%2Fb/x//y/", ("a/b", "x/y")),
        (b"/files/t/%61", ("t", "a")),
    ],
)
def test_an_address_names_a_task_and_a_path(raw: bytes, found: tuple[str, str]) -> None:
    assert parse_path(raw) == found


@pytest.mark.parametrize("raw", [b"/files/", b"/files//x", b"/files/" + b"x" * 200 + b"/f", b"/files/a%00b/f"])
def test_an_address_without_a_proper_task_is_refused(raw: bytes) -> None:
    with pytest.raises(BadArgument):
        parse_path(raw)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content_encoding": "gzip"}, 415), ({"content_range": "bytes 0-1/2"}, 400)],
)
async def test_a_body_that_would_have_to_be_understood_is_refused(
    served: Served, headers: dict[str, str], status: int
) -> None:
    assert (await served.put("f", b"xx", **headers)).status_code == status
    assert await served.run("ls -A") == ""


async def test_what_is_cut_off_does_not_become_a_file_and_leaves_nothing(served: Served) -> None:
    for head in (b"Content-Length: 1000", b"Transfer-Encoding: chunked"):
        stream = await anyio.connect_unix(str(served.door))
        body = b"3e8\r\n" + b"x" * 500 if b"chunked" in head else b"x" * 500
        await stream.send(b"PUT /files/t/f HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + body)
        while ".taskcell" not in await served.run("ls -A"):
            await anyio.sleep(0.05)
        await stream.aclose()
        while ".taskcell" in await served.run("ls -A"):
            await anyio.sleep(0.05)
    assert await served.run("ls -A") == ""


@pytest.mark.parametrize("more", [0, -1, 20])
async def test_a_large_body_is_what_its_length_says_whatever_follows_it(served: Served, more: int) -> None:
    data = os.urandom(2 * LARGE_BODY)
    stream = await anyio.connect_unix(str(served.door))
    head = f"PUT /files/t/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    await stream.send(head + data[:1000])
    await stream.send(data[1000 : len(data) + min(more, 0)] + b"GET /healthz HTTP/1.1"[: max(more, 0)])
    if more < 0:
        await stream.send_eof()
    answer = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            answer += await stream.receive()
    await stream.aclose()
    if more < 0:
        assert await served.run("ls") == ""
    else:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.lower().count(b"http/1.1") == 1
        assert b"connection: close" in answer.lower()
        assert (await served.get("f")).content == data


async def test_a_large_body_that_is_refused_is_answered_before_it_has_come(served: Served) -> None:
    stream = await anyio.connect_unix(str(served.door))
    head = f"PUT /files/t/.. HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
    await stream.send(head.encode())
    assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")
    await stream.aclose()


async def test_a_chunk_that_is_none_ends_the_request_with_its_status(served: Served) -> None:
    stream = await anyio.connect_unix(str(served.door))
    await stream.send(b"PUT /files/t/f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx")
    answer = await stream.receive()
    assert answer.startswith(b"HTTP/1.1 400 ")
    await stream.aclose()
    while await served.run("ls -A"):
        await anyio.sleep(0.05)


async def test_a_reader_that_goes_ends_the_transfer(served: Served) -> None:
    await served.run("truncate -s 64M big")
    async with served.http.stream("GET", "/files/t/big") as answer:
        async for _ in answer.aiter_raw():
            break
    (slot,) = served.gateway.pool.slots
    while slot.leases:
        await anyio.sleep(0.05)
    assert not slot.sandbox or slot.sandbox.usable


# --- folders -----------------------------------------------------------------------------------------------------


async def test_a_tree_comes_back_as_it_is_with_links_modes_times_and_holes(served: Served) -> None:
    made = (
        "mkdir -p d/in d/empty; echo x > d/in/f; chmod 751 d/in/f; touch -d @1000000000 d/in/f; ln -s f d/in/link; "
        "ln -s /usr/bin/python3 d/abs; ln d/in/f d/hard; truncate -s 50M d/sparse; "
        "printf abc | dd of=d/sparse bs=1 seek=40000000 conv=notrunc 2>/dev/null; chmod 555 d/empty; "
        f"mkdir d/{'n' * 150}; echo deep > d/{'n' * 150}/{'m' * 150}"
    )
    await served.run(made)
    got = await served.get("d")
    assert (got.status_code, got.headers["content-type"], got.headers["x-taskcell-kind"]) == (
        200,
        "application/x-tar",
        "folder",
    )
    assert len(got.content) < 100_000
    put = await served.put("copy", got.content, **TAR)
    assert put.status_code == 200, put.text
    look = "cd {}; find . -printf '%P %y %m %s %l %n\\n' | sort; stat -c %Y in/f; md5sum sparse; du -k sparse | cut -f1"
    first, second = await served.run(look.format("~/d")), await served.run(look.format("~/copy/d"))
    assert first.splitlines()[:-1] == second.splitlines()[:-1]
    assert int(second.split()[-1]) < 1000


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([entry("/tmp/escaped")], "absolute"),
        ([entry("../escaped")], "'..'"),
        ([entry("a/../../escaped")], "'..'"),
        ([entry("out", tarfile.SYMTYPE, "/tmp"), entry("out/escaped")], "leads out"),
        ([entry("up", tarfile.SYMTYPE, ".."), entry("up/escaped")], "leads out"),
        ([entry("h", tarfile.LNKTYPE, "/etc/passwd")], "absolute"),
        ([entry("h", tarfile.LNKTYPE, "../../etc/passwd")], "'..'"),
        ([entry("o", tarfile.SYMTYPE, "/etc"), entry("h", tarfile.LNKTYPE, "o/passwd")], "leads out"),
        ([entry("dev", tarfile.CHRTYPE)], "device"),
        ([entry("dev", tarfile.BLKTYPE)], "device"),
        ([entry("pipe", tarfile.FIFOTYPE)], "FIFO"),
        ([entry("s", b"S")], "sparse file of an old format"),
        ([entry("what", b"Z")], "kind that is not known"),
    ],
)
async def test_nothing_of_a_hostile_archive_lands_outside_and_what_is_wrong_is_named(
    served: Served, tmp_path: Path, bad: list[tarfile.TarInfo], said: str
) -> None:
    before = set(os.listdir("/tmp"))
    answer = await served.put("in/here", archive(entry("first"), *bad), **TAR)
    assert answer.status_code == 400
    assert said in sentence(answer)
    assert "What came before that entry is there." in sentence(answer)
    assert await served.run("cat in/here/first; find ~/.. ~ -maxdepth 1 -name 'escaped*'") == "data"
    assert not {name for name in set(os.listdir("/tmp")) - before if name.startswith("escaped")}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
async def test_archives_of_each_usual_form_are_taken(served: Served, form: int) -> None:
    name = "/".join(["n" * 40] * (2 if form == tarfile.USTAR_FORMAT else 5)) + "/f"
    answer = await served.put(
        "", archive(entry("./", tarfile.DIRTYPE, mode=0o755), entry(name, mode=0o700), form=form), **TAR
    )
    assert answer.status_code in (200, 400), answer.text
    assert await served.run(f"cat {name}; stat -c %a {name}") == "data700\n"


async def test_every_cut_of_an_archive_is_noticed(served: Served) -> None:
    whole = archive(entry("a"), entry("d", tarfile.DIRTYPE, mode=0o755), entry("d/" + "n" * 150), data=b"x" * 700)
    end = len(whole.rstrip(b"\0"))
    for cut in (0, 1, 511, 512, 700, 1024, 1536, 2048, end - 1):
        answer = await served.put("cut", whole[:cut], **TAR)
        assert (answer.status_code, "breaks off" in sentence(answer)) == (400, True), cut
    assert (await served.put("cut", whole, **TAR)).status_code == 200


@pytest.mark.parametrize("garbage", [b"x" * 2000, b"\xff" * 5120, b"PK\x03\x04" + b"\0" * 5000])
async def test_what_is_no_archive_is_refused(served: Served, garbage: bytes) -> None:
    answer = await served.put("d", garbage, **TAR)
    assert answer.status_code == 400
    assert "not a tar archive" in sentence(answer)


async def test_a_file_takes_no_folders_place_and_an_archive_replaces_what_it_names(served: Served) -> None:
    await served.run("mkdir -p f/in; echo old > g; ln -s g link; mkdir real; ln -s real via")
    answer = await served.put("", archive(entry("f")), **TAR)
    assert answer.status_code >= 400
    answer = await served.put("", archive(entry("g"), entry("link"), entry("via/x")), **TAR)
    assert answer.status_code == 200, answer.text
    assert await served.run("cat g link real/x; test -L link || echo file; test -L via && echo link") == (
        "datadatadatafile\nlink\n"
    )


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_policy_rules_judge_paths_as_they_do_for_the_tools(gateway: GatewayFactory, tmp_path: Path) -> None:
    rule = '[[policy.rules]]\nname = "no-keys"\ntool = "{}"\ncommand = "keys"\neffect = "deny"\nreason = "Keys."\n'
    async with opened(gateway, tmp_path / "s", LOCAL + rule.format("read_file")) as served:
        assert (await served.put("keys", b"x")).status_code == 200
        denied = await served.get("keys")
        assert (denied.status_code, denied.json()["error"]["rule"]) == (403, "no-keys")
    async with opened(gateway, tmp_path / "t", LOCAL + rule.format("write_file")) as served:
        assert (await served.put("keys", b"x")).status_code == 403
        assert await served.run("ls") == ""


async def test_files_are_not_served_where_the_tools_are_hidden(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with opened(gateway, tmp_path / "s", LOCAL + '[tools]\nhide = ["write_file"]\n') as served:
        answer = await served.put("f", b"x")
        assert answer.status_code == 403
        assert "offers no tool 'write_file'" in sentence(answer)


# --- `taskcell cp` ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def copying(served: Served) -> AsyncIterator[RemoteFiles]:
    with httpx2.Client(
        transport=httpx2.HTTPTransport(uds=str(served.door), verify=False),
        base_url="http://localhost",
        timeout=PATIENCE,
    ) as http:
        yield RemoteFiles(http, "t")


async def test_cp_places_files_and_folders_as_docker_cp_does(served: Served, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "tree/sub").mkdir(parents=True)
    (here / "tree/sub/f").write_text("inner")
    (here / "tree/run").write_text("#!")
    (here / "tree/run").chmod(0o755)
    (here / "tree/link").symlink_to("sub/f")
    (here / "one").write_text("one")
    async with copying(served) as remote:

        def both_ways() -> None:
            copy_in(remote, str(here / "one"), "renamed")
            copy_in(remote, str(here / "one"), "")
            copy_in(remote, str(here / "tree"), "as")
            copy_in(remote, str(here / "tree"), "as")
            copy_in(remote, f"{here}/tree/.", "as/content")
            copy_out(remote, "as", str(here / "back"))
            copy_out(remote, "/workspace/as/tree/.", str(here / "content"))
            copy_out(remote, "renamed", str(here / "content"))
            copy_out(remote, "one", str(here / "two"))
            copy_out(remote, "", str(here / "all"))

        await anyio.to_thread.run_sync(both_ways)
    assert await served.run("cat renamed one as/sub/f as/tree/sub/f; stat -c %a as/run; readlink as/link") == (
        "oneoneinnerinner755\nsub/f\n"
    )
    assert (here / "back/tree/link").readlink() == Path("sub/f")
    assert (here / "back/content/sub/f").read_text() == "inner"
    assert (here / "back/run").stat().st_mode & 0o777 == 0o755
    assert sorted(os.listdir(here / "content")) == ["link", "renamed", "run", "sub"]
    assert ((here / "two").read_text(), (here / "all/as/sub/f").read_text()) == ("one", "inner")


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("none", "x", "There is no"),
        ("../etc", "x", "not below"),
        ("f", "no/such/x", "make it first"),
        ("f", "n/", "n/"),
    ],
)
async def test_cp_says_what_does_not_go(served: Served, tmp_path: Path, source: str, target: str, said: str) -> None:
    await served.run("echo x > f")
    async with copying(served) as remote:
        with pytest.raises(TaskcellError, match=said):
            await anyio.to_thread.run_sync(lambda: copy_out(remote, source, f"{tmp_path}/{target}"))


async def test_cp_says_which_file_of_a_folder_could_not_be_read(served: Served, tmp_path: Path) -> None:
    deep = "/".join(["d"] * 250)
    await served.run(f"mkdir -p top/{deep}")
    async with copying(served) as remote:
        with pytest.raises(TaskcellError, match="Not all could be read"):
            await anyio.to_thread.run_sync(lambda: copy_out(remote, "top", f"{tmp_path}/x"))


async def test_a_megabyte_may_be_on_its_way_before_the_sandbox_takes_any_of_it(served: Served) -> None:
    (sandbox,) = await served.gateway.pool.sandboxes(TaskKey("local", "t"))
    flags = SpawnFlag.STDIN | SpawnFlag.BULK_INPUT
    request = Spawn(argv=[b"/bin/sleep", b"600"], env={}, cwd=b"/", flags=flags)
    process = StreamedProcess(sandbox)
    await process.start(lambda _: request, more=True)
    assert await process.input.write(bytes(BULK_WINDOW), PATIENCE) == BULK_WINDOW
    await sandbox.kill(process)
    process.close()
