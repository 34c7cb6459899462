"""Real hosts for tests: ssh servers of our own, on loopback or in network namespaces that can be cut off.

Nothing of the machine is changed: the user who logs in exists for these servers alone, and clients find their
configuration, key and known hosts under a home of their own (`Hosts.environment`). `Hosts.shared` stands for the
network disk that all hosts have. What a killed run left behind is ended by the next one; each run's names, addresses,
folders and processes carry its process id.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SSHD = "/usr/sbin/sshd"
MARK = "STORMTRACKS_TEST_HOSTS"
"""Environment variable of every process that is started through these servers: process id of the run, and server."""

_BOUND = 20.0
_FOLDER = "stormtracks-hosts-"


def why_no_sshd() -> str:
    """Why no ssh server can be run here; empty if one can."""
    if not Path(SSHD).exists() or not shutil.which("ssh-keygen"):
        return "no ssh server here; apt-get install openssh-server"
    return ""


def why_no_namespaces() -> str:
    """Why no network namespaces can be made here; empty if they can."""
    if missing := why_no_sshd():
        return missing
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "no ip command here; apt-get install iproute2"
    return ""


def until(condition: Callable[[], object], what: str, seconds: float = _BOUND) -> None:
    """Wait until something holds, within a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


@dataclass
class Server:
    """One running ssh server."""

    name: str
    address: str
    port: int
    user: str
    process: subprocess.Popen[bytes]

    def pause(self) -> None:
        """Stop answering, as a machine that hangs: connections are still taken by the kernel."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        self.process.send_signal(signal.SIGCONT)

    def sessions(self) -> list[psutil.Process]:
        """The processes of the server that serve those who are logged in."""
        return [one for one in psutil.Process(self.process.pid).children(recursive=True) if one.name()[:4] == "sshd"]

    def hide(self, folder: Path) -> None:
        """Put an empty disk over a folder, for this host alone, as one that did not mount the network disk."""
        inside = ["nsenter", "--target", str(self.process.pid), "--mount"]
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(folder)]
        subprocess.run([*inside, *mount], check=True, timeout=_BOUND)


@dataclass
class Hosts:
    """Hosts that ssh reaches by name, and the home of whoever calls them.

    Parameters
    ----------
    names : tuple of str
        Names of the hosts, known to the client's ssh configuration.
    home : Path
        Home of the client: `.ssh` in it holds the configuration, the key and the known hosts.
    servers : tuple of Server
        The server behind each name.
    here : str
        The address under which the hosts reach this machine.
    shared : Path
        A folder that is the same on all hosts; whoever logs in may write to it.
    """

    names: tuple[str, ...]
    home: Path
    servers: tuple[Server, ...]
    here: str
    shared: Path

    @property
    def key(self) -> Path:
        """The private key that the hosts accept."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def environment(self) -> dict[str, str]:
        """The environment for programs that shall reach the hosts; tests in process set its HOME."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("SSH_")}
        return kept | {"HOME": str(self.home), "PYTHONPATH": str(ROOT)}

    def server(self, name: str) -> Server:
        """The server behind a name."""
        return self.servers[self.names.index(name)]

    @property
    def logs(self) -> Path:
        """Where the hosts log."""
        return self.shared / "logs"

    def toml(self, *, slots: int = 1, names: Sequence[str] = (), **cluster: Any) -> str:
        """The [cluster] section of a campaign on these hosts, or on those named; it must be the last of the file."""
        values = {"python": sys.executable, "log_folder": str(self.logs), "listen": self.here} | cluster
        environment = {"PYTHONPATH": str(ROOT)} | values.pop("environment", {})
        lines = ["[cluster]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        lines += ["[cluster.environment]", *(f"{name} = {json.dumps(text)}" for name, text in environment.items())]
        for name in names or self.names:
            lines += ["[[cluster.hosts]]", f"name = {json.dumps(name)}", f"slots = {slots}"]
        return "\n".join(lines) + "\n"

    def processes(self) -> list[int]:
        """What was started through these servers and still runs, other than the servers."""
        mine = {f"{os.getpid()}:{server.name}" for server in self.servers}
        return _marked(lambda mark: mark in mine)


class NamespacedHosts(Hosts):
    """Hosts with addresses of their own, each of which can be cut off."""

    def cut(self, name: str) -> None:
        """Pull the plug of a host's network: nothing arrives, and nothing is refused."""
        _ip("link", "set", self._cable(name), "down")

    def heal(self, name: str) -> None:
        """Put it in again, and wait until the host answers."""
        _ip("link", "set", self._cable(name), "up")
        server = self.server(name)

        def answers() -> bool:
            with suppress(OSError), socket.create_connection((server.address, server.port), 1.0):
                return True
            return False

        until(answers, f"{name} answers")

    def address(self, name: str) -> str:
        """The address of a host."""
        return self.server(name).address

    def _cable(self, name: str) -> str:
        return f"st{os.getpid()}v{self.names.index(name) + 1}"


@contextmanager
def loopback_hosts(names: Sequence[str] = ("north", "south", "east")) -> Iterator[Hosts]:
    """Names for one ssh server on loopback that an ordinary user runs: whoever runs the tests or, for root, ``storm``.

    What is started through it is that user's, who may write to no folders but their own and `Hosts.shared`.
    """
    with _folder() as folder, ExitStack() as stack:
        client = _Client(folder)
        server = stack.enter_context(_ordinary_server(folder / "server", client))
        for name in names:
            client.add(name, server)
        hosts = Hosts(tuple(names), client.home, (server,) * len(names), "127.0.0.1", folder / "shared")
        stack.callback(_end, hosts.processes)
        yield hosts


@contextmanager
def namespaced_hosts(count: int = 3) -> Iterator[NamespacedHosts]:
    """Hosts in network namespaces, each with its own address, host name and ssh server, at which root logs in."""
    mark = f"{os.getpid()}"
    with _folder() as folder, ExitStack() as stack:
        network = _free_network()
        here, *others = (str(address) for address in list(network.hosts())[: count + 1])
        bridge = f"st{mark}br"
        stack.callback(_remove_namespaces, mark)
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{here}/{network.prefixlen}", "dev", bridge)
        _ip("link", "set", bridge, "up")
        client = _Client(folder)
        servers = []
        for number, address in enumerate(others, 1):
            inside, cable = f"st{mark}h{number}", f"st{mark}v{number}"
            _ip("netns", "add", inside)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("link", "set", cable, "master", bridge, "up")
            _ip("-n", inside, "addr", "add", f"{address}/{network.prefixlen}", "dev", "eth0")
            _ip("-n", inside, "link", "set", "eth0", "up")
            _ip("-n", inside, "link", "set", "lo", "up")
            name = f"storm{number}"
            within = ["ip", "netns", "exec", inside, "unshare", "--uts", "sh", "-c"]
            within += ['hostname "$1"; shift; exec "$@"', "sh", name, "setpriv", "--pdeathsig", "KILL"]
            Path("/run/sshd").mkdir(exist_ok=True)
            made = _make_server(folder / name, client, name, address, 22, "root", within)
            servers.append(stack.enter_context(made))
            client.add(name, servers[-1])
        names = tuple(server.name for server in servers)
        hosts = NamespacedHosts(names, client.home, tuple(servers), here, folder / "shared")
        stack.callback(_end, hosts.processes)
        yield hosts


def end_leftovers() -> None:
    """End what runs left behind that were killed: their processes, namespaces, links and folders."""
    _end(lambda: _marked(lambda mark: not _alive(mark.partition(":")[0])))
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        if not _alive(folder.name.removeprefix(_FOLDER).partition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
    if not why_no_namespaces():
        listed = _ip("netns", "list") + _ip("-o", "link")
        for mark in set(re.findall(r"\bst(\d+)(?:h\d+|v\d+|br)\b", listed)):
            if not _alive(mark):
                _remove_namespaces(mark)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that all users may enter, as pytest's are not, with one in it that all may write to."""
    end_leftovers()
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "shared").mkdir()
        (folder / "shared").chmod(0o777)
        yield folder


# --- the client


class _Client:
    """Home of whoever calls the hosts, and the one who may log in."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.ssh = self.home / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        make_key(self.ssh / "id_ed25519")

    def add(self, name: str, server: Server) -> None:
        """Make a server known under a name."""
        lines = [f"Host {name}", f"  HostName {server.address}", f"  Port {server.port}", f"  User {server.user}"]
        with (self.ssh / "config").open("a", encoding="utf-8") as config:
            config.write("\n".join(lines) + "\n")

    def trust(self, address: str, port: int, public_key: Path) -> None:
        """Make a server's key known."""
        kind, key, *_ = public_key.read_text(encoding="utf-8").split()
        shown = address if port == 22 else f"[{address}]:{port}"
        with (self.ssh / "known_hosts").open("a", encoding="utf-8") as known:
            known.write(f"{shown} {kind} {key}\n")


# --- the servers


@contextmanager
def _ordinary_server(folder: Path, client: _Client) -> Iterator[Server]:
    me = pwd.getpwuid(os.geteuid())
    user, within = me.pw_name, []
    if os.geteuid() == 0:
        # In a mount namespace, this user's line is in /etc/passwd; outside, nobody has heard of it. The python or the
        # checkout may lie where only root may enter: the one capability lets the user read there.
        user, number = "storm", 60_000 + os.getpid() % 500
        home = folder.with_name("storm")
        home.mkdir()
        os.chown(home, number, number)
        users = folder.with_name("passwd")
        line = f"{user}:x:{number}:{number}::{home}:/bin/sh\n"
        users.write_text(Path("/etc/passwd").read_text(encoding="utf-8") + line, encoding="utf-8")
        within = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /etc/passwd && shift && exec "$@"', "sh"]
        within += [str(users), "setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        within += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--pdeathsig", "KILL"]
        with _make_server(folder, client, "loopback", "127.0.0.1", _free_port(), user, within, owner=number) as server:
            yield server
        return
    within = ["setpriv", "--pdeathsig", "KILL"]
    with _make_server(folder, client, "loopback", "127.0.0.1", _free_port(), user, within) as server:
        yield server


@contextmanager
def _make_server(
    folder: Path,
    client: _Client,
    name: str,
    address: str,
    port: int,
    user: str,
    within: Sequence[str],
    *,
    owner: int = -1,
) -> Iterator[Server]:
    """Run sshd in the foreground by way of the command `within`, and end it by its process id."""
    folder.mkdir()
    make_key(folder / "host_key")
    client.trust(address, port, folder / "host_key.pub")
    shutil.copy(client.ssh / "id_ed25519.pub", folder / "authorized_keys")
    settings = {
        "ListenAddress": address,
        "Port": port,
        "HostKey": folder / "host_key",
        "PidFile": folder / "sshd.pid",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
        "MaxStartups": 100,
        "SetEnv": f"{MARK}={os.getpid()}:{name}",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, owner)
    log = folder / "log"
    command = [*within, SSHD, "-D", "-e", "-f", str(folder / "config")]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        until(lambda: b"listening on" in log.read_bytes() or process.poll() is not None, f"sshd {name} listens")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield Server(name, address, port, user, process)
    finally:
        process.kill()
        process.wait(_BOUND)


def make_key(path: Path, *, passphrase: str = "") -> None:
    """Make a pair of keys."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=_BOUND)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- namespaces


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=_BOUND).stdout


def _free_network() -> ipaddress.IPv4Network:
    """A small private network that overlaps none in use; where to look first depends on the process."""
    used = [ipaddress.ip_interface(text).network for text in re.findall(r"inet (\S+)", _ip("-4", "-o", "addr"))]
    for step in range(1 << 14):
        number = (os.getpid() + step) % (1 << 14)
        network = ipaddress.IPv4Network((int(ipaddress.IPv4Address("10.77.0.0")) + 16 * number, 28), strict=False)
        if not any(network.overlaps(other) for other in used):
            return network
    raise AssertionError("no private network is free")


def _remove_namespaces(mark: str) -> None:
    for name in re.findall(rf"^st{mark}h\d+\b", _ip("netns", "list"), re.MULTILINE):
        # Whatever is gone by now was ended by another run that cleans up, or went with the other end of its cable.
        with suppress(subprocess.CalledProcessError):
            _end(lambda name=name: [int(pid) for pid in _ip("netns", "pids", name).split()])  # type: ignore[misc]
            _ip("netns", "del", name)
    for name in re.findall(rf"\bst{mark}(?:v\d+|br)\b", _ip("-o", "link")):
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", name)


# --- processes


def _alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


def _marked(wanted: Callable[[str], bool]) -> list[int]:
    """Processes whose environment carries a mark that is wanted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            mark = re.search(rb"(?:^|\0)" + MARK.encode() + rb"=([^\0]*)", path.read_bytes())
            if mark and wanted(mark[1].decode()):
                found.append(int(path.parent.name))
    return found


def _end(processes: Callable[[], list[int]]) -> None:
    def none_left() -> bool:
        pids = processes()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(none_left, "all processes of the test hosts have ended")
