"""Objects that answer calls from other processes; whoever else calls is refused, and costs little.

Pyro5's daemon listens and gives each connection a thread; what is done on a connection is decided here. A newcomer has
seconds to prove itself, in its own thread; only so many may be at that, and when another one comes, the slowest makes
room. Whatever is not a call that is expected ends its connection, and is logged with the address of the peer.
"""

from __future__ import annotations

import functools
import itertools
import logging
import resource
import socket
import ssl
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar, cast

from Pyro5 import config, server
from Pyro5 import errors as pyro_errors

from stormtracks.cluster.errors import CertificateError, ClusterError, ListenError, TransportError
from stormtracks.cluster.wire.address import Address, is_loopback, place_of
from stormtracks.cluster.wire.message import (
    CALL,
    GREETING,
    REFUSAL,
    RESULT,
    WELCOME,
    BadMessageError,
    Header,
    encode,
    error_to_plain,
    receive_body,
    receive_header,
    send,
)
from stormtracks.cluster.wire.tls import Identity, current_identity, reason_of, turn_away

__all__ = ["LARGEST_ANSWER", "LARGEST_REQUEST", "Closing", "Service", "exposed", "serve"]

logger = logging.getLogger(__name__)

IDLE_LIMIT = 180.0
"""Seconds without a call after which a connection is closed; well above any heartbeat."""
LARGEST_ANSWER = 16 * 2**20
LARGEST_REQUEST = 4 * 2**20

_MOST_CONNECTIONS = 2048
_BACKLOG = 1024
_NEWCOMER_LIMIT = 5.0
"""Seconds that a newcomer has to prove itself and to greet."""
_MOST_NEWCOMERS = 256
_LARGEST_GREETING = 4096
_MESSAGE_LIMIT = 30.0
"""Seconds that a message may take once it has begun."""
_LARGE = 65536
_LARGE_ONES = threading.BoundedSemaphore(2)
"""For requests of more than `_LARGE` bytes: so many at a time are taken in and answered, as memory has an end."""
_CLOSE_LIMIT = 5.0

_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

config.reset(use_environment=False)
config.SERVERTYPE = "thread"
# Each connection has a thread of its own while it lasts. Pyro5 would refuse the 81st, and never cease to complain when
# there are no more file descriptors.
config.THREADPOOL_SIZE = min(_MOST_CONNECTIONS, max(_descriptors // 2, 64)) if _descriptors > 0 else _MOST_CONNECTIONS
config.THREADPOOL_SIZE_MIN = 1
config.COMMTIMEOUT = IDLE_LIMIT
config.SOCK_NODELAY = True

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T", covariant=True)

_EXPOSED = "_stormtracks_exposed"
_LONGEST_REASON = 4000


def exposed(method: Method) -> Method:
    """Mark a method as one that other processes may call; what goes wrong in it travels as an error of this room."""

    @functools.wraps(method)
    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except ClusterError:
            raise
        except Exception as error:
            # The other side need not know its class.
            said = f"{method.__name__} failed: {type(error).__name__}: {error}"
            raise TransportError(said[:_LONGEST_REASON]) from error

    setattr(guarded, _EXPOSED, True)
    return cast(Method, guarded)


class Closing(AbstractContextManager[T]):
    """A context manager that closes itself."""

    @abstractmethod
    def close(self) -> None:
        """End it; may be called again."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Service(Closing["Service"]):
    """An object that answers calls until it is closed; a context manager that closes itself.

    Parameters
    ----------
    daemon : Pyro5 daemon
    uri : str
        Where it is to be found; for `Connection`.
    """

    def __init__(self, daemon: _Daemon, uri: str) -> None:
        self.uri = uri
        host, port = daemon.sock.getsockname()[:2]
        self.address: Address = (host, port)
        self._daemon = daemon
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name=f"stormtracks-serve-{port}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._daemon.requestLoop()
        except Exception:
            # On a busy machine Pyro5 may take the socket away while its own loop is about to use it.
            if not self._closing:
                raise

    def close(self) -> None:
        """Answer no more, and hang up on everyone; may be called again."""
        if self._thread.is_alive():
            self._closing = True
            self._daemon.hang_up()
            self._daemon.shutdown()
            self._thread.join(_CLOSE_LIMIT)
            # On whoever was let in before nobody was any more.
            self._daemon.hang_up()


def serve(thing: object, name: str, address: Address, *, insecure: bool = False) -> Service:
    """Let other processes call the exposed methods of an object: by TLS, if this process uses credentials.

    Parameters
    ----------
    thing : object
        Each connection calls it from a thread of its own.
    name : str
        Under which it is known at this address; a connection to another name is refused.
    address : (str, int)
        Where to listen; port 0 takes any free one.
    insecure : bool
        Without credentials: allow an address beyond this machine, in plain text.

    Raises
    ------
    ListenError
        If the address cannot be listened on, or must not be.
    CertificateError
        If the certificate of this process has ended, or is not for that address.
    """
    identity = current_identity()
    _check_reach(address[0], identity, insecure)
    try:
        daemon = _Daemon(thing, name, address, identity)
    except (OSError, ValueError) as error:
        raise ListenError(
            f"cannot listen on {place_of(address)}: {error}",
            remedy="give an address of this machine and a port that is free; end what listens there",
        ) from error
    return Service(daemon, f"PYRO:{name}@{daemon.locationStr}")


def _check_reach(host: str, identity: Identity | None, insecure: bool) -> None:
    """Refuse an address that is not to be reached so; where plain text is allowed, say so each time."""
    if identity is not None:
        if host not in ("", "0.0.0.0", "::") and not identity.credentials.cover(host):
            names = ", ".join(sorted(identity.credentials.names))
            raise CertificateError(
                f"the certificate {identity.credentials.own} is not for {host}, but for {names}",
                remedy="name that address in the campaign (cluster.listen, a host's address), make the certificates "
                "again (stormtracks certs), and start anew",
            )
        return
    if is_loopback(host):
        return
    if not insecure:
        raise ListenError(
            f"will not listen on {host}: it can be reached from other machines, and the wire is plain text",
            remedy="name the address in the campaign and make certificates (stormtracks certs); or on a network where "
            "everyone is trusted set cluster.insecure = true; or else listen on 127.0.0.1",
        )
    logger.warning("listening on %s in plain text: anyone on that network can read and give orders", host)


class _Daemon(server.Daemon):  # type: ignore[misc]  # Pyro5 has no types
    """A Pyro5 daemon for one object, that has its own way with connections.

    Pyro5 calls `_handshake` once for a connection, then `handleRequest` until that raises, each in the connection's
    thread, and closes it. Errors that it knows as the end of a connection are not logged.
    """

    def __init__(self, thing: object, name: str, address: Address, identity: Identity | None) -> None:
        self._name = name
        kind = type(thing)
        self._methods: Mapping[str, Callable[..., Any]] = {
            key: getattr(thing, key) for key in dir(kind) if hasattr(getattr(kind, key), _EXPOSED)
        }
        self._identity = identity
        self._open: set[Any] = set()
        self._newcomers = _Newcomers()
        self._refusals = _Refusals()
        super().__init__(host=address[0], port=address[1])
        # Pyro5 lets 100 wait, and who comes when so many do tries again a second later.
        self.sock.listen(_BACKLOG)

    def _handshake(self, conn: Any, denied_reason: str | None = None) -> bool:
        """Let a newcomer in, or not."""
        peer = _peer_of(conn.sock)
        if denied_reason is not None:
            # So Pyro5 tells from the thread that takes connections, which must not wait for anybody.
            self._refusals.tell(peer, "too many connections")
            return False
        self._open.add(conn)
        with self._newcomers.hurried(conn):
            try:
                # Asked once it can be hung up on, so that none is overlooked.
                if not self._shutting_down and self._welcomes(conn):
                    return True
            except ssl.SSLError as error:
                self._refusals.tell(peer, f"no TLS: {reason_of(error)}")
                turn_away(conn.sock, error)
            except BadMessageError as error:
                self._refusals.tell(peer, error.what)
            except TimeoutError:
                self._refusals.tell(peer, f"no greeting within {_NEWCOMER_LIMIT:g} s")
            except OSError as error:
                logger.debug("%s came and went: %s", peer, error)
        self._open.discard(conn)
        return False

    def _welcomes(self, conn: Any) -> bool:
        deadline = time.monotonic() + _NEWCOMER_LIMIT
        if self._identity is not None:
            conn.sock = self._identity.as_server.wrap_socket(conn.sock, server_side=True, do_handshake_on_connect=False)
            conn.sock.settimeout(_NEWCOMER_LIMIT)
            conn.sock.do_handshake()
        header = receive_header(conn.sock, GREETING, largest=_LARGEST_GREETING, patience=deadline - time.monotonic())
        match receive_body(conn.sock, header, within=deadline - time.monotonic()):
            case {"object": self._name}:
                known = {"methods": sorted(self._methods), "oneway": [], "attrs": []}
                body: object = {"handshake": "hello", "meta": known}
            case {"object": str(name)}:
                self._refusals.tell(_peer_of(conn.sock), f"an unknown object is asked for: {name[:80]!r}")
                known, body = {}, "unknown object"
            case _:
                raise BadMessageError("a greeting that is none")
        kind = WELCOME if known else REFUSAL
        send(conn.sock, encode(kind, header.number, body, largest=LARGEST_ANSWER), within=_NEWCOMER_LIMIT)
        return bool(known)

    def handleRequest(self, conn: Any) -> None:
        """Take in one call and answer it."""
        try:
            header = receive_header(
                conn.sock, CALL, largest=LARGEST_REQUEST, patience=IDLE_LIMIT, within=_MESSAGE_LIMIT
            )
            with _room_for(header.size):
                call = receive_body(conn.sock, header, within=_MESSAGE_LIMIT)
                answer = self._answer(conn, header, call)
            send(conn.sock, answer, within=_MESSAGE_LIMIT)
        except BadMessageError as error:
            self._refusals.tell(_peer_of(conn.sock), error.what)
            raise pyro_errors.ConnectionClosedError("refused") from error

    def _answer(self, conn: Any, header: Header, call: Any) -> bytes:
        match call:
            case {"object": self._name, "method": str(name), "params": list(arguments), "kwargs": {**named}}:
                method = self._methods.get(name)
            case _:
                raise BadMessageError("a call that is none, or of another object")
        if method is None or named:
            raise BadMessageError(f"a call of {name[:80]!r}, which is not to be called so")
        try:
            return encode(RESULT, header.number, method(*arguments), largest=LARGEST_ANSWER)
        except ClusterError as error:
            problem = error
            if error.__cause__ is not None and isinstance(error, TransportError):
                self._refusals.tell(_peer_of(conn.sock), error.what, cause=error.__cause__)
            elif isinstance(error.__cause__, ValueError):
                # Arguments that are malformed: whoever speaks so is no manager of ours.
                self._refusals.tell(_peer_of(conn.sock), error.what)
        except (TypeError, ValueError) as error:
            problem = TransportError(f"{name} failed: its answer cannot travel: {error}")
        return encode(RESULT, header.number, error_to_plain(problem), largest=LARGEST_ANSWER, is_error=True)

    def clientDisconnect(self, conn: Any) -> None:
        """Forget a connection."""
        self._open.discard(conn)

    def hang_up(self) -> None:
        """End all connections; their threads then close them."""
        for conn in tuple(self._open):
            _hang_up(conn.sock)


class _Newcomers:
    """Connections that have not proved themselves yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Any] = {}

    @contextmanager
    def hurried(self, conn: Any) -> Iterator[None]:
        """While one of them is at it; if it is one too many, the one that has taken longest has to go."""
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = conn
            if len(self._waiting) > _MOST_NEWCOMERS:
                slowest = self._waiting.pop(next(iter(self._waiting)))
                _hang_up(slowest.sock)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(number, None)


class _Refusals:
    """Tells of who was refused; a flood of them fills no disk."""

    MOST = 20
    SECONDS = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = float("-inf")
        self._told = 0
        self._untold = 0

    def tell(self, peer: str, reason: str, *, cause: BaseException | None = None) -> None:
        """Log it, unless so many were logged within the last minute."""
        with self._lock:
            now = time.monotonic()
            if now - self._since >= self.SECONDS:
                self._since, self._told = now, 0
            if self._told >= self.MOST:
                self._untold += 1
                return
            self._told += 1
            untold, self._untold = self._untold, 0
        if untold:
            logger.warning("%d more were refused before this", untold)
        if cause is None:
            logger.warning("refused %s: %s", peer, reason)
        else:
            logger.warning("a call by %s: %s", peer, reason, exc_info=cause)


def _room_for(size: int) -> AbstractContextManager[object]:
    """Wait until a large request may be taken in; small ones always may."""
    return _one_of_few() if size > _LARGE else nullcontext()


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _LARGE_ONES.acquire(timeout=_MESSAGE_LIMIT):
        raise BadMessageError("too many large messages at a time")
    try:
        yield
    finally:
        _LARGE_ONES.release()


def _hang_up(sock: socket.socket) -> None:
    # That of the socket below the TLS: another thread is at the TLS, and is woken by this.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _peer_of(sock: socket.socket) -> str:
    try:
        return place_of(sock.getpeername()[:2])
    except OSError:
        return "somebody who has left"
