"""Certificates as they lie in files: read, checked, and told of in the cluster's own errors."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stormtracks.cluster.errors import CertificateError

__all__ = ["MAKE", "is_issued_by", "names_in", "read_certificate", "read_with_key"]

MAKE = "make them with: stormtracks certs CAMPAIGN.toml"


def read_certificate(path: Path, *, anew: str = MAKE) -> x509.Certificate:
    """A certificate from a file; `anew` is how to come by another one.

    Raises
    ------
    CertificateError
        If there is none, or it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise CertificateError(f"there is no certificate {path}", remedy=MAKE) from error
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"the certificate {path} cannot be read: {error}", remedy=f"see to that file; if it is damaged, {anew}"
        ) from error


def read_with_key(
    path: Path, *, anew: str = f"delete it, and {MAKE}"
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and the key to it, from one file that nobody else may read; `anew` is how to come by others.

    Raises
    ------
    CertificateError
        If there is no such file, or it cannot be read, or by others too, or they do not belong together.
    """
    certificate = read_certificate(path, anew=anew)
    try:
        others = path.stat().st_mode & 0o077
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(f"the key in {path} cannot be read: {error}", remedy=anew) from error
    if others:
        remedy = f"chmod 600 {path}; if they are not to be trusted, {anew}"
        raise CertificateError(f"the key in {path} may be read or changed by others", remedy=remedy)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"the key in {path} is not that of its certificate", remedy=anew)
    return certificate, key


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def names_in(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))
