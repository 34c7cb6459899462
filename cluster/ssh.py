"""A host as ssh reaches it: log in, run a program, copy a file. The one module that knows fabric and paramiko.

What plain ssh finds is found: `~/.ssh/config` with aliases, identities and jump hosts, the agent, the usual keys, and
known hosts. An unknown host key is refused, for nobody is there to be asked. Every wait has a bound: a host that has
gone silent takes down an open connection only when the kernel gives up, which may be in a quarter of an hour.
"""

from __future__ import annotations

import logging
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fabric import Config, Connection
from paramiko import (
    AuthenticationException,
    AutoAddPolicy,
    BadHostKeyException,
    ChannelException,
    MissingHostKeyPolicy,
    PasswordRequiredException,
    PKey,
    SSHClient,
    SSHException,
)
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey
from paramiko.ssh_exception import NoValidConnectionsError

from stormtracks.cluster.errors import HostError
from stormtracks.settings.campaign import ClusterSettings, HostSettings

__all__ = ["Answer", "RemoteHost", "places_of", "read_ssh_config"]

# What goes wrong is raised and told once; without this, Python would print what paramiko logs of it besides.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# An ssh server turns away some of more than ten who are logging in at a time, and all who are behind a jump host log
# in there.
_AT_THE_JUMP_HOST = threading.BoundedSemaphore(8)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a program ended on a host: its exit status and all that it wrote."""

    status: int
    output: str
    errors: str


def read_ssh_config() -> Config:
    """The user's and the system's ssh configuration, to be read once for all hosts.

    Raises
    ------
    HostError
        If a file cannot be understood.
    """
    # Lazy: fabric's own files are left alone.
    config = Config(lazy=True)
    try:
        config.load_ssh_config()
    except (SSHException, OSError, UnicodeDecodeError) as error:
        raise HostError(f"the ssh configuration cannot be used: {error}", remedy="correct ~/.ssh/config") from error
    # Given as an object, for fabric would read the files once more for every jump host.
    return Config(lazy=True, ssh_config=config.base_ssh_config)


class RemoteHost:
    """A host to run programs on; a context manager that logs in and out.

    Parameters
    ----------
    host : HostSettings
        The host; what it does not give is taken from `cluster`.
    cluster : ClusterSettings
    config : Config
        From `read_ssh_config`.

    Raises
    ------
    HostError
        If its private key is not there, or its ssh configuration cannot be used; on entering, if it cannot be reached.
    """

    def __init__(self, host: HostSettings, cluster: ClusterSettings, config: Config) -> None:
        self.name = host.name
        key = host.key or cluster.key
        if key is not None and not key.expanduser().is_file():
            raise HostError(f"there is no private key {key}", remedy="correct the setting 'key', or leave it out")
        self._seconds = cluster.connect_timeout
        try:
            self._connection = Connection(
                host.name,
                user=host.user or cluster.user,
                port=host.port or cluster.port,
                config=config,
                connect_kwargs={"key_filename": [str(key.expanduser())]} if key else {"key_filename": []},
            )
            self._hops = _hops(self._connection)
            for hop in self._hops:
                _prepare(hop, self._seconds)
        except (SSHException, OSError, ValueError) as error:
            raise HostError(f"its ssh configuration cannot be used: {error}", remedy="correct ~/.ssh/config") from error

    @property
    def place(self) -> str:
        """The name or address to which ssh connects, behind the last jump host."""
        return str(self._connection.host)

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            with _AT_THE_JUMP_HOST if len(self._hops) > 1 else nullcontext():
                self._connection.open()
        except (SSHException, OSError, EOFError) as error:
            self._close()
            if str(error) == "No existing session" and time.monotonic() - began >= self._seconds:
                # So says paramiko when its time is up; when the host has hung up, too.
                raise _silent(self._seconds) from error
            raise self._error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, arguments: Sequence[str], *, seconds: float) -> Answer:
        """Run a program there and wait for its end.

        Parameters
        ----------
        arguments : sequence of str
            The program and its arguments. The login shell over there gets them quoted.
        seconds : float
            How long to wait at most. The program is not ended by that, but the connection is.

        Raises
        ------
        HostError
            If the connection breaks, or the program does not end in time.
        """
        with self._within(seconds):
            result = self._connection.run(
                shlex.join(arguments), hide=True, warn=True, in_stream=False, encoding="utf-8"
            )
            if result.exited < 0:
                raise SSHException("the connection broke")
        return Answer(result.exited, result.stdout, result.stderr)

    def copy(self, path: Path, destination: str, *, seconds: float) -> None:
        """Copy a file to the host, whose folder `destination` starts at the home of who logs in.

        Raises
        ------
        HostError
            If it cannot be written there, or not in time.
        """
        with self._within(seconds):
            self._connection.sftp().put(str(path), destination)

    def write_private(self, content: bytes, destination: str, *, seconds: float) -> None:
        """Put a file on the host in one step, for the eyes of its owner alone from its first byte on.

        Raises
        ------
        HostError
            If it cannot be written there, or not in time.
        """
        temporary = f"{destination}.{secrets.token_hex(8)}.tmp"
        with self._within(seconds):
            sftp = self._connection.sftp()
            try:
                with sftp.open(temporary, "wx") as file:
                    file.chmod(0o600)
                    file.write(content)
                sftp.posix_rename(temporary, destination)
            except OSError:
                with suppress(OSError):
                    sftp.remove(temporary)
                raise

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        # Some waits of paramiko have no bound of their own; all of them end when the connection does.
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._connection.client.close()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (SSHException, OSError, EOFError) as error:
            raise (_silent(seconds) if late.is_set() else self._error(error)) from error
        finally:
            timer.cancel()

    def _close(self) -> None:
        for hop in self._hops:
            # Connection.close() forgets a client whose login has failed.
            hop.close()
            hop.client.close()

    def _error(self, error: Exception) -> HostError:
        last = self._connection
        return _explain(error, f"{last.user}@{last.host}, port {last.port}", self._seconds)


# --- how to reach a host


def places_of(host: HostSettings, cluster: ClusterSettings, config: Config) -> set[str]:
    """The name and the addresses by which ssh reaches a host, as far as they are known here and not to a jump host."""
    try:
        name = RemoteHost(host, cluster, config).place
    except HostError:
        return set()  # who logs in will be told
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return {name}
    return {name, *(str(entry[4][0]).partition("%")[0] for entry in found)}


def _hops(connection: Connection) -> list[Connection]:
    """The connection to a host and those to its jump hosts, last first."""
    hops = [connection]
    while isinstance(hops[-1].gateway, Connection):
        hops.append(hops[-1].gateway)
    return hops


def _prepare(hop: Connection, seconds: float) -> None:
    """Give a connection its bounds, the keys that are there, and the known hosts; fabric would trust any host."""
    # Set here, for fabric cuts its argument to whole seconds, and none at all is for ever.
    hop.connect_timeout = seconds
    keys = [name for name in hop.connect_kwargs.get("key_filename", []) if Path(name).is_file()]
    bounds = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), seconds)
    hop.connect_kwargs = {"key_filename": keys, **bounds}
    own = hop.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    of_all = hop.ssh_config.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")
    for name in (*own.split(), *of_all.split()):
        if (path := Path(name).expanduser()).is_file():
            for entry in _known_keys(path):
                for shown in entry.hostnames:
                    hop.client.get_host_keys().add(shown, entry.key.get_name(), entry.key)
    trusting = hop.ssh_config.get("stricthostkeychecking", "ask") in ("no", "off", "accept-new")
    hop.client.set_missing_host_key_policy(AutoAddPolicy() if trusting else _Refuse())


def _known_keys(path: Path) -> Iterator[HostKeyEntry]:
    """The keys in a known_hosts file, less what paramiko trips over: lines with a marker, such as @cert-authority."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip() and line.lstrip()[0] not in "#@":
            with suppress(InvalidHostKey):
                if entry := HostKeyEntry.from_line(line.strip()):
                    yield entry


class _UnknownHostKeyError(SSHException):  # type: ignore[misc]  # paramiko has no types
    """The host's key is not among the known ones."""


class _Refuse(MissingHostKeyPolicy):  # type: ignore[misc]
    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        raise _UnknownHostKeyError(f"{hostname} shows a key that is not in known_hosts: {key.fingerprint}")


# --- what can go wrong, in words


def _explain(error: Exception, where: str, seconds: float) -> HostError:
    """What has gone wrong between here and ``user@host, port N``, and what to do about it."""
    said = str(error) or type(error).__name__
    if isinstance(error, _UnknownHostKeyError):
        remedy = "log in once with plain ssh, which shows the key and asks; compare it with the host's own"
        return HostError(said, remedy=remedy)
    if isinstance(error, BadHostKeyException):
        remedy = "if the host was set up anew, forget its old key with ssh-keygen -R; if not, somebody stands between"
        return HostError(f"{error.hostname} shows another key than the one in known_hosts", remedy=remedy)
    if isinstance(error, TimeoutError) or "timeout" in said.lower() or "protocol banner" in said:
        return _silent(seconds)
    if isinstance(error, PasswordRequiredException):
        return HostError(f"the private key for {where} is locked", remedy="unlock it for an agent with ssh-add")
    hung_up = said == "No existing session"
    if isinstance(error, AuthenticationException) or "No authentication methods" in said or hung_up:
        remedy = "put your public key there (ssh-copy-id), or correct the settings 'user' and 'key'; plain ssh must "
        return HostError(f"no key was accepted for {where}", remedy=remedy + "log in without a password")
    if isinstance(error, ChannelException):
        return HostError(f"the jump host cannot reach {where}: {error.text}", remedy="see that the host is up")
    if isinstance(error, socket.gaierror):
        remedy = "correct the host's name, or make it an alias in ~/.ssh/config"
        return HostError(f"no such host: {where}: {error.strerror}", remedy=remedy)
    if isinstance(error, NoValidConnectionsError):
        said = ", ".join(sorted({one.strerror or str(one) for one in error.errors.values()}))
    return HostError(f"no connection to {where}: {said}", remedy="see that the host is up, and its ssh server runs")


def _silent(seconds: float) -> HostError:
    return HostError(f"no answer within {seconds:g} s", remedy="see that the host is up and not overloaded")
