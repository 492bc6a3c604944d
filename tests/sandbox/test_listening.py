"""Which ports something listens on, out of the kernel's table, which comes from inside a sandbox."""

from __future__ import annotations

import socket
from pathlib import Path

from taskcell.sandbox.listening import ports_in


def test_a_port_is_found_while_something_listens_on_it_and_no_connection_is_taken_for_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as program:
            found = ports_in(Path("/proc/net/tcp").read_bytes())
            assert port in found
            assert program.getsockname()[1] not in found
    assert port not in ports_in(Path("/proc/net/tcp").read_bytes())


def test_the_table_of_ipv6_is_read_and_garbage_is_not() -> None:
    line = b"   0: " + b"0" * 24 + b"01000000:1F90 " + b"0" * 32 + b":0000 0A 00000000:00000000 00:00000000"
    assert ports_in(b"\x00\x03header sl\n" + line + b"\n") == {8080}
    for garbage in (b"", b"\xff" * 5000, b"0: :1F90 :0000 0A ", b"   0: 0100007F:XXXX 00000000:0000 0A ", line[:40]):
        assert ports_in(garbage) == set()
