"""What this process proves itself with on the wire, and how the others must prove themselves.

TLS 1.2 or later, both sides with a certificate of the campaign's authority, and that of whoever is called for the very
name or address under which it is called. The authorities of the system count for nothing.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stormtracks.cluster.errors import CertificateError, NoAnswerError, TransportError

if TYPE_CHECKING:
    from stormtracks.cluster.wire.credentials import Credentials

__all__ = ["REMEDY", "Identity", "current_identity", "explain_failure", "reason_of", "turn_away", "use_credentials"]

_LINGER = 1.0
_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""Of TLS, to one who does not speak it: the version is not supported."""
REMEDY = "have all machines use certificates of the same authority: stormtracks certs CAMPAIGN.toml, then pyro_starter"


@dataclass(frozen=True, slots=True)
class Identity:
    """Credentials, ready for use.

    Parameters
    ----------
    credentials : Credentials
    as_server, as_client : SSLContext
        For connections that were taken, and for those that are made.
    """

    credentials: Credentials
    as_server: ssl.SSLContext
    as_client: ssl.SSLContext


_identity: Identity | None = None


def use_credentials(credentials: Credentials | None) -> None:
    """From now on this process proves itself with these, and talks to nobody who does not; or all is plain text again.

    What listens already, or is connected, stays as it is.

    Raises
    ------
    CertificateError
        If they have ended or cannot be used.
    """
    global _identity
    if credentials is None:
        _identity = None
        return
    credentials.check_age()
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        # A session that is taken up again is not verified again, and to be able to costs memory.
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_verify_locations(cafile=credentials.authority)
            context.load_cert_chain(credentials.own)
        except OSError as error:
            raise CertificateError(f"{credentials.own} cannot be used: {error}", remedy=credentials.remedy) from error
    contexts[0].num_tickets = 0
    _identity = Identity(credentials, *contexts)


def current_identity() -> Identity | None:
    """What this process proves itself with; None for plain text.

    Raises
    ------
    CertificateError
        If it has ended meanwhile.
    """
    if _identity is not None:
        _identity.credentials.check_age()
    return _identity


def turn_away(sock: socket.socket, error: ssl.SSLError) -> None:
    """Let the other side read why it is refused: to hang up while it still speaks would drown that."""
    deadline = time.monotonic() + _LINGER
    # Below the TLS, which is broken.
    with suppress(OSError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            # OpenSSL itself has no word for those who speak plain text.
            socket.socket.send(sock, _ALERT)
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not socket.socket.recv(sock, 4096):
                return


def reason_of(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def explain_failure(error: ssl.SSLError, place: str) -> TransportError:
    """Why there is no TLS with whoever listens at a place, as a sentence."""
    reason = reason_of(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateError(f"{place} does not prove itself: {reason}", remedy=REMEDY)
    if "alert" in reason or "certificate required" in reason:
        said = reason.rpartition("alert ")[2]
        return CertificateError(f"{place} refuses this machine's certificate: {said}", remedy=REMEDY)
    if isinstance(error, ssl.SSLEOFError) or "eof" in reason:
        return NoAnswerError(f"{place} has hung up; it may know no TLS, or be very busy")
    return CertificateError(f"{place} does not answer in TLS: {reason}", remedy=REMEDY)
