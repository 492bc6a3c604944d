"""A gRPC server over TLS on loopback, which says hello; its port is its first line. `grpc_hello.py CERT KEY`"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc


class Hello(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"hello " + request)


certificate, key = (Path(path).read_bytes() for path in sys.argv[1:])
server = grpc.server(ThreadPoolExecutor(2), handlers=[Hello()])
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print(port, flush=True)
server.wait_for_termination()
