"""The wire on loopback: what travels, what each fault becomes, who may be reached, and that nothing is left of it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import psutil
import pytest

from stormtracks.cluster.errors import (
    BackendError,
    ClusterError,
    GoneError,
    ListenError,
    NoAnswerError,
    TransportError,
    WorkerRefusedError,
)
from stormtracks.cluster.wire.transport import (
    Connection,
    Service,
    exposed,
    is_loopback,
    list_names,
    nameserver_answers,
    parse_address,
    register_name,
    remove_name,
    serve,
    start_nameserver,
)
from tests.cluster.cluster_parts import BOUND, ROOT, descriptors_and_threads, poll_until

HERE = ("127.0.0.1", 0)


class Lighthouse:
    """Something to call."""

    def __init__(self) -> None:
        self.fog = threading.Event()

    @exposed
    def echo(self, value: Any) -> Any:
        return value

    @exposed
    def refuse(self) -> NoReturn:
        raise WorkerRefusedError("numpy 1.26 there and 2.1 here", remedy="install the same")

    @exposed
    def stumble(self) -> NoReturn:
        raise ZeroDivisionError("no lamp")

    @exposed
    def wreck(self) -> NoReturn:
        class WreckError(Exception):
            """Known to nobody else."""

        raise WreckError("on the rocks")

    @exposed
    def hang(self) -> None:
        self.fog.wait(BOUND)

    def keep(self) -> str:
        return "not for others"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread or file descriptor outlives a test."""
    before = descriptors_and_threads()
    yield
    poll_until(lambda: descriptors_and_threads() == before, "threads and descriptors go")


@pytest.fixture
def lighthouse() -> Iterator[tuple[Lighthouse, Service]]:
    thing = Lighthouse()
    with serve(thing, "lighthouse", HERE) as service:
        yield thing, service
        thing.fog.set()


def test_plain_values_travel(lighthouse: tuple[Lighthouse, Service]) -> None:
    value = {"name": "Fönsturm", "at": [1.5, -3, None, True], "deep": {"empty": []}}
    with Connection(lighthouse[1].uri, BOUND) as connection:
        assert connection.call("echo", value) == value
        assert connection.call("echo", float("inf")) == float("inf")


def test_errors_of_the_house_arrive_as_they_were_raised(lighthouse: tuple[Lighthouse, Service]) -> None:
    with Connection(lighthouse[1].uri, BOUND) as connection:
        with pytest.raises(WorkerRefusedError) as caught:
            connection.call("refuse")
        assert (caught.value.what, caught.value.remedy) == ("numpy 1.26 there and 2.1 here", "install the same")
        with pytest.raises(TransportError, match="stumble failed: ZeroDivisionError: no lamp"):
            connection.call("stumble")
        with pytest.raises(TransportError, match="wreck failed: WreckError: on the rocks"):
            connection.call("wreck")
        # The same connection is good for another call.
        assert connection.call("echo", 1) == 1


@pytest.mark.parametrize("name", ["keep", "absent", "_fog"])
def test_only_what_is_exposed_can_be_called(lighthouse: tuple[Lighthouse, Service], name: str) -> None:
    with Connection(lighthouse[1].uri, BOUND) as connection, pytest.raises(TransportError):
        connection.call(name)


def test_no_answer_in_time(lighthouse: tuple[Lighthouse, Service]) -> None:
    thing, service = lighthouse
    with Connection(service.uri, BOUND) as connection:
        with pytest.raises(NoAnswerError, match=r"no answer from 127\.0\.0\.1:\d+ to hang in time"):
            connection.call("hang", timeout=0.2)
        thing.fog.set()
        assert connection.call("echo", 1) == 1


def test_nobody_there() -> None:
    with serve(Lighthouse(), "lighthouse", HERE) as service:
        uri, address = service.uri, service.address
        connection = Connection(uri, BOUND)
        connection.call("echo", 1)
    with pytest.raises(NoAnswerError):
        connection.call("echo", 1)
    with pytest.raises(GoneError, match="nobody listens on"):
        connection.call("echo", 1)
    with serve(Lighthouse(), "another", address), pytest.raises(GoneError, match="another process listens on"):
        connection.call("echo", 1)


def test_more_connections_than_pyro_would_take_by_itself() -> None:
    with ExitStack() as stack:
        service = stack.enter_context(serve(Lighthouse(), "lighthouse", HERE))
        names = stack.enter_context(start_nameserver(HERE))
        uri = names.uri
        crowd = [stack.enter_context(Connection(service.uri, BOUND)) for _ in range(120)]
        askers = [stack.enter_context(Connection(uri, BOUND)) for _ in range(120)]
        assert [one.call("echo", number) for number, one in enumerate(crowd)] == list(range(120))
        assert {one.call("count") for one in askers} == {1}
        # All of them are still there, and so is room for one more.
        assert [one.call("echo", number) for number, one in enumerate(crowd)] == list(range(120))
        assert nameserver_answers(names.address)


def test_whoever_is_let_in_while_it_closes_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Lighthouse(), "lighthouse", HERE) as service, Connection(service.uri, BOUND) as late:
        hang_up, times = service._daemon.hang_up, []

        def hang_up_and_let_in() -> None:
            hang_up()
            times.append(len(times))
            if len(times) == 1:
                assert late.call("echo", 1) == 1

        monkeypatch.setattr(service._daemon, "hang_up", hang_up_and_let_in)
        service.close()
        assert times == [0, 1]
        with pytest.raises(TransportError):
            late.call("echo", 2)


def test_a_loop_that_loses_its_socket_as_the_service_closes_ends_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    loud: list[object] = []
    monkeypatch.setattr(threading, "excepthook", loud.append)
    with serve(Lighthouse(), "lighthouse", HERE) as service:
        pyro = service._daemon.transportServer
        waiting = threading.Event()

        def too_late(sockets: object) -> None:
            waiting.set()
            poll_until(lambda: pyro.sock is None, "its socket is taken away")
            pyro.sock.accept()

        monkeypatch.setattr(pyro, "events", too_late)
        with Connection(service.uri, BOUND) as connection:  # for which the loop turns once
            assert connection.call("echo", 1) == 1
        assert waiting.wait(BOUND)
    assert loud == []


def test_nothing_listens_beyond_this_machine_unless_told_to(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ListenError, match=r"cluster\.insecure = true"):
        serve(Lighthouse(), "lighthouse", ("0.0.0.0", 0))
    with pytest.raises(ListenError, match="plain text"):
        start_nameserver(("0.0.0.0", 0))
    assert caplog.records == []
    for count in (1, 2):
        with serve(Lighthouse(), "lighthouse", ("0.0.0.0", 0), insecure=True):
            assert [record.levelno for record in caplog.records] == [logging.WARNING] * count
    assert "plain text" in caplog.text


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.77.0.1", False),
        ("no-such-host.invalid", False),
        ("a..b", False),
        ("x" * 64, False),
    ],
)
def test_what_is_reached_from_this_machine_alone(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_an_address_that_is_taken_or_foreign_is_named() -> None:
    with serve(Lighthouse(), "lighthouse", HERE) as service:
        with pytest.raises(ListenError, match=f"127.0.0.1:{service.address[1]}"):
            serve(Lighthouse(), "lighthouse", service.address)
        with pytest.raises(ListenError, match="no-such-host"):
            serve(Lighthouse(), "lighthouse", ("no-such-host.invalid", 0), insecure=True)


def test_the_name_server_keeps_names_and_opens_no_other_port() -> None:
    with start_nameserver(HERE) as service:
        ports = {
            (one.type, one.laddr.port) for one in psutil.Process().net_connections() if one.status != "ESTABLISHED"
        }
        assert ports & {(socket.SOCK_STREAM, service.address[1])}
        assert [kind for kind, _ in ports if kind == socket.SOCK_DGRAM] == []
        register_name(service.address, "a.worker_gale", "PYRO:one@127.0.0.1:1")
        register_name(service.address, "b.worker_gale", "PYRO:two@127.0.0.1:2")
        assert list_names(service.address, "a.") == {"a.worker_gale": "PYRO:one@127.0.0.1:1"}
        remove_name(service.address, "a.worker_gale", uri="PYRO:other@127.0.0.1:1")
        assert list_names(service.address, "a.") != {}
        remove_name(service.address, "a.worker_gale", uri="PYRO:one@127.0.0.1:1")
        assert list_names(service.address, "a.") == {}
        address = service.address
    assert not nameserver_answers(address)
    with pytest.raises(GoneError, match="name server: nobody listens on") as caught:
        list_names(address, "a.")
    assert "pyro_nameserver" in caught.value.remedy


def test_noise_and_giants_are_refused_and_the_service_lives(lighthouse: tuple[Lighthouse, Service]) -> None:
    _, service = lighthouse
    for noise in (b"GET / HTTP/1.0\r\n\r\n" * 4, b"\x00" * 4096, b"PYRO"):
        with socket.create_connection(service.address) as stranger:
            stranger.sendall(noise)
    with Connection(service.uri, BOUND) as connection:
        with pytest.raises(TransportError):
            connection.call("echo", "x" * (17 * 2**20))
        assert connection.call("echo", "x" * 2**20) == "x" * 2**20


def test_what_stands_in_the_environment_changes_nothing() -> None:
    program = "import stormtracks.cluster.wire.transport, Pyro5; print(Pyro5.config.SSL, Pyro5.config.SERVERTYPE)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYRO_SSL": "1", "PYRO_SERVERTYPE": "multiplex", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False thread\n"


@pytest.mark.parametrize(("text", "address"), [("gale:9090", ("gale", 9090)), ("[::1]:80", ("::1", 80))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["gale", ":9090", "gale:", "gale:port", "gale:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ClusterError, match="is not an address"):
        parse_address(text)


def test_every_error_of_the_room_can_travel() -> None:
    class Thrower:
        @exposed
        def throw(self, name: str) -> NoReturn:
            from stormtracks.cluster import errors

            raise getattr(errors, name)("what", remedy="remedy")

    from stormtracks.cluster import errors

    with serve(Thrower(), "thrower", HERE) as service, Connection(service.uri, BOUND) as connection:
        for name in errors.__all__:
            with pytest.raises(ClusterError) as caught:
                connection.call("throw", name)
            assert type(caught.value).__name__ == name
            assert str(caught.value) == "what\n  remedy: remedy"
    assert issubclass(BackendError, ClusterError)
