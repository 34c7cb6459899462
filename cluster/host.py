"""What a host does when it is asked through ssh: start its worker, stop it, or look itself over.

``python -m stormtracks.cluster.host VERB ORDER`` takes its order as one JSON object and prints one as the answer, on a
line of its own, for login scripts may print as well. The worker goes on when the connection has ended. Beside its log
lies a file that tells which process it is; a process is only ever stopped if its number, its start time and the boot of
the machine are those of that file, so that a number that is used again is nobody's death. Linux only.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stormtracks.cluster.errors import HostError
from stormtracks.cluster.process import Process
from stormtracks.cluster.wire.address import plain_host
from stormtracks.errors import StormtracksError
from stormtracks.publish import make_folder, publish, storage_error

__all__ = ["CERTIFICATE_WANTED", "WorkerFiles", "check", "digest_of", "main", "reached_by", "start", "stop"]

CERTIFICATE_WANTED = "certificate wanted"
"""What `start` answers when it lacks the files with which a worker proves itself."""

_POLL = 0.05
_BUSY = 10.0
_LAST_WAIT = 10.0
_SETTLE = 0.5
"""Seconds a worker must live once it listens, for it may find then that there is another of its name."""


@dataclass(frozen=True, slots=True)
class WorkerFiles:
    """The files of a campaign's worker on a host: its log, and which process it is.

    Parameters
    ----------
    folder : Path
        The log folder.
    campaign, host : str
        Their names.
    """

    folder: Path
    campaign: str
    host: str

    @property
    def log(self) -> Path:
        """What the worker has to say; each start appends."""
        return self.folder / f"{self.campaign}.{self.host}.log"

    @property
    def state(self) -> Path:
        """Which process the worker is, as JSON; there is none while none was started."""
        return self.folder / f"{self.campaign}.{self.host}.json"

    @property
    def certificates(self) -> Path:
        """Folder of what the worker proves itself with; there is none while it need not, or was stopped."""
        return self.folder / f"{self.campaign}.{self.host}.certs"

    def read(self) -> Process | None:
        """The process that was started, whether or not it still runs.

        Raises
        ------
        HostError
            If the file cannot be understood.
        """
        try:
            document = json.loads(self.state.read_bytes())
            return Process(int(document["pid"]), int(document["started"]), str(document["boot"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(
                f"cannot tell what was started here: {self.state} cannot be read: {error}",
                remedy="see that no worker of this campaign runs on the host, then delete that file",
            ) from error

    def write(self, process: Process, command: Sequence[str]) -> None:
        """Keep which process was started, and by which command."""
        document = {**asdict(process), "command": list(command), "campaign": self.campaign, "host": self.host}
        publish(self.state, json.dumps(document, indent=1).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out who start or stop this worker at the same time.

        Raises
        ------
        HostError
            If they do not leave in time.
        ResultsError
            If the folder cannot be used.
        """
        make_folder(self.folder)
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error("write", self.log, error) from error

        def taken() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        try:
            if not _wait_until(taken, _BUSY):
                raise HostError(
                    "another pyro_starter or pyro_ender is at this worker", remedy="wait for its end, then try again"
                )
            yield
        finally:
            os.close(descriptor)


# --- the verbs


def start(order: Mapping[str, Any]) -> dict[str, Any]:
    """Start a worker that outlives the connection, unless it runs already.

    Parameters
    ----------
    order : mapping
        ``campaign``, ``host``, ``log_folder``; ``command``: what python is to run; ``listen``: the address for its
        ``--listen``, none for the one by which ssh came here; ``nameserver``: HOST:PORT; ``wait``: seconds to wait for
        it to listen; ``certificate``: none for plain text, or the ``digest`` of the files with which it is to prove
        itself, and the ``names`` that these are for.

    Returns
    -------
    dict
        ``what`` was done and, in detail, with which process; or that a certificate is wanted in a ``folder``, for an
        ``address``.

    Raises
    ------
    HostError
        If it ends at once, or could never reach its name server.
    ResultsError
        If the log folder cannot be used.
    """
    files = _files_of(order)
    client, server = reached_by(os.environ)
    _check_nameserver(order["nameserver"], client, server)
    listen = order["listen"] or server
    command = [sys.executable, *order["command"], "--listen", listen]
    if certificate := order.get("certificate"):
        if not _is_certified(files, certificate, listen):
            folder = _make_room_for_certificates(files)
            return {"what": CERTIFICATE_WANTED, "folder": str(folder), "address": listen}
        command += ["--certificates", str(files.certificates)]
    with files.locked():
        old = files.read()
        if old and old.runs:
            return _done("already running", pid=old.pid, log=files.log)
        began = files.log.stat().st_size
        with files.log.open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
            )
        process = Process.find(child.pid)
        if process:
            files.write(process, command)

        def ended() -> bool:
            return child.poll() is not None

        listens = _wait_until(lambda: ended() or _listens(child.pid), order["wait"])
        if ended() or _wait_until(ended, _SETTLE):
            files.state.unlink(missing_ok=True)
            said, remedy = _last_words(files.log, began)
            raise HostError(
                f"the worker ended at once, with exit status {child.returncode}: {said}",
                remedy=remedy or f"read its log, {files.log} on that host",
            )
    late = "" if listens else f"which has not listened within {order['wait']:g} s"
    return _done("started", pid=child.pid, log=files.log, detail=late)


def stop(order: Mapping[str, Any]) -> dict[str, Any]:
    """Stop what `start` started, and nothing else.

    Parameters
    ----------
    order : mapping
        ``campaign``, ``host``, ``log_folder``; ``wait``: seconds for it to end by itself; ``force``: kill it then.

    Raises
    ------
    HostError
        If it does not end.
    """
    files = _files_of(order)
    if not files.state.exists():
        _remove_certificates(files)
        return _done("not running", detail="nothing of this campaign was started here, or it was stopped")
    with files.locked():
        process = files.read()
        if process is None or not process.runs:
            files.state.unlink(missing_ok=True)
            _remove_certificates(files)
            pid = process.pid if process else 0
            other = ", and its number is another process's now, which was left alone" if Process.find(pid) else ""
            return _done("not running", detail=f"the worker, pid {pid}, has ended by itself{other}")
        how = "stopped"
        _signal(process, signal.SIGTERM)
        if not _wait_until(lambda: not process.runs, order["wait"]):
            if not order["force"]:
                raise HostError(
                    f"the worker, pid {process.pid}, has not ended within {order['wait']:g} s",
                    remedy="wait and try again, or kill it with pyro_ender --force; its tasks are then done elsewhere",
                )
            how = "killed"
            _signal(process, signal.SIGKILL)
            if not _wait_until(lambda: not process.runs, _LAST_WAIT):
                raise HostError(
                    f"the worker, pid {process.pid}, cannot even be killed",
                    remedy="it waits for a disk or a device that does not answer: see to that on the host",
                )
        files.state.unlink(missing_ok=True)
        _remove_certificates(files)
    return _done(how, pid=process.pid)


def check(order: Mapping[str, Any]) -> dict[str, Any]:
    """Look this host over: versions, folders, clock and disk.

    Parameters
    ----------
    order : mapping
        ``results_root`` and ``proof``, the proof that was left in it; ``data_root`` and ``fingerprint``, as it is where
        the campaign is managed; ``leave_out``: what of it does not count; ``campaign``, ``host``, ``log_folder``.

    Returns
    -------
    dict
        ``versions``; ``problems``: what is wrong and the remedy, by the name of what was looked at; ``free``: bytes of
        disk free for results, where they can be seen; ``time``: seconds since 1970; ``certificate``: until when the
        worker's is valid, if it has one.
    """
    # Imported here, so that a host where the worker's own imports fail says so.
    from stormtracks.cluster.pyro_worker import versions
    from stormtracks.cluster.roots import check_data_root, check_results_root

    results, data = Path(order["results_root"]), Path(order["data_root"])
    leave_out = [Path(path) for path in order["leave_out"]]
    looks: dict[str, Callable[[], object]] = {
        "results root": lambda: check_results_root(results, order["proof"]),
        "data root": lambda: check_data_root(data, order["fingerprint"], leave_out=leave_out),
        "log folder": lambda: _check_log_folder(Path(order["log_folder"]).absolute()),
        "certificate": lambda: _certificate_in(_files_of(order).certificates),
    }
    seen: dict[str, object] = {}
    problems: dict[str, list[str]] = {}
    for name, look in looks.items():
        try:
            seen[name] = look()
        except StormtracksError as error:
            problems[name] = [error.what, error.remedy]
    free = shutil.disk_usage(results).free if results.is_dir() else None
    found = {"versions": versions(), "problems": problems, "free": free, "time": time.time()}
    return {**found, "certificate": seen.get("certificate", "")}


# --- their parts


def reached_by(environment: Mapping[str, str]) -> tuple[str, str]:
    """The addresses that ssh connects, of the other side and of this; loopback if nothing was reached by ssh."""
    words = environment.get("SSH_CONNECTION", "").split()
    return (words[0], words[2]) if len(words) == 4 else ("127.0.0.1", "127.0.0.1")


def _check_nameserver(nameserver: str, client: str, server: str) -> None:
    """Refuse a name server on loopback, where this is another machine than the one that gave the order."""
    name = nameserver.rpartition(":")[0]
    if client != server and (_is_loopback(name) and not _is_loopback(server)):
        raise HostError(
            f"the worker could not reach its name server: {nameserver} is this host itself",
            remedy=f"set cluster.listen or cluster.nameserver to the manager's address as its hosts see it: {client}?",
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def digest_of(files: Mapping[str, bytes]) -> str:
    """sha256 of files by name and content."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _is_certified(files: WorkerFiles, certificate: Mapping[str, Any], listen: str) -> bool:
    """Whether the files are here with which a worker is to prove itself, and are good for where it listens."""
    if plain_host(listen) not in certificate["names"] or not files.certificates.is_dir():
        return False
    there = {path.name: path.read_bytes() for path in files.certificates.iterdir()}
    return bool(digest_of(there) == certificate["digest"])


def _make_room_for_certificates(files: WorkerFiles) -> Path:
    """A new, empty folder that only its owner can enter."""
    make_folder(files.folder)
    _remove_certificates(files)
    try:
        files.certificates.mkdir(mode=0o700)
    except OSError as error:
        raise storage_error("make the folder", files.certificates, error) from error
    return files.certificates


def _remove_certificates(files: WorkerFiles) -> None:
    """Leave no key behind; the next start brings it again."""
    shutil.rmtree(files.certificates, ignore_errors=True)


def _certificate_in(folder: Path) -> str:
    """Until which day the certificate in a folder is valid; nothing if there is none."""
    if not folder.is_dir():
        return ""
    from stormtracks.cluster.wire.credentials import credentials_in

    return f"{credentials_in(folder).ends:%Y-%m-%d}"


def _check_log_folder(folder: Path) -> None:
    make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HostError(
            f"the log folder {folder} cannot be written to",
            remedy="give the user that logs in permission to write, or set cluster.log_folder to another folder",
        )


def _files_of(order: Mapping[str, Any]) -> WorkerFiles:
    # Made absolute here: a relative folder starts at the home of who logs in.
    return WorkerFiles(Path(order["log_folder"]).absolute(), order["campaign"], order["host"])


def _listens(pid: int) -> bool:
    """Whether a process takes connections: one of its sockets is among those of its network that listen (0A)."""
    try:
        tables = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/net").glob("tcp*")]
        sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return False  # it has just ended, or closed a file
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    listening = [row[9] for row in rows if row[3] == "0A"]
    return any(f"socket:[{inode}]" in sockets for inode in listening)


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        if number == signal.SIGKILL:
            # It leads a session of its own: what it has started goes with it.
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError as error:
        raise HostError(
            f"the worker, pid {process.pid}, belongs to another user", remedy="log in as the user who started it"
        ) from error


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _last_words(log: Path, began: int) -> tuple[str, str]:
    """What a worker that ended said last, and the remedy, if it was one of the errors that name one."""
    with log.open("rb") as stream:
        stream.seek(began)
        said, _, remedy = stream.read().decode("utf-8", errors="replace").strip().partition("\n  remedy: ")
    return said.rpartition("\n")[2] or "without a word", remedy


def _done(what: str, *, pid: int = 0, log: Path | None = None, detail: str = "") -> dict[str, Any]:
    told = ", ".join(part for part in (f"pid {pid}" if pid else "", f"log {log}" if log else "", detail) if part)
    return {"what": what, "detail": told}


VERBS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"start": start, "stop": stop, "check": check}


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow one order, and print the answer; the exit status is 0 if there is one, be it good or bad."""
    verb, order = sys.argv[1:] if arguments is None else arguments
    try:
        answer = VERBS[verb](json.loads(order))
    except StormtracksError as error:
        answer = {"error": error.what, "remedy": error.remedy}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
