"""The wire: objects that answer calls from other processes, connections to them, and the name server.

The front of the modules that know Pyro5 (`service`, `message`) and TLS (`tls`). Plain JSON values travel, and the
errors of the cluster room; nothing is ever pickled. Every call has a time limit. Nothing listens beyond this machine
unless it has a certificate, or was told that plain text will do.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from Pyro5 import core

from stormtracks.cluster.errors import (
    CertificateError,
    ClusterError,
    GoneError,
    NoAnswerError,
    TransportError,
)
from stormtracks.cluster.wire.address import Address, address_towards, is_loopback, parse_address, place_of
from stormtracks.cluster.wire.message import (
    CALL,
    GREETING,
    REFUSAL,
    RESULT,
    WELCOME,
    BadMessageError,
    Header,
    TlsError,
    encode,
    error_from_plain,
    receive_body,
    receive_header,
    send,
)
from stormtracks.cluster.wire.service import LARGEST_ANSWER, LARGEST_REQUEST, Closing, Service, exposed, serve
from stormtracks.cluster.wire.tls import REMEDY, current_identity, explain_failure, use_credentials

__all__ = [
    "Address",
    "Connection",
    "Service",
    "address_towards",
    "exposed",
    "is_loopback",
    "list_names",
    "nameserver_answers",
    "parse_address",
    "register_name",
    "remove_name",
    "serve",
    "start_nameserver",
    "use_credentials",
]

CALL_LIMIT = 5.0
"""Seconds that a call to the name server may take."""
MOST_NAMES = 100_000
LONGEST_NAME = 512

_URI = re.compile(r"PYRO:([^@\s]+)@(\S+)")


class Connection(Closing["Connection"]):
    """Calls the exposed methods of an object in another process; for one caller at a time.

    Parameters
    ----------
    uri : str
        As `Service.uri` gives it.
    timeout : float
        Seconds a call may take, unless it says otherwise. It connects with the first call, and again after an error.
    """

    def __init__(self, uri: str, timeout: float) -> None:
        self._object, self._address = _parse_uri(uri)
        self._place = place_of(self._address)
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._methods: frozenset[str] = frozenset()
        self._number = 0

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Call a method with plain JSON values.

        Raises
        ------
        ClusterError
            As the method raised it.
        NoAnswerError
            If there was no answer in time, or the connection broke.
        GoneError
            If nobody listens there, or someone else does.
        CertificateError
            If one side does not trust the other's certificate, has none, or its own has ended.
        TransportError
            If the method raised any other error, or there is none of that name.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            header, body = self._ask(method, arguments, deadline)
        except TlsError as error:
            self.close()
            raise CertificateError(f"{self._place} talks in TLS alone", remedy=REMEDY) from error
        except BadMessageError as error:
            self.close()
            raise TransportError(f"{self._place} answers with {error.what}") from error
        except ClusterError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise _explain(error, self._place, method) from error
        if header.is_error:
            raise error_from_plain(body)
        return body

    def close(self) -> None:
        """Hang up; a call that is under way in another thread gets an error."""
        sock, self._socket = self._socket, None
        if sock is not None:
            # Below the TLS, at which another thread may be.
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            sock.close()

    def _ask(self, method: str, arguments: tuple[Any, ...], deadline: float) -> tuple[Header, Any]:
        sock = self._socket or self._connect(deadline)
        if method not in self._methods:
            raise TransportError(f"{self._place}: {method!r} cannot be called there")
        self._number = (self._number + 1) & 0xFFFF
        call = {"object": self._object, "method": method, "params": arguments, "kwargs": {}}
        try:
            request = encode(CALL, self._number, call, largest=LARGEST_REQUEST)
        except (TypeError, ValueError) as error:
            raise TransportError(f"{method} cannot be asked for: {error}") from error
        send(sock, request, within=_left(deadline))
        header = receive_header(sock, RESULT, largest=LARGEST_ANSWER, patience=_left(deadline))
        if header.number != self._number:
            raise BadMessageError("the answer to something else")
        return header, receive_body(sock, header, within=_left(deadline))

    def _connect(self, deadline: float) -> socket.socket:
        identity = current_identity()
        try:
            sock = socket.create_connection(self._address, timeout=_left(deadline))
        except UnicodeError as error:
            raise OSError(f"{self._address[0]!r} is no host name") from error
        # Kept at once, so that it can be closed while it is greeted.
        self._socket = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if identity is not None:
            sock = self._socket = identity.as_client.wrap_socket(
                sock, server_hostname=self._address[0], do_handshake_on_connect=False
            )
            sock.settimeout(_left(deadline))
            sock.do_handshake()
        greeting = encode(GREETING, 0, {"handshake": "hello", "object": self._object}, largest=LARGEST_REQUEST)
        send(sock, greeting, within=_left(deadline))
        header = receive_header(sock, WELCOME, REFUSAL, largest=LARGEST_REQUEST, patience=_left(deadline))
        match header.kind, receive_body(sock, header, within=_left(deadline)):
            case (kind, {"meta": {"methods": list(methods)}}) if kind == WELCOME:
                self._methods = frozenset(map(str, methods))
            case (kind, str(reason)) if kind == REFUSAL and "unknown object" in reason:
                raise GoneError(f"another process listens on {self._place} now")
            case _:
                raise BadMessageError("a refusal")
        return sock


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is up")
    return left


def _explain(error: OSError, place: str, method: str) -> TransportError:
    """What the system says, as a sentence of our own."""
    if isinstance(error, ConnectionRefusedError):
        return GoneError(f"nobody listens on {place}")
    if isinstance(error, TimeoutError):
        return NoAnswerError(f"no answer from {place} to {method} in time")
    if isinstance(error, ssl.SSLError):
        return explain_failure(error, place)
    return NoAnswerError(f"no connection to {place}: {error}")


def _parse_uri(uri: str) -> tuple[str, Address]:
    """The object and the address that a URI names."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise TransportError(f"{uri[:200]!r} is not a URI")
    return found[1], parse_address(found[2])


# --- the name server


class _Names:
    """Pyro5's name server, for names and URIs that are some, and so many at most."""

    def __init__(self) -> None:
        # Late: only one process of a campaign is the name server.
        from Pyro5.nameserver import NameServer

        self._names = NameServer()

    @exposed
    def ping(self) -> None:
        """Answer."""

    @exposed
    def count(self) -> int:
        """How many names there are."""
        return int(self._names.count())

    @exposed
    def list(self, prefix: str) -> dict[str, str]:
        """Names that begin with a prefix, and the URI of each."""
        return dict(self._names.list(prefix=_text(prefix)))

    @exposed
    def register(self, name: str, uri: str) -> None:
        """Make a URI known under a name; an older one of that name is forgotten."""
        _parse_uri(_text(uri))
        if not name or self._names.count() >= MOST_NAMES:
            raise TransportError(f"the name {_text(name)!r} cannot be kept")
        self._names.register(_text(name), uri)

    @exposed
    def remove(self, name: str) -> None:
        """Forget a name."""
        self._names.remove(_text(name))


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable():
        raise TransportError(f"a name is a text of at most {LONGEST_NAME} printable signs, not {str(value)[:40]!r}")
    return value


def start_nameserver(address: Address, *, insecure: bool = False) -> Service:
    """Run a name server in this process; it keeps its names in memory, and has no broadcast port.

    Raises
    ------
    ListenError
        If the address cannot be listened on, or must not be.
    CertificateError
        If the certificate of this process is not for that address.
    """
    names = _Names()
    service = serve(names, core.NAMESERVER_NAME, address, insecure=insecure)
    names.register(core.NAMESERVER_NAME, service.uri)
    return service


def nameserver_answers(nameserver: Address, *, timeout: float = CALL_LIMIT) -> bool:
    """Whether a name server answers there.

    Raises
    ------
    CertificateError
        If somebody does, but one side does not trust the other.
    """
    try:
        _ask(nameserver, "ping", timeout=timeout)
    except CertificateError:
        raise
    except TransportError:
        return False
    return True


def list_names(nameserver: Address, prefix: str) -> dict[str, str]:
    """Names that begin with a prefix, and the URI of each.

    Raises
    ------
    TransportError
        If the name server does not answer; so do the other calls to it.
    """
    return dict(_ask(nameserver, "list", prefix))


def register_name(nameserver: Address, name: str, uri: str) -> None:
    """Make a URI known under a name; an older one of that name is forgotten."""
    _ask(nameserver, "register", name, uri)


def remove_name(nameserver: Address, name: str, *, uri: str) -> None:
    """Forget a name, if it still stands for this URI."""
    if list_names(nameserver, name).get(name) == uri:
        _ask(nameserver, "remove", name)


def _ask(nameserver: Address, method: str, *arguments: Any, timeout: float = CALL_LIMIT) -> Any:
    place = place_of(nameserver)
    # Not kept open: a name server is asked seldom, by many.
    with Connection(f"PYRO:{core.NAMESERVER_NAME}@{place}", timeout) as connection:
        try:
            return connection.call(method, *arguments)
        except TransportError as error:
            remedy = error.remedy or f"start one there with pyro_nameserver, or correct cluster.nameserver ({place})"
            raise type(error)(f"name server: {error.what}", remedy=remedy) from error
