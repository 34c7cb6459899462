"""Messages in the form that Pyro5 gives them on the wire, read with care: what is not as it should be is refused.

Of all that Pyro5's protocol can do only this is used: a greeting and its answer, calls and their results, as JSON of
plain values. Nothing compressed, annotated, batched or streamed is read, and no other serializer. Nothing is taken in
before its announced size is known to be allowed.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from Pyro5 import protocol
from Pyro5.serializers import JsonSerializer

from stormtracks.cluster import errors
from stormtracks.cluster.errors import ClusterError, TransportError

__all__ = [
    "CALL",
    "GREETING",
    "REFUSAL",
    "RESULT",
    "WELCOME",
    "BadMessageError",
    "Header",
    "TlsError",
    "encode",
    "error_from_plain",
    "error_to_plain",
    "receive_body",
    "receive_header",
    "send",
]

GREETING: int = protocol.MSG_CONNECT
WELCOME: int = protocol.MSG_CONNECTOK
REFUSAL: int = protocol.MSG_CONNECTFAIL
CALL: int = protocol.MSG_INVOKE
RESULT: int = protocol.MSG_RESULT
_IS_ERROR: int = protocol.FLAGS_EXCEPTION
_HAS_CORRELATION: int = protocol.FLAGS_CORR_ID
_JSON: int = JsonSerializer.serializer_id

_HEADER = struct.Struct("!4sHBBHHII16sHH")
"""Sign, version, kind, serializer, flags, number, size of body, size of annotations, correlation, 0, magic number."""
_MAGIC = 0x4DC5
_OF_TLS = (b"\x15", b"\x16")
"""How TLS begins: an alert, a handshake."""
_DEEPEST = 32
"""Lists and tables within each other."""
_PIECE = 65536


class BadMessageError(TransportError):
    """What was received is no message that is expected here."""


class TlsError(BadMessageError):
    """What was received is TLS, where plain text is expected."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a message announces of itself: kind, number, whether it carries an error, and bytes of the body."""

    kind: int
    number: int
    is_error: bool
    size: int


def encode(kind: int, number: int, body: object, *, largest: int, is_error: bool = False) -> bytes:
    """A message, ready to be sent.

    Raises
    ------
    TypeError, ValueError
        If the body is not of plain values, or has more bytes than the other side will take.
    """
    flags = _IS_ERROR if is_error else 0
    data = json.dumps(body).encode("ascii")
    if len(data) > largest:
        raise ValueError(f"it is too large ({len(data)} bytes, of {largest} at most)")
    announced = (kind, _JSON, flags, number, len(data), 0, bytes(16), 0, _MAGIC)
    return _HEADER.pack(b"PYRO", protocol.PROTOCOL_VERSION, *announced) + data


def send(sock: socket.socket, message: bytes, *, within: float) -> None:
    """Send a message.

    Raises
    ------
    OSError
        If the connection breaks, or the other side does not take it in time.
    """
    sock.settimeout(within)
    sock.sendall(message)


def receive_header(
    sock: socket.socket, *kinds: int, largest: int, patience: float, within: float | None = None
) -> Header:
    """The beginning of the next message.

    Parameters
    ----------
    sock : socket
    *kinds : int
        That are expected.
    largest : int
        Bytes that the body may have.
    patience : float
        Seconds until it begins.
    within : float, optional
        Seconds that it may take then; what is left of `patience` if not given.

    Raises
    ------
    BadMessageError
        If it is none of these.
    OSError
        If the connection breaks, or nothing comes in time (`TimeoutError`).
    """
    deadline = time.monotonic() + patience
    start = _read(sock, 1, deadline)
    if start in _OF_TLS:
        raise TlsError("TLS where plain text is expected")
    rest = _read(sock, _HEADER.size - 1, deadline if within is None else time.monotonic() + within)
    sign, version, kind, serializer, flags, number, size, annotations, _, _, magic = _HEADER.unpack(start + rest)
    if (sign, version, magic) != (b"PYRO", protocol.PROTOCOL_VERSION, _MAGIC):
        raise BadMessageError("no message of ours")
    if kind not in kinds:
        raise BadMessageError(f"a message of kind {kind} where none is expected")
    if serializer != _JSON:
        raise BadMessageError(f"serializer {serializer} instead of JSON")
    if flags & ~(_HAS_CORRELATION | _IS_ERROR) or annotations:
        raise BadMessageError(f"a message with extras (flags {flags:#x}, {annotations} bytes of annotations)")
    if size > largest:
        raise BadMessageError(f"a message of {size} bytes, where {largest} are allowed")
    return Header(kind, number, bool(flags & _IS_ERROR), size)


def receive_body(sock: socket.socket, header: Header, *, within: float) -> Any:
    """The plain values that a message carries.

    Raises
    ------
    BadMessageError
        If they are no JSON, or too deep.
    OSError
        If the connection breaks, or they do not come in time.
    """
    data = _read(sock, header.size, time.monotonic() + within)
    try:
        body = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadMessageError(f"a body that is no JSON: {type(error).__name__}") from error
    if _is_deeper_than(_DEEPEST, body):
        raise BadMessageError(f"a body of more than {_DEEPEST} levels")
    return body


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    """So many bytes, all of them before the deadline, however slowly they come."""
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{len(data)} of {size} bytes in time")
        sock.settimeout(left)
        piece = sock.recv(min(size - len(data), _PIECE))
        if not piece:
            raise ConnectionResetError("the other side has hung up")
        data += piece
    return bytes(data)


def _is_deeper_than(levels: int, value: object) -> bool:
    level = [value]
    for _ in range(levels + 1):
        children = [
            item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
        ]
        level = [child for items in children for child in items]
        if not level:
            return False
    return True


# --- errors on their way


def error_to_plain(error: ClusterError) -> dict[str, Any]:
    """An error of the cluster room as plain values, in the form that Pyro5 gives to errors."""
    name = type(error).__name__ if type(error).__name__ in errors.__all__ else "TransportError"
    kind = f"{errors.__name__}.{name}"
    return {"__class__": kind, "__exception__": True, "args": [error.what, error.remedy], "attributes": {}}


def error_from_plain(values: object) -> ClusterError:
    """The error that `error_to_plain` has taken apart."""
    match values:
        case {"__class__": str(name), "args": [str(what), str(remedy)]} if name.startswith(f"{errors.__name__}."):
            kind = _kinds().get(name.rpartition(".")[2], TransportError)
            return kind(what, remedy=remedy)
    return TransportError(f"an error that is none of ours: {str(values)[:200]}")


def _kinds() -> Mapping[str, type[ClusterError]]:
    return {name: getattr(errors, name) for name in errors.__all__}
