"""What arrives may be anything: neither decoder breaks, and the supervisor lives on."""

from __future__ import annotations

import json
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_driver import PATIENCE, SANITIZER, TOKEN, Client, Supervisor
from taskcell.errors import ProtocolError
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.decoder import Decoder

CORPUS = Path(__file__).resolve().parents[2] / "server" / "supervisor" / "tests" / "corpus"
#: Mutations of each input of a harness's corpus: some seconds for each harness.
MUTATIONS = {"frame": 20_000, "request": 20_000, "table": 500}
#: The modules that each harness is for, and the share of their lines that its corpus must reach without a mutation.
#: What is left in the table is the want of memory.
REACHED = {"frame": {"frame.c": 1.0}, "request": {"request.c": 1.0}, "table": {"table.c": 0.95, "answer.c": 1.0}}

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
text = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b"."))


def frame(kind: int, process: int, body: bytes) -> bytes:
    return (5 + len(body)).to_bytes(4, "little") + bytes([kind]) + process.to_bytes(4, "little") + body


def number(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, (1 << 8 * size) - 1).map(lambda value: value.to_bytes(size, "little"))


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


strings = st.lists(text, max_size=5).map(
    lambda values: len(values).to_bytes(4, "little") + b"".join(map(string, values))
)
reason, stream = st.sampled_from([b"\0", b"\1", b"\2"]), st.sampled_from([b"\1", b"\2"])
ending = joined(reason, number(4), number(1), number(4))
entry = joined(number(4), reason, number(4), number(40), ending, number(8), number(8), text.map(string))
ANSWERS: dict[int, st.SearchStrategy[bytes]] = {
    0x81: joined(number(4), number(1), number(8), number(4), number(8)),
    0x82: number(4),
    0x83: joined(st.integers(1, 6).map(lambda v: bytes([v])), number(4), text.map(string)),
    0x84: joined(stream, number(8), st.binary(max_size=200)),
    0x85: number(4),
    0x86: joined(ending, number(48), number(4), text.map(string), strings),
    0x87: joined(st.sampled_from([b"\1", b"\2"]), number(4), number(16)),
    0x88: st.just(b""),
    0x89: st.lists(entry, max_size=3).map(lambda v: b"\1" + len(v).to_bytes(4, "little") + b"".join(v)),
    0x8A: st.just(b""),
    0x8B: text.map(string),
    0x8E: joined(text.map(string), text.map(string), strings),
    0x8C: joined(stream, number(24), st.binary(max_size=200)),
    0x8D: text.map(string),
    0x8F: joined(number(2), number(1), number(4)),
    0x90: number(4),
    0x91: st.binary(max_size=200),
    0x92: number(4),
    0x93: st.just(b""),
    0x94: number(4),
    0x95: number(8),
}
answers = st.sampled_from(sorted(ANSWERS)).flatmap(
    lambda kind: st.tuples(u32, ANSWERS[kind]).map(lambda parts: frame(kind, *parts))
)
sound_requests = st.one_of(
    st.builds(requests.hello, text.filter(lambda v: len(v) >= 16), u32, u32, u64),
    st.builds(requests.acknowledge, u64),
    st.builds(requests.stdin, u32, st.binary(max_size=300)),
    st.builds(requests.stdin_eof, u32),
    st.builds(requests.signal, u32, u8),
    st.builds(requests.kill, u32, u32),
    st.builds(requests.credit, u32, st.sampled_from(protocol.Stream), u64),
    st.builds(requests.attach, u32, st.sampled_from(protocol.Stream), u64, u64),
    st.just(requests.list_processes()),
    st.builds(requests.forget, u32),
    st.builds(requests.resize, u32, u16, u16),
    st.just(requests.ping()),
    st.just(requests.state()),
    st.builds(requests.no_report, u32),
    st.builds(requests.read, u32, st.sampled_from(protocol.Stream), u64, u32),
    st.builds(requests.listen_on, u16, u32),
    st.builds(requests.accept, u32),
    st.builds(requests.tunnel_data, u32, st.binary(max_size=300)),
    st.builds(requests.tunnel_credit, u32, u32),
    st.builds(requests.tunnel_end, u32),
    st.builds(requests.tunnel_reset, u32),
    st.builds(requests.sudo, text, text.filter(bool), u64, st.sampled_from(protocol.SudoFlag)),
)


@st.composite
def cut(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes in arbitrary pieces."""
    whole = draw(data)
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


@st.composite
def mutated(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> bytes:
    whole = bytearray(draw(data))
    for _ in range(draw(st.integers(0, 4))):
        if whole:
            at = draw(st.integers(0, len(whole) - 1))
            whole[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(whole)


@given(cut(st.one_of(st.binary(max_size=300), mutated(st.lists(answers, max_size=4).map(b"".join)))))
@settings(max_examples=1500, deadline=None)
def test_the_servers_decoder_raises_nothing_but_protocol_errors(pieces: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for piece in pieces:
            list(decoder.feed(piece))
    except ProtocolError:
        pass


@given(st.lists(answers, max_size=6), st.data())
@settings(max_examples=500, deadline=None)
def test_every_sound_answer_is_decoded_the_same_however_it_is_cut(frames: list[bytes], data: st.DataObject) -> None:
    at_once = list(Decoder().feed(b"".join(frames)))
    assert len(at_once) == len(frames)
    decoder = Decoder()
    in_pieces = [event for piece in data.draw(cut(st.just(b"".join(frames)))) for event in decoder.feed(piece)]
    assert in_pieces == at_once


@pytest.fixture(scope="module")
def victim(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    running = Supervisor(binary, tmp_path_factory.mktemp("victim") / "run")
    running.claim().close()
    yield running
    running.stop()


def serve_again(victim: Supervisor) -> None:
    with victim.claim() as client:
        client.sync()
        client.run(0x7FFFFFFF, "true")
        client.wait(events.Gone, 0x7FFFFFFF)
        client.send(requests.forget(0x7FFFFFFF))
        client.sync()


def send_all(client: Client, data: bytes) -> None:
    """Send, and wait until the supervisor has dealt with all of it: it closes at our end of file, if not before."""
    try:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
    except OSError:  # it has closed the connection already
        pass
    client.wait_closed()


@given(st.one_of(st.binary(max_size=400), mutated(st.lists(sound_requests, max_size=6).map(b"".join))))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_supervisor_outlives_any_bytes_of_a_stranger(victim: Supervisor, data: bytes) -> None:
    with victim.connect() as client:
        send_all(client, data)
    serve_again(victim)


@given(
    st.lists(
        st.one_of(
            mutated(sound_requests),
            mutated(st.builds(lambda argv, cwd: requests.spawn(9, requests.Spawn(argv, {b"A": b"b"}, cwd)),
                              st.lists(text, max_size=3), text)),
            st.tuples(st.integers(0, 25), u32, st.binary(max_size=100)).map(lambda parts: frame(*parts)),
        ),
        max_size=8,
    )
)  # fmt: skip
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_supervisor_outlives_any_frames_of_its_server(victim: Supervisor, frames: list[bytes]) -> None:
    # A SHUTDOWN that is sound would be obeyed: of the random frames, those are left out.
    sound = b"".join(data for data in frames if data[4:5] != b"\x0d")
    with victim.claim() as client:
        at = sound.find(b"\x09\0\0\0\x0d")
        send_all(client, sound if at < 0 else sound[:at])
    assert victim.child.poll() is None
    serve_again(victim)


def run_harness(harness: Path, name: str, mutations: int) -> list[int]:
    """How many inputs there were, and how much of them was taken and refused."""
    command = [harness, CORPUS / name, str(mutations)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE * 6, check=False, env=SANITIZER, cwd=harness.parent
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split() if word.isdigit()]


@pytest.mark.parametrize("name", MUTATIONS)
def test_no_input_breaks_the_code_below_the_event_loop(build: ModuleType, tmp_path: Path, name: str) -> None:
    assert set(MUTATIONS) == set(build.FUZZED)
    build.build_with_gcc(build.fuzz_sources(name), tmp_path / "fuzz")
    inputs, taken, refused = run_harness(tmp_path / "fuzz", name, MUTATIONS[name])
    assert inputs == len(list((CORPUS / name).iterdir()))
    assert taken > inputs * MUTATIONS[name] // 20, "mutations that all fail at once try little"
    assert refused > inputs


@pytest.mark.parametrize("name", REACHED)
def test_a_corpus_reaches_the_code_that_it_is_for(build: ModuleType, tmp_path: Path, name: str) -> None:
    build.build_with_gcc(build.fuzz_sources(name), tmp_path / "fuzz", build.COVER)
    run_harness(tmp_path / "fuzz", name, 0)
    notes = sorted(tmp_path.glob("*.gcda"))
    command = ["gcov", "--json-format", "--stdout", *notes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True, cwd=tmp_path)
    lines: dict[str, list[bool]] = defaultdict(list)
    for report in map(json.loads, done.stdout.splitlines()):
        for file in report["files"]:
            lines[Path(file["file"]).name] += [line["count"] > 0 for line in file["lines"]]
            unused = [found["name"] for found in file["functions"] if not found["execution_count"]]
            assert Path(file["file"]).name not in REACHED[name] or not unused
    for file_name, share in REACHED[name].items():
        assert sum(lines[file_name]) >= share * len(lines[file_name]) > 0, file_name


def test_the_corpora_cover_every_request() -> None:
    kinds = {int(kind) for kind in protocol.Request}
    assert {data[4] for path in (CORPUS / "frame").iterdir() if len(data := path.read_bytes()) > 4} >= kinds
    assert {data[0] for path in (CORPUS / "request").iterdir() if len(data := path.read_bytes()) > 4} >= kinds
    assert (CORPUS / "frame" / "hello").read_bytes()[13:29] != TOKEN
