"""A server over HTTPS on loopback, whose certificate no system knows, with a repository and an index of packages."""

from __future__ import annotations

import datetime
import functools
import http.server
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: The name that the certificate is for.
HOST = "files.test"


@dataclass(frozen=True)
class HttpsServer:
    """Where it is, and the certificate to trust: that of its authority."""

    port: int
    certificate: str

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Tests need no lines of it."""


@contextmanager
def https_server(folder: Path) -> Iterator[HttpsServer]:
    """Serve `repo.git`, the package `greeting` below `simple/`, and `hello.txt`."""
    root = folder / "served"
    _fill(root)
    certificate = certificate_for(HOST, folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # The handshake belongs to each connection's thread: one that never begins it must not hold up the others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield HttpsServer(server.server_address[1], certificate)
        finally:
            server.shutdown()
            thread.join()


def certificate_for(host: str, folder: Path) -> str:
    """Write cert.pem and key.pem for a host, and return the certificate of the authority that has signed it."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _built("an authority of tests", authority_key, "an authority of tests", authority_key, ca=True)
    certificate = _built(host, key, "an authority of tests", authority_key, ca=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return authority.public_bytes(serialization.Encoding.PEM).decode()


def _built(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _fill(root: Path) -> None:
    simple = root / "simple" / "greeting"
    simple.mkdir(parents=True)
    (root / "hello.txt").write_text("hello\n")
    wheel = simple / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "greeting-1.0.dist-info"
        archive.writestr("greeting.py", "TEXT = 'from the index'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        about = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", about)
        archive.writestr(f"{info}/RECORD", "")
    (simple / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    work = root.parent / "work"
    script = (
        "git init -q work && cd work && echo content > file.txt && git add . && "
        "git -c user.name=t -c user.email=t@t commit -qm first && "
        "git clone -q --bare . ../served/repo.git && git -C ../served/repo.git update-server-info"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["bash", "-c", script], cwd=work.parent, env=environment, check=True, timeout=60)
