"""The wire: objects that answer calls from other processes, connections to them, and the name server.

The one place that knows Pyro5. Plain JSON values travel, and the errors of the cluster room; nothing is ever pickled.
Every call has a time limit. Nothing listens beyond this machine unless it is told to, as the wire is plain text.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from Pyro5 import config, core, server
from Pyro5 import errors as pyro_errors
from Pyro5.client import Proxy
from Pyro5.nameserver import NameServer
from Pyro5.serializers import SerializerBase

from stormtracks.cluster import errors
from stormtracks.cluster.errors import ClusterError, GoneError, ListenError, NoAnswerError, TransportError

__all__ = [
    "Address",
    "Connection",
    "Service",
    "address_towards",
    "exposed",
    "list_names",
    "nameserver_answers",
    "parse_address",
    "register_name",
    "remove_name",
    "serve",
    "start_nameserver",
]

logger = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and port."""

CALL_LIMIT = 5.0
"""Seconds that a call to the name server may take."""
IDLE_LIMIT = 180.0
"""Seconds without a call after which a connection is closed by the one who serves it; well above any heartbeat."""
LARGEST_MESSAGE = 16 * 2**20
MOST_CONNECTIONS = 2048
"""Each has a thread of its own while it lasts; Pyro5 would refuse the 81st."""

config.reset(use_environment=False)
config.SERIALIZER = "json"
config.SERVERTYPE = "thread"
config.THREADPOOL_SIZE = MOST_CONNECTIONS
config.THREADPOOL_SIZE_MIN = 1
config.COMMTIMEOUT = IDLE_LIMIT
config.MAX_RETRIES = 0
config.MAX_MESSAGE_SIZE = LARGEST_MESSAGE
config.SOCK_NODELAY = True
config.ITER_STREAMING = False

Method = TypeVar("Method", bound=Callable[..., Any])


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
            logger.warning("%s failed", method.__name__, exc_info=True)
            raise TransportError(f"{method.__name__} failed: {type(error).__name__}: {error}") from error

    return cast(Method, server.expose(guarded))


def parse_address(text: str) -> Address:
    """``gale:9090`` as host and port.

    Raises
    ------
    ClusterError
        If it is no such text.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ClusterError(f"{text!r} is not an address", remedy="give it as HOST:PORT, such as gale:9090")
    return host.strip("[]"), int(port)


# --- serving


class Service:
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
        self._thread = threading.Thread(target=daemon.requestLoop, name=f"stormtracks-serve-{port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and hang up on everyone; may be called again."""
        if self._thread.is_alive():
            self._daemon.hang_up()
            self._daemon.shutdown()
            self._thread.join(CALL_LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Daemon(server.Daemon):  # type: ignore[misc]  # Pyro5 has no types
    """A Pyro5 daemon that knows its connections, so that closing it ends their threads."""

    def __init__(self, address: Address) -> None:
        self._open: set[Any] = set()
        super().__init__(host=address[0], port=address[1])

    def validateHandshake(self, conn: Any, data: Any) -> str:
        self._open.add(conn)
        return "hello"

    def clientDisconnect(self, conn: Any) -> None:
        self._open.discard(conn)

    def hang_up(self) -> None:
        for connection in tuple(self._open):
            connection.close()


def serve(thing: object, name: str, address: Address, *, insecure: bool = False) -> Service:
    """Let other processes call the exposed methods of an object.

    Parameters
    ----------
    thing : object
        Each connection calls it from a thread of its own.
    name : str
        Under which it is known at this address; a connection to another name is refused.
    address : (str, int)
        Where to listen; port 0 takes any free one.
    insecure : bool
        Allow an address beyond this machine, in plain text.

    Raises
    ------
    ListenError
        If the address cannot be listened on, or must not be.
    """
    _check_reach(address[0], insecure)
    try:
        daemon = _Daemon(address)
    except (OSError, ValueError) as error:
        raise ListenError(
            f"cannot listen on {address[0]}:{address[1]}: {error}",
            remedy="give an address of this machine and a port that is free; end what listens there",
        ) from error
    return Service(daemon, str(daemon.register(thing, name)))


def _check_reach(host: str, insecure: bool) -> None:
    """Refuse an address beyond this machine; if it is allowed, say so each time."""
    if is_loopback(host):
        return
    if not insecure:
        raise ListenError(
            f"will not listen on {host}: it can be reached from other machines, and the wire is plain text",
            remedy="on a network where everyone is trusted set cluster.insecure = true, or else listen on 127.0.0.1",
        )
    logger.warning("listening on %s in plain text: anyone on that network can read and give orders", host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reached from this machine alone."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def address_towards(there: Address) -> str:
    """The address of this machine from which a packet to `there` would leave; nothing is sent.

    A machine's own name will not do: on many it stands for 127.0.1.1.

    Raises
    ------
    TransportError
        If there is no such host, or no way to it.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(*there, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise TransportError(f"no way to {there[0]}: {error}", remedy="correct cluster.nameserver") from error


# --- calling


class Connection:
    """Calls the exposed methods of an object in another process; belongs to the thread that calls first.

    Parameters
    ----------
    uri : str
        As `Service.uri` gives it.
    timeout : float
        Seconds a call may take, unless it says otherwise. It connects with the first call, and again after an error.
    """

    def __init__(self, uri: str, timeout: float) -> None:
        self._uri = uri
        self._timeout = timeout
        self._proxy: Proxy | None = None

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
        TransportError
            If the method raised any other error.
        """
        if self._proxy is None:
            self._proxy = Proxy(self._uri)
        proxy = self._proxy
        proxy._pyroTimeout = self._timeout if timeout is None else timeout
        try:
            return getattr(proxy, method)(*arguments)
        except ClusterError:
            raise
        except (pyro_errors.PyroError, OSError) as error:
            self.close()
            raise _explain(error, self._uri, method) from error
        except Exception as error:
            self.close()
            raise TransportError(f"{self._uri}: {method} failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Hang up; a call that is under way in another thread gets an error."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            proxy._pyroClaimOwnership()
            proxy._pyroRelease()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explain(error: Exception, uri: str, method: str) -> TransportError:
    """What Pyro5 or the system says, as a sentence of our own."""
    place = uri.rpartition("@")[2]
    if isinstance(error.__cause__, ConnectionRefusedError):
        return GoneError(f"nobody listens on {place}")
    if "unknown object" in str(error):
        return GoneError(f"another process listens on {place} now")
    if isinstance(error, pyro_errors.TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return NoAnswerError(f"no answer from {place} to {method} in time")
    if isinstance(error, (pyro_errors.CommunicationError, OSError)):
        return NoAnswerError(f"no connection to {place}: {error}")
    return TransportError(f"{place}: {method} failed: {error}")


def _rebuild(name: str, values: Mapping[str, Any]) -> ClusterError:
    kind: type[ClusterError] = getattr(errors, name.rpartition(".")[2])
    what, remedy = values["args"]
    return kind(what, remedy=remedy)


for _name in errors.__all__:
    SerializerBase.register_dict_to_class(f"{errors.__name__}.{_name}", _rebuild)


# --- the name server


def start_nameserver(address: Address, *, insecure: bool = False) -> Service:
    """Run a name server in this process; it keeps its names in memory, and has no broadcast port.

    Raises
    ------
    ListenError
        If the address cannot be listened on, or must not be.
    """
    names = NameServer()
    service = serve(names, core.NAMESERVER_NAME, address, insecure=insecure)
    names.register(core.NAMESERVER_NAME, service.uri)
    return service


def nameserver_answers(nameserver: Address, *, timeout: float = CALL_LIMIT) -> bool:
    """Whether a name server answers there."""
    try:
        _ask(nameserver, "ping", timeout=timeout)
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
    host, port = nameserver
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # Not kept open: a name server is asked seldom, by many.
    with Connection(f"PYRO:{core.NAMESERVER_NAME}@{place}", timeout) as connection:
        try:
            return connection.call(method, *arguments)
        except TransportError as error:
            raise type(error)(f"name server: {error.what}", remedy=_nameserver_remedy(place)) from error


@functools.cache
def _nameserver_remedy(place: str) -> str:
    return f"start one there with pyro_nameserver, or correct cluster.nameserver ({place})"
