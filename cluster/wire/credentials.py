"""What a machine of a campaign proves itself with: two files, read and checked before each use.

They are the authority's certificate, by which it knows the others, and its own certificate with the key to it.
`certificates` makes them, `certificate_files` reads them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stormtracks.cluster.errors import CertificateError
from stormtracks.cluster.wire.address import is_loopback, nameserver_address, plain_host
from stormtracks.settings.campaign import CampaignSettings

__all__ = [
    "AUTHORITY",
    "MANAGER",
    "SOON",
    "WORKER",
    "Credentials",
    "credentials_for",
    "credentials_in",
    "day_of",
    "file_of",
    "wants_certificates",
]

logger = logging.getLogger(__name__)

AUTHORITY = "authority.crt"
"""The authority's certificate, which every machine has."""
WORKER = "worker.pem"
"""A worker's certificate and key, on its host."""
MANAGER = "manager"
SOON = timedelta(days=30)
"""How long before its end a certificate is renewed."""

_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a machine proves itself with, and whom it believes.

    Parameters
    ----------
    authority : Path
        Certificate of the campaign's authority.
    own : Path
        The machine's certificate, and the key to it.
    names : frozenset of str
        Host names and addresses that the certificate is for.
    ends : datetime
        When it ends.
    remedy : str
        What to do when it has.
    begins : datetime
        Before then it is not valid.
    """

    authority: Path
    own: Path
    names: frozenset[str]
    ends: datetime
    remedy: str = ""
    begins: datetime = _ALWAYS

    def check_age(self, now: datetime | None = None) -> None:
        """Refuse a certificate that has ended, or has not begun by the clock of this machine.

        Raises
        ------
        CertificateError
            With the date and the remedy.
        """
        now = now or datetime.now(UTC)
        if now < self.begins:
            raise CertificateError(
                f"the certificate {self.own} begins on {day_of(self.begins)}, and here it is {day_of(now)}",
                remedy="set the clock of this machine; if it is right, that of the one where certificates are made, "
                "and make them again",
            )
        if now >= self.ends:
            raise CertificateError(f"the certificate {self.own} has ended on {day_of(self.ends)}", remedy=self.remedy)

    def cover(self, host: str) -> bool:
        """Whether the certificate is for this host name or address."""
        return plain_host(host) in self.names


def wants_certificates(campaign: CampaignSettings) -> bool:
    """Whether the parts of a campaign prove themselves: if any listens beyond one machine, unless plain text will do.

    A campaign without hosts and name server keeps to this machine, unless a name server is started for it beyond.
    """
    cluster = campaign.cluster
    listeners = [nameserver_address(cluster)[0], *(host.address for host in cluster.hosts if host.address)]
    return not cluster.insecure and not all(map(is_loopback, listeners))


def credentials_for(campaign: CampaignSettings, *, host: str = "") -> Credentials | None:
    """What a part of a campaign proves itself with; None if the campaign stays on one machine, or is insecure.

    Parameters
    ----------
    campaign : CampaignSettings
    host : str, optional
        The host whose worker it is; the manager's machine if not given.

    Raises
    ------
    CertificateError
        If there are no certificates, or they cannot be used: one has ended, is another authority's, or its key may be
        read by others.
    """
    if not wants_certificates(campaign):
        return None
    folder = campaign.cluster.certificates
    return _load(folder / AUTHORITY, folder / file_of(host), "stormtracks certs CAMPAIGN.toml")


def credentials_in(folder: Path) -> Credentials:
    """What a worker proves itself with, from the folder that the starter has filled on its host.

    Raises
    ------
    CertificateError
        As `credentials_for` does.
    """
    return _load(folder / AUTHORITY, folder / WORKER, "pyro_starter CAMPAIGN.toml")


def _load(authority: Path, own: Path, command: str) -> Credentials:
    # Late: who stays on one machine need not wait for the cryptography.
    from stormtracks.cluster.wire.certificate_files import is_issued_by, names_in, read_certificate, read_with_key

    issuer = read_certificate(authority)
    certificate, _ = read_with_key(own)
    if not is_issued_by(certificate, issuer):
        raise CertificateError(
            f"the certificate {own} is not from the authority {authority}", remedy=f"make it again with: {command}"
        )
    ends = min(certificate.not_valid_after_utc, issuer.not_valid_after_utc)
    remedy = f"renew it with: {command}" + (" --renew" if command.startswith("stormtracks") else "")
    if ends == issuer.not_valid_after_utc:
        remedy = f"its authority ends with it: end all workers, delete {authority.parent}, and run {command}"
    begins = max(certificate.not_valid_before_utc, issuer.not_valid_before_utc)
    credentials = Credentials(authority, own, frozenset(names_in(certificate)), ends, remedy, begins)
    credentials.check_age()
    if ends - datetime.now(UTC) < SOON:
        logger.warning("the certificate %s ends soon, on %s; %s", own, day_of(ends), remedy)
    return credentials


def file_of(host: str) -> str:
    """Name of the file with the certificate and key of a host, or of the manager, in the campaign's folder."""
    return f"host.{host}.pem" if host else f"{MANAGER}.pem"


def day_of(moment: datetime) -> str:
    """A moment, as it is told."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
