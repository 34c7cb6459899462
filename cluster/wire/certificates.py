"""The certificates of a campaign: an authority of its own, and one certificate signed by it for each machine.

The authority's key stays in the campaign's folder of certificates; what a machine needs is told by `credentials`. Keys
can be read by their owner alone from their first byte on.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stormtracks.cluster.errors import CertificateError
from stormtracks.cluster.wire.address import nameserver_address, plain_host
from stormtracks.cluster.wire.certificate_files import MAKE, is_issued_by, names_in, read_with_key
from stormtracks.cluster.wire.credentials import AUTHORITY, MANAGER, SOON, WORKER, day_of, file_of
from stormtracks.publish import make_folder, publish, storage_error, sync_folder
from stormtracks.settings.campaign import CampaignSettings, HostSettings

__all__ = ["HostCertificate", "host_certificate", "make_certificates"]

_AUTHORITY_WITH_KEY = "authority.pem"

_AUTHORITY_LASTS = timedelta(days=3650)
_LASTS = timedelta(days=365)
_BEFORE = timedelta(days=1)
"""How long before now a certificate begins: clocks differ."""


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """The files that a host needs, and what they are good for.

    Parameters
    ----------
    files : dict
        Content by name.
    names : frozenset of str
        Host names and addresses that its certificate is for.
    """

    files: dict[str, bytes]
    names: frozenset[str]


# --- making them


def make_certificates(campaign: CampaignSettings, *, renew: bool = False) -> list[str]:
    """See that a campaign has an authority, and a certificate for the manager and for each host.

    Those that are good are left as they are: they are of this authority, do not end within 30 days, and are for all the
    names and addresses by which their machine is known.

    Parameters
    ----------
    campaign : CampaignSettings
    renew : bool
        Make all anew, but for the authority.

    Returns
    -------
    list of str
        A line for each: whether it was made, until when it is valid, and what for.

    Raises
    ------
    CertificateError
        If the authority cannot be used: it cannot be read, or has ended.
    ResultsError
        If the folder cannot be written to.
    """
    folder = campaign.cluster.certificates
    there = (folder / _AUTHORITY_WITH_KEY).exists()
    authority = _authority(folder, campaign.name)
    lines = [f"authority: {'' if there else 'made, '}{authority.describe()}"]
    wanted = {"": _names_of_manager(campaign)} | _names_of_hosts(campaign)
    for host, names in wanted.items():
        made, certificate = authority.provide(host, names, renew=renew)
        told = ", ".join(sorted(names_in(certificate)))
        state = "made, " if made else ""
        lines.append(f"{host or MANAGER}: {state}valid until {day_of(certificate.not_valid_after_utc)}, for {told}")
    return lines


def host_certificate(campaign: CampaignSettings, host: str, *, also: str = "") -> HostCertificate:
    """The files for a host, made if they are not there.

    Parameters
    ----------
    campaign : CampaignSettings
        `make_certificates` has seen to it.
    host : str
        Name of the host.
    also : str, optional
        Another address that the certificate must be for.
    """
    folder = campaign.cluster.certificates
    authority = _authority(folder, campaign.name)
    names = {host, also} - {""}
    if found := authority.find(host):
        names |= names_in(found)
    _, certificate = authority.provide(host, names)
    files = {AUTHORITY: (folder / AUTHORITY).read_bytes(), WORKER: (folder / file_of(host)).read_bytes()}
    return HostCertificate(files, frozenset(names_in(certificate)))


class _Authority:
    """The authority of a campaign, and the folder in which all its certificates lie."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._folder = folder
        self._certificate = certificate
        self._key = key
        self._ends = certificate.not_valid_after_utc

    def describe(self) -> str:
        """Until when it is valid, and whether that is soon."""
        told = f"valid until {day_of(self._ends)}, {self._folder / _AUTHORITY_WITH_KEY}"
        if self._ends - datetime.now(UTC) < _LASTS:
            told += f"; it ends before long: end all workers, delete {self._folder}, and make certificates anew"
        return told

    def find(self, host: str) -> x509.Certificate | None:
        """The certificate of a host, or of the manager, if there is one that is good."""
        try:
            certificate, _ = read_with_key(self._folder / file_of(host))
        except CertificateError:
            return None
        lasts = certificate.not_valid_after_utc - datetime.now(UTC) >= min(SOON, self._ends - datetime.now(UTC))
        return certificate if lasts and is_issued_by(certificate, self._certificate) else None

    def provide(self, host: str, names: Iterable[str], *, renew: bool = False) -> tuple[bool, x509.Certificate]:
        """The certificate of a host, or of the manager, for all these names at least; and whether it had to be made."""
        wanted = {plain_host(name) for name in names}
        found = None if renew else self.find(host)
        if found and wanted <= names_in(found):
            return False, found
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = _builder(host or MANAGER, self._certificate.subject, key, now, min(now + _LASTS, self._ends))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(of_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(list(map(_general_name, sorted(wanted)))), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        _write_private(self._folder / file_of(host), _pem(certificate, key))
        return True, certificate


def _authority(folder: Path, campaign: str) -> _Authority:
    """The authority whose files lie in a folder; made if there is none."""
    path = folder / _AUTHORITY_WITH_KEY
    make_folder(folder)
    if not path.exists():
        if (folder / AUTHORITY).exists():
            raise CertificateError(
                f"the authority's certificate {folder / AUTHORITY} is there, but not its key, {path.name}",
                remedy=f"bring that back from where it was made; or end all workers, delete {folder}, and {MAKE}",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _short(f"stormtracks {campaign} authority"))])
        certificate = (
            _builder("", name, key, now, now + _AUTHORITY_LASTS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(of_authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_private(path, _pem(certificate, key), replace=False)
    # Of two who made one at the same time, one was the first.
    anew = f"end all workers, delete {folder}, and {MAKE}"
    certificate, key = read_with_key(path, anew=anew)
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise CertificateError(
            f"the authority {path} has ended on {day_of(certificate.not_valid_after_utc)}",
            remedy=anew,
        )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    if not (folder / AUTHORITY).exists() or (folder / AUTHORITY).read_bytes() != public:
        publish(folder / AUTHORITY, public)
    return _Authority(folder, certificate, key)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    """What all certificates have in common; the authority has no other name than that of its issuer."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _short(name))]) if name else issuer
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_authority,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# --- the names of a machine


def _names_of_manager(campaign: CampaignSettings) -> set[str]:
    """Where the manager's machine, and a name server of its own, may be looked for."""
    listeners = {campaign.cluster.listen, nameserver_address(campaign.cluster)[0]} - {"0.0.0.0", "::"}
    return listeners | {socket.gethostname(), "localhost", "127.0.0.1"}


def _names_of_hosts(campaign: CampaignSettings) -> dict[str, set[str]]:
    hosts = campaign.cluster.hosts
    if not hosts:
        return {}
    # Imported here: its libraries are slow to load, and whoever only uses certificates needs none of them.
    from stormtracks.cluster.ssh import places_of, read_ssh_config

    config = read_ssh_config()
    return {host.name: _names_of_host(host) | places_of(host, campaign.cluster, config) for host in hosts}


def _names_of_host(host: HostSettings) -> set[str]:
    return {host.name, host.address} if host.address else {host.name}


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise CertificateError(
            f"{name!r} cannot stand in a certificate", remedy="give the machine's address, or a name in plain ASCII"
        ) from error


def _short(name: str) -> str:
    """A common name has 64 characters at most."""
    return name[:64]


# --- files


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Put a file in its place whole, for its owner's eyes alone; without `replace`, one that is there stays."""
    try:
        # Made for the owner alone.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            elif not path.exists():
                path.hardlink_to(temporary)
        except FileExistsError:
            pass  # another was first
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error("write", path, error) from error
