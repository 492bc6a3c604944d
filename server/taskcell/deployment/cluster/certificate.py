"""The certificate by which a server of a cluster is known to the others, who read it in its Lease.

Each server makes its own and keeps the key to itself. Whoever may write Leases of the namespace is one of the servers,
so no authority has to sign anything, and nothing has to be installed or renewed.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: It ends with its server, so that no clock decides on it: from before any computer's time, until what RFC 5280
#: (4.1.2.5) writes for "without an end".
_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's own.

    Arguments:
        pem: what the others are to know.
        tls: for its listener.
    """

    pem: str
    tls: ssl.SSLContext = field(repr=False)


def make_certificate(host: str) -> Certificate:
    """Make a key and a certificate for the address at which a server is reached: an IP address, or a name. Blocking."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "taskcell")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), _FROM, _UNTIL)
        .add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix="taskcell-") as folder:  # of this user alone; the API takes files only
        path = Path(folder) / "own.pem"
        path.touch(mode=0o600)
        path.write_bytes(secret + pem)
        tls.load_cert_chain(path)
    return Certificate(pem.decode("ascii"), tls)


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
