"""The name of a worker in its campaign's name server: what it is, and how it is kept there."""

from __future__ import annotations

import logging
from contextlib import suppress

from stormtracks.cluster.errors import ClusterError, TransportError
from stormtracks.cluster.wire.calls import Greeting, check
from stormtracks.cluster.wire.transport import Address, Connection, list_names, register_name, remove_name

__all__ = ["REGISTER_EVERY", "Registration", "worker_name", "worker_prefix"]

logger = logging.getLogger(__name__)

REGISTER_EVERY = 5.0
"""Seconds between two looks at whether the name server still knows a worker."""
_HELLO_LIMIT = 3.0


def worker_name(campaign: str, host: str) -> str:
    """The name under which the worker of a host is known to the name server."""
    return f"{worker_prefix(campaign)}{host}"


def worker_prefix(campaign: str) -> str:
    """What the names of all workers of a campaign begin with."""
    return f"stormtracks.{campaign}.worker_"


class Registration:
    """Keeps a name in the name server, whatever becomes of that."""

    def __init__(self, nameserver: Address, name: str, uri: str) -> None:
        self._nameserver = nameserver
        self._name = name
        self._uri = uri
        self._told = ""

    def check_rival(self) -> None:
        """Refuse to start beside a worker of the same name."""
        with suppress(TransportError):
            if rival := self._rival(self._known()):
                raise ClusterError(
                    f"there is a worker {self._name} already: process {rival.pid} on {rival.host}",
                    remedy="leave the work to that one, end it first, or start this one with another --name",
                )

    def keep(self) -> None:
        """See that the name is there; a name server that does not answer is asked again later."""
        problem = ""
        try:
            known = self._known()
            if known == self._uri:
                pass
            elif rival := self._rival(known):
                problem = f"process {rival.pid} on {rival.host} goes by this worker's name {self._name} now"
            else:
                register_name(self._nameserver, self._name, self._uri)
                logger.info("registered as %s with %s:%d", self._name, *self._nameserver)
        except TransportError as error:
            problem = str(error)
        if problem and problem != self._told:
            logger.warning("%s", problem)
        self._told = problem

    def end(self) -> None:
        """Take the name back."""
        try:
            remove_name(self._nameserver, self._name, uri=self._uri)
        except TransportError as error:
            logger.info("name not removed: %s", error.what)

    def _known(self) -> str | None:
        return list_names(self._nameserver, self._name).get(self._name)

    def _rival(self, uri: str | None) -> Greeting | None:
        """What another worker of this name says of itself; None if there is none that answers."""
        if uri is not None:
            with suppress(ClusterError), Connection(uri, _HELLO_LIMIT) as connection:
                rival = check(Greeting, connection.call("hello"), "answer to hello")
                # The name may have been made to stand for a worker of another one.
                return rival if self._name.endswith(f".worker_{rival.name}") else None
        return None
