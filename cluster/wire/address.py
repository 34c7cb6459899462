"""Where something listens: host and port, and from where that can be reached."""

from __future__ import annotations

import ipaddress
import socket

from stormtracks.cluster.errors import ClusterError, TransportError
from stormtracks.settings.campaign import ClusterSettings

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "address_towards",
    "is_loopback",
    "nameserver_address",
    "parse_address",
    "place_of",
    "plain_host",
]

Address = tuple[str, int]
"""Host and port."""

DEFAULT_PORT = 9090
"""Of a name server."""


def parse_address(text: str) -> Address:
    """``gale:9090`` as host and port.

    Raises
    ------
    ClusterError
        If it is no such text.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ClusterError(f"{text!r} is not an address", remedy="give it as HOST:PORT, such as gale:9090")
    return host.strip("[]"), int(port)


def nameserver_address(cluster: ClusterSettings) -> Address:
    """Where the name server of a campaign is to be found: `cluster.nameserver`, or else port 9090 of `cluster.listen`.

    A campaign without hosts and without a name server needs none that others can find: its manager brings its own.
    """
    return parse_address(cluster.nameserver) if cluster.nameserver else (cluster.listen, DEFAULT_PORT)


def place_of(address: Address) -> str:
    """Host and port as ``gale:9090``, the way `parse_address` reads it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain_host(host: str) -> str:
    """A host name or address in the one way of writing in which it can be compared."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host.lower()


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reached from this machine alone."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
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
    except (OSError, UnicodeError) as error:
        raise TransportError(f"no way to {there[0]}: {error}", remedy="correct cluster.nameserver") from error
