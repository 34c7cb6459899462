"""The wire under fire: strangers, forgers, mumblers and giants are refused; the service goes on, no bigger than before.

What shoots uses raw sockets; the service is a process of its own, on loopback, in plain text or in TLS.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from Pyro5 import config, protocol

from stormtracks.cluster.errors import CertificateError, NoAnswerError, TransportError
from stormtracks.cluster.wire import certificates, credentials, service
from stormtracks.cluster.wire.certificates import host_certificate, make_certificates
from stormtracks.cluster.wire.credentials import AUTHORITY, WORKER, credentials_in
from stormtracks.cluster.wire.message import CALL, GREETING, REFUSAL, RESULT, WELCOME, encode
from stormtracks.cluster.wire.transport import (
    Address,
    Connection,
    exposed,
    list_names,
    nameserver_answers,
    parse_address,
    register_name,
    serve,
    start_nameserver,
    use_credentials,
)
from stormtracks.settings.campaign import CampaignSettings
from tests.cluster.cluster_parts import BOUND, ROOT, descriptors_and_threads, poll_until

HERE = ("127.0.0.1", 0)
HEADER = struct.Struct("!4sHBBHHII16sHH")
JSON, MEBIBYTE = 3, 2**20
GREET = encode(GREETING, 0, {"handshake": "hello", "object": "fortress"}, largest=MEBIBYTE)


# --- certificates of a campaign, and of others


@dataclass(frozen=True)
class Papers:
    """Folders with the files of a worker: a good one, and those that nobody may believe."""

    good: Path
    foreign: Path
    ended: Path
    elsewhere: Path

    def context(self, name: str) -> ssl.SSLContext:
        """What a client proves itself with that looks at nothing itself."""
        folder: Path = getattr(self, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(folder / WORKER)
        return context


def issue(folder: Path, into: Path, address: str) -> Path:
    """The files of a worker at an address, from the authority in a folder."""
    hosts = [{"name": "gale", "address": address}]
    cluster = {"listen": "10.77.0.1", "hosts": hosts, "certificates": folder}
    campaign = CampaignSettings.model_validate({"name": "gale", "cluster": cluster})
    make_certificates(campaign, renew=True)
    into.mkdir()
    for name, content in host_certificate(campaign, "gale").files.items():
        (into / name).write_bytes(content)
        (into / name).chmod(0o600)
    return into


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    root = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root))
        good = issue(root / "ours", root / "good", "127.0.0.1")
        foreign = issue(root / "theirs", root / "foreign", "127.0.0.1")
        elsewhere = issue(root / "ours", root / "elsewhere", "10.77.0.9")
        patch.setattr(certificates, "_LASTS", timedelta(seconds=-5))
        patch.setattr(credentials, "SOON", timedelta(days=-1))
        patch.setattr(certificates, "SOON", timedelta(days=-1))
        ended = issue(root / "ours", root / "ended", "127.0.0.1")
    return Papers(good, foreign, ended, elsewhere)


@pytest.fixture
def proved(papers: Papers) -> Iterator[Papers]:
    """This process proves itself with good papers, and no longer than a test."""
    use_credentials(credentials_in(papers.good))
    yield papers
    use_credentials(None)


# --- what is shot at


@dataclass
class Target:
    """A fortress: where it is, and its process."""

    uri: str
    process: psutil.Process
    log: Path

    @property
    def address(self) -> Address:
        return parse_address(self.uri.rpartition("@")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=BOUND)

    def greeted(self) -> socket.socket:
        """A connection in plain text that has been let in."""
        sock = self.connect()
        sock.sendall(GREET)
        assert receive(sock)[0] == WELCOME
        return sock

    def lives(self) -> None:
        """It answers who may ask."""
        with Connection(self.uri, BOUND) as connection:
            assert connection.call("add", 20, 26) == 46

    def size(self) -> tuple[int, int]:
        """Its open files and threads."""
        return self.process.num_fds(), self.process.num_threads()


@contextmanager
def fortress(folder: Path | str, log: Path) -> Iterator[Target]:
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.wire.fortress", str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        uri = process.stdout.readline().decode().strip()
        assert uri, log.read_text(encoding="utf-8")
        yield Target(uri, psutil.Process(process.pid), log)
        process.stdin.close()
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        process.wait(BOUND)
        process.stdout.close()
    assert "Traceback" not in log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with fortress("plain", tmp_path_factory.mktemp("plain") / "log") as target:
        yield target


@pytest.fixture(scope="module")
def secured(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with fortress(papers.good, tmp_path_factory.mktemp("secured") / "log") as target:
        yield target


def receive(sock: socket.socket) -> tuple[int, Any]:
    """Kind and body of the next message."""
    header = b""
    while len(header) < HEADER.size:
        piece = sock.recv(HEADER.size - len(header))
        assert piece, "hung up"
        header += piece
    _, _, kind, serializer, _, _, size, *_ = HEADER.unpack(header)
    assert serializer == JSON
    body = b""
    while len(body) < size:
        body += sock.recv(size - len(body))
    return kind, json.loads(body)


def is_hung_up_on(sock: socket.socket) -> bool:
    """Whether the other side hangs up without another word than an alert of TLS; if need be by resetting."""
    with suppress(ConnectionResetError):
        said = sock.recv(7)
        return said == b"" or (said[:1] == b"\x15" and sock.recv(1) == b"")
    return True


def shot(sock: socket.socket, data: bytes) -> bool:
    """Whether a shot is the end of the connection."""
    with closing(sock):
        # It may have hung up before all is said.
        with suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        return is_hung_up_on(sock)


def message(kind: int, body: bytes, **changes: Any) -> bytes:
    """A message whose header may lie."""
    fields = {"sign": b"PYRO", "version": protocol.PROTOCOL_VERSION, "kind": kind, "serializer": JSON, "flags": 0}
    fields |= {"number": 1, "size": len(body), "annotations": 0, "correlation": bytes(16), "zero": 0, "magic": 0x4DC5}
    return HEADER.pack(*(fields | changes).values()) + body


def call(method: object = "add", params: object = (1, 2), thing: object = "fortress", **more: Any) -> bytes:
    return json.dumps({"object": thing, "method": method, "params": params, "kwargs": {}} | more).encode()


# --- who may come in


def test_our_header_is_that_of_pyro() -> None:
    data = encode(CALL, 77, [1], largest=100)
    theirs = protocol.ReceivingMessage(data[: HEADER.size], data[HEADER.size :])
    assert (theirs.type, theirs.seq, theirs.serializer_id, theirs.flags, theirs.data) == (4, 77, JSON, 0, b"[1]")
    assert protocol.SendingMessage(CALL, 0, 77, JSON, b"[1]").data == data


@pytest.mark.parametrize("name", ["foreign", "ended", "elsewhere"])
def test_whom_the_service_does_not_believe_is_refused_with_the_reason(
    proved: Papers, secured: Target, name: str
) -> None:
    peer, wanted = "", {"foreign": "unable to get local issuer certificate", "ended": "certificate has expired"}
    with closing(proved.context(name).wrap_socket(secured.connect())) as sock:
        peer = "{}:{}".format(*sock.getsockname())
        if name == "elsewhere":
            # By its names a server is known, not a client.
            sock.sendall(GREET)
            assert receive(sock)[0] == WELCOME
            return
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            sock.sendall(GREET)
            sock.recv(1)
    poll_until(
        lambda: f"refused {peer}: no TLS: {wanted[name]}" in secured.log.read_text(encoding="utf-8"), "is logged"
    )
    secured.lives()


def test_whom_has_no_certificate_or_only_old_tls_is_refused(proved: Papers, secured: Target) -> None:
    naked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    naked.check_hostname, naked.verify_mode = False, ssl.CERT_NONE
    with (
        closing(naked.wrap_socket(secured.connect())) as sock,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        sock.sendall(GREET)
        sock.recv(1)
    old = proved.context("good")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with closing(secured.connect()) as sock, pytest.raises(OSError, match=r"(?i)version"):
        old.wrap_socket(sock)
    poll_until(lambda: "peer did not return a certificate" in secured.log.read_text(encoding="utf-8"), "is logged")
    secured.lives()


def test_a_caller_is_told_what_is_wrong(papers: Papers, secured: Target, plain: Target, tmp_path: Path) -> None:
    def fails(uri: str) -> str:
        with Connection(uri, BOUND) as connection, pytest.raises(CertificateError) as caught:
            connection.call("add", 1, 2)
        assert "stormtracks certs" in caught.value.remedy
        return caught.value.what

    assert "TLS" in fails(secured.uri)
    try:
        use_credentials(credentials_in(papers.foreign))
        assert "does not prove itself" in fails(secured.uri)
        # With their authority and our own certificate: it is the service that does not believe.
        mixed = tmp_path / "mixed"
        mixed.mkdir()
        (mixed / AUTHORITY).write_bytes((papers.good / AUTHORITY).read_bytes())
        (mixed / WORKER).write_bytes((papers.foreign / WORKER).read_bytes())
        (mixed / WORKER).chmod(0o600)
        with pytest.raises(CertificateError, match="is not from the authority"):
            credentials_in(mixed)
        use_credentials(credentials_in(papers.good))
        with Connection(plain.uri, BOUND) as connection, pytest.raises(NoAnswerError, match="may know no TLS"):
            connection.call("add", 1, 2)
        assert "does not prove itself: IP address mismatch" in _at_another_address(papers)
    finally:
        use_credentials(None)


def _at_another_address(papers: Papers) -> str:
    """What a caller is told when a service has the certificate of another place."""
    use_credentials(credentials_in(papers.elsewhere))
    with pytest.raises(CertificateError, match=r"is not for 127\.0\.0\.1, but for 10\.77\.0\.9, gale"):
        serve(object(), "fortress", HERE)
    with serve(object(), "fortress", ("0.0.0.0", 0)) as served:
        use_credentials(credentials_in(papers.good))
        uri = f"PYRO:fortress@127.0.0.1:{served.address[1]}"
        with Connection(uri, BOUND) as connection, pytest.raises(CertificateError) as caught:
            connection.call("echo", 1)
    return caught.value.what


def test_with_certificates_it_listens_beyond_this_machine_and_warns_of_nothing(
    proved: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    with start_nameserver(("0.0.0.0", 0)) as names:
        address = ("127.0.0.1", names.address[1])
        register_name(address, "a.worker_gale", "PYRO:one@127.0.0.1:1")
        assert list_names(address, "a.") == {"a.worker_gale": "PYRO:one@127.0.0.1:1"}
        use_credentials(None)
        with pytest.raises(CertificateError, match=r"name server: .* TLS"):
            nameserver_answers(address)
    assert [one for one in caplog.records if "listening" in one.getMessage()] == []


def test_a_certificate_that_ends_while_it_is_used_is_used_no_more(proved: Papers, secured: Target) -> None:
    found = credentials_in(proved.good)
    object.__setattr__(found, "ends", found.ends - timedelta(days=365))
    with pytest.raises(CertificateError, match="has ended on"):
        use_credentials(found)


def test_pyros_own_proxy_is_let_in_with_a_certificate(papers: Papers, secured: Target) -> None:
    program = (
        "import sys; from Pyro5 import config; from Pyro5.api import Proxy; folder, uri = sys.argv[1:];"
        "config.SERIALIZER = 'json'; config.SSL = True; config.SSL_CACERTS = folder + '/authority.crt';"
        "config.SSL_CLIENTCERT = folder + '/worker.pem'; print(Proxy(uri).add(40, 2))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(papers.good), secured.uri], capture_output=True, text=True, timeout=BOUND
    )
    assert found.stdout == "42\n", found.stderr


# --- what may be said


CASES = {
    "another sign": message(CALL, call(), sign=b"PIRO"),
    "another version": message(CALL, call(), version=1),
    "another magic number": message(CALL, call(), magic=0),
    "a second greeting": GREET,
    "an answer": message(RESULT, b"1"),
    "a ping": message(protocol.MSG_PING, b"ping"),
    "serpent": message(CALL, b"('fortress', 'add', (1, 2), {})", serializer=1),
    "marshal": message(CALL, b"\xa9\x00", serializer=2),
    "msgpack": message(CALL, b"\x94\xa1a\xa1b\x90\x80", serializer=4),
    "an unknown serializer": message(CALL, call(), serializer=99),
    "a compressed bomb": message(CALL, zlib.compress(b" " * (64 * MEBIBYTE)), flags=protocol.FLAGS_COMPRESSED),
    "one way": message(CALL, call(), flags=protocol.FLAGS_ONEWAY),
    "a batch": message(CALL, call(), flags=protocol.FLAGS_BATCH),
    "kept serialized": message(CALL, call(), flags=protocol.FLAGS_KEEPSERIALIZED),
    "annotations": message(CALL, b"BLBI\x00\x00\x00\x01Z" + call(), annotations=9, size=len(call())),
    "a giant": message(CALL, b"", size=2**32 - 1),
    "too large by one": message(CALL, b"", size=service.LARGEST_REQUEST + 1),
    "cut short": message(CALL, call())[:-5],
    "no JSON": message(CALL, b"{]"),
    "no UTF-8": message(CALL, b"\xff\xfe"),
    "nothing": message(CALL, b""),
    "too deep": message(CALL, call("echo", json.loads("[" * 40 + "]" * 40))),
    "far too deep": message(CALL, b"[" * 500_000),
    "a number without end": message(CALL, b'{"object": ' + b"9" * 100_000 + b"}"),
    "no call": message(CALL, b"[1, 2, 3]"),
    "another object": message(CALL, call(thing="Pyro.Daemon", method="info", params=[])),
    "an object that is none": message(CALL, call(thing=["fortress"])),
    "a method that is none": message(CALL, call(method=["add"])),
    "an unknown method": message(CALL, call("subtract")),
    "a private attribute": message(CALL, call("__class__", [])),
    "what is not exposed": message(CALL, call("__init__", [])),
    "an attribute": message(CALL, call("__getattr__", ["echo"])),
    "arguments that are none": message(CALL, call(params={"one": 1})),
    "named arguments": message(CALL, call("echo", [], kwargs={"value": 1})),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_what_is_no_call_ends_its_connection(plain: Target, data: bytes) -> None:
    with plain.greeted() as other:
        assert shot(plain.greeted(), data)
        other.sendall(message(CALL, call()))
        assert receive(other) == (RESULT, 3)


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_and_so_it_does_before_a_greeting(plain: Target, data: bytes) -> None:
    if data == GREET:
        return
    assert shot(plain.connect(), data)
    assert shot(plain.connect(), message(GREETING, b" " * 4097))
    plain.lives()


def test_who_may_come_in_may_not_say_everything(papers: Papers, secured: Target) -> None:
    """With a good certificate, the same rules hold."""
    context = papers.context("good")
    for name in ("marshal", "a compressed bomb", "a giant", "too deep", "a private attribute"):
        sock = context.wrap_socket(secured.connect())
        sock.sendall(GREET)
        assert receive(sock)[0] == WELCOME
        with closing(sock):
            with suppress(OSError):
                sock.sendall(CASES[name])
            assert is_hung_up_on(sock)


@pytest.mark.parametrize("params", [[], [1], [1, 2, 3], [1, "x"], [None, {"__class__": "Pyro5.core.URI", "state": []}]])
def test_arguments_that_do_not_fit_are_told(plain: Target, params: list[Any]) -> None:
    with Connection(plain.uri, BOUND) as connection:
        with pytest.raises(TransportError, match="add failed: TypeError"):
            connection.call("add", *params)
        assert connection.call("add", 1, 2) == 3


def test_a_table_that_names_a_class_is_a_table(plain: Target) -> None:
    tables = [{"__class__": "Pyro5.client.Proxy", "state": ["PYRO:x@127.0.0.1:1"] * 6}, {"__class__": "builtins.eval"}]
    with Connection(plain.uri, BOUND) as connection:
        assert [connection.call("echo", table) for table in tables] == tables


def test_another_name_is_refused_by_a_word(plain: Target) -> None:
    for name in ("Pyro.Daemon", "fortres", "", "x" * 1000):
        with closing(plain.connect()) as sock:
            sock.sendall(encode(GREETING, 0, {"handshake": "hello", "object": name}, largest=MEBIBYTE))
            assert receive(sock) == (REFUSAL, "unknown object")
            assert is_hung_up_on(sock)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "sign": st.binary(min_size=4, max_size=4),
        "version": st.integers(0, 65535),
        "serializer": st.integers(0, 255),
        "flags": st.integers(0, 65535),
        "size": st.integers(0, 2**32 - 1),
        "annotations": st.integers(0, 2**32 - 1),
        "magic": st.integers(0, 65535),
    },
)


@settings(max_examples=80)
@given(data=st.binary(min_size=1, max_size=200))
@example(data=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(data=b"GET / HTTP/1.1\r\nHost: gale\r\n\r\n" * 3)
def test_noise_is_refused(plain: Target, data: bytes) -> None:
    assert shot(plain.connect(), data)
    assert shot(plain.greeted(), data)


@settings(max_examples=80)
@given(kind=st.sampled_from([GREETING, CALL]), changes=headers, body=st.binary(max_size=100))
def test_headers_that_lie_are_refused(plain: Target, kind: int, changes: dict[str, Any], body: bytes) -> None:
    data = message(kind, body, **changes)
    assert shot(plain.greeted(), data)
    assert shot(plain.connect(), data)


@settings(max_examples=80)
@given(body=plain_values)
@example(body={"object": ["fortress"], "method": "add", "params": [1, 2], "kwargs": {}})
def test_bodies_of_any_plain_values_are_refused(plain: Target, body: object) -> None:
    data = json.dumps(body).encode()
    assert shot(plain.greeted(), message(CALL, data))
    assert shot(plain.connect(), message(GREETING, data))


@settings(max_examples=60)
@given(value=plain_values, method=st.sampled_from(["echo", "add"]), params=st.lists(plain_values, max_size=3))
def test_calls_with_any_plain_values_are_answered(
    plain: Target, value: object, method: str, params: list[object]
) -> None:
    with Connection(plain.uri, BOUND) as connection:
        assert connection.call("echo", value) == value
        with suppress(TransportError):
            connection.call(method, *params)
        assert connection.call("add", 1, 2) == 3


# --- how slowly, how often, how much


def test_who_says_nothing_stops_nobody_and_is_gone_soon(proved: Papers, secured: Target) -> None:
    secured.lives()
    before = secured.size()
    with ExitStack() as stack:
        # More than may be unproved at a time: those who have said nothing for the longest make room.
        silent = [stack.enter_context(closing(secured.connect())) for _ in range(300)]
        secured.lives()
        assert is_hung_up_on(silent[0])
        secured.lives()
        for sock in silent:
            assert is_hung_up_on(sock)
    poll_until(lambda: secured.size() <= before, "its threads and connections are gone")


@pytest.mark.parametrize("data", [GREET, b"\x16\x03\x01\x02\x00"], ids=["greeting", "TLS"])
@pytest.mark.parametrize("name", ["plain", "secured"])
def test_who_dribbles_is_hung_up_on(request: pytest.FixtureRequest, name: str, data: bytes) -> None:
    """One byte at a time, each well within any limit for a single one."""
    target: Target = request.getfixturevalue(name)
    with closing(target.connect()) as sock, suppress(ConnectionResetError, BrokenPipeError):
        began = time.monotonic()
        for byte in data * 100:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)
            assert time.monotonic() - began < BOUND / 2, "it listens to it still"


def test_thousands_of_bad_messages_leave_no_trace(proved: Papers, plain: Target, secured: Target) -> None:
    context = proved.context("good")
    use_credentials(None)

    def fire(times: int) -> None:
        for number in range(times):
            data = list(CASES.values())[number % len(CASES)]
            assert shot(plain.greeted(), data)
            if data != GREET:
                assert shot(plain.connect(), data)
            if number % 10 == 0:
                assert shot(secured.connect(), data)
                with suppress(OSError), closing(context.wrap_socket(secured.connect())) as sock:
                    sock.sendall(data)

    sizes = {target.uri: target.size() for target in (plain, secured)}
    fire(170)
    used = [target.process.memory_info().rss for target in (plain, secured)]
    fire(1020)
    for target in (plain, secured):
        poll_until(lambda target=target: target.size() <= sizes[target.uri], "threads and files are gone")
    grown = [target.process.memory_info().rss - before for target, before in zip((plain, secured), used, strict=True)]
    assert max(grown) < 8 * MEBIBYTE, grown
    # Nor is a disk filled.
    assert len(plain.log.read_bytes()) < 20_000


def test_large_messages_are_taken_in_few_at_a_time(plain: Target) -> None:
    plain.lives()
    before = plain.process.memory_info().rss
    largest = service.LARGEST_REQUEST
    with ExitStack() as stack:
        # All but the end of a message that is as large as may be.
        for _ in range(12):
            sock = stack.enter_context(closing(plain.greeted()))
            sock.settimeout(0.1)
            with suppress(TimeoutError):
                sock.sendall(message(CALL, b" " * (largest - 1), size=largest))
        plain.lives()
        assert plain.process.memory_info().rss - before < 6 * largest
    poll_until(lambda: plain.size()[1] <= 6, "its threads are gone")


def test_connections_are_as_many_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "THREADPOOL_SIZE", 10)

    class Harbour:
        @exposed
        def ping(self) -> int:
            return 1

    before = descriptors_and_threads()
    with serve(Harbour(), "harbour", HERE) as served, ExitStack() as stack:
        ships = [stack.enter_context(Connection(served.uri, BOUND)) for _ in range(10)]
        assert [ship.call("ping") for ship in ships] == [1] * 10
        with Connection(served.uri, BOUND) as late, pytest.raises(NoAnswerError):
            late.call("ping")
        ships[0].close()
        with Connection(served.uri, BOUND) as late:
            poll_until(lambda: _answers(late), "there is room again")
    poll_until(lambda: descriptors_and_threads() == before, "threads and descriptors go")


def _answers(connection: Connection) -> bool:
    with suppress(NoAnswerError):
        return bool(connection.call("ping"))
    return False


def test_refusals_are_logged_with_the_peer_and_not_too_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service._Refusals, "MOST", 3)
    monkeypatch.setattr(service._Refusals, "SECONDS", 0.5)
    refusals = service._Refusals()
    for number in range(50):
        refusals.tell(f"10.0.0.{number}:1", "noise")
    assert caplog.messages == [f"refused 10.0.0.{number}:1: noise" for number in range(3)]
    poll_until(lambda: refusals.tell("10.0.0.99:1", "noise") or len(caplog.messages) > 4, "it is told again")
    assert caplog.messages[3].endswith("more were refused before this")
    assert caplog.messages[4] == "refused 10.0.0.99:1: noise"


# --- the name server, and those who call


@settings(max_examples=60)
@given(
    method=st.sampled_from(["list", "register", "remove", "count", "ping"]), params=st.lists(plain_values, max_size=3)
)
@example(method="register", params=["name", "no URI"])
@example(method="register", params=["x" * 10_000, "PYRO:a@b:1"])
@example(method="list", params=[None, "(a+)+$"])
@example(method="remove", params=[None, None, ".*"])
def test_a_name_server_keeps_names_alone(shared_names: Address, method: str, params: list[Any]) -> None:
    with Connection("PYRO:Pyro.NameServer@{}:{}".format(*shared_names), BOUND) as connection:
        if method == "register" and len(params) == 2 and isinstance(params[1], str) and params[1][:4] == "PYRO":
            with pytest.raises(TransportError):
                connection.call(method, *params)
        with suppress(TransportError):
            connection.call(method, *params)
        assert list_names(shared_names, "gale.") == {"gale.worker_one": "PYRO:one@127.0.0.1:1"}


@pytest.mark.parametrize("sign", ["\n", "\x1b[2J", "\u202e", "\ud800"])
def test_names_that_would_do_something_to_a_terminal_are_not_kept(shared_names: Address, sign: str) -> None:
    for name, uri in ((f"gale.{sign}", "PYRO:one@127.0.0.1:1"), ("gale.worker_two", f"PYRO:one{sign}@127.0.0.1:1")):
        with pytest.raises(TransportError, match=r"printable signs|is not a URI"):
            register_name(shared_names, name, uri)
    assert list(list_names(shared_names, "gale.")) == ["gale.worker_one"]


@pytest.fixture(scope="module")
def shared_names() -> Iterator[Address]:
    with start_nameserver(HERE) as names:
        register_name(names.address, "gale.worker_one", "PYRO:one@127.0.0.1:1")
        yield names.address


@contextmanager
def liar(answer: bytes, *, welcomes: bool) -> Iterator[str]:
    """Something that listens, and answers whatever it likes; its URI."""
    with socket.create_server(HERE) as listener:

        def serve_one() -> None:
            with suppress(OSError), listener.accept()[0] as sock:
                if welcomes:
                    sock.recv(65536)
                    known = {"handshake": "hello", "meta": {"methods": ["echo"]}}
                    sock.sendall(encode(WELCOME, 0, known, largest=MEBIBYTE))
                sock.recv(65536)
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1)

        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield "PYRO:fortress@{}:{}".format(*listener.getsockname())
        finally:
            thread.join(BOUND)


@settings(max_examples=60)
@given(welcomes=st.booleans(), kind=st.sampled_from([WELCOME, REFUSAL, RESULT]), changes=headers, body=plain_values)
@example(welcomes=True, kind=RESULT, changes={"flags": protocol.FLAGS_COMPRESSED}, body=1)
@example(welcomes=True, kind=RESULT, changes={"serializer": 2}, body=1)
@example(welcomes=True, kind=RESULT, changes={"size": 2**31}, body=1)
@example(welcomes=True, kind=RESULT, changes={"flags": 1}, body={"__class__": "os.system", "args": ["x", "y"]})
def test_a_service_that_lies_is_an_error_like_any_other(
    welcomes: bool, kind: int, changes: dict[str, Any], body: object
) -> None:
    if welcomes and kind == RESULT and not changes:
        return  # that would be an answer
    data = message(kind, json.dumps(body).encode(), **changes)
    with liar(data, welcomes=welcomes) as uri, Connection(uri, BOUND) as connection, pytest.raises(TransportError):
        connection.call("echo", 1)


def test_an_answer_that_dribbles_is_given_up_in_time() -> None:
    with socket.create_server(HERE) as listener:

        def dribble() -> None:
            with suppress(OSError), listener.accept()[0] as sock:
                for byte in GREET * 100:
                    sock.sendall(bytes([byte]))
                    time.sleep(0.05)

        thread = threading.Thread(target=dribble)
        thread.start()
        uri = "PYRO:fortress@{}:{}".format(*listener.getsockname())
        with Connection(uri, 0.3) as connection, pytest.raises(NoAnswerError, match="in time"):
            connection.call("echo", 1)
        thread.join(BOUND)


def test_loggers_of_pyro_say_nothing_of_it(plain: Target) -> None:
    assert shot(plain.connect(), b"noise" * 20)
    assert "Pyro5" not in plain.log.read_text(encoding="utf-8")
