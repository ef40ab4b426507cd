"""A certificate of one's own for `flowtuner server --ssl`, made once and kept."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from pathlib import Path

from flowtuner.errors import FlowtunerError

LASTING = datetime.timedelta(days=825)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """The key and the certificate in a folder; made for this machine's names where they are missing."""
    key_path, certificate_path = folder / "key.pem", folder / "certificate.pem"
    if key_path.is_file() and certificate_path.is_file():
        return key_path, certificate_path
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = _make()
    with os.fdopen(os.open(key_path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)
    certificate_path.write_bytes(certificate)
    return key_path, certificate_path


def _make() -> tuple[bytes, bytes]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise FlowtunerError(
            "--ssl without --ssl-key and --ssl-cert makes a certificate, for which `pip install cryptography` is needed"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host[:64])])
    names = [x509.DNSName("localhost"), x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LASTING)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
