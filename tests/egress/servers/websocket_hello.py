"""A WebSocket server over TLS on loopback, which says hello; its port is its first line. Arguments: CERT KEY"""

from __future__ import annotations

import ssl
import sys

from websockets.sync.server import serve


def hello(connection) -> None:
    for message in connection:
        connection.send(f"hello {message}")


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
with serve(hello, "127.0.0.1", 0, ssl=context) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
