"""Real hosts for the tests of the cluster; see `ssh_hosts`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.ssh_hosts import (
    Hosts,
    NamespacedHosts,
    loopback_hosts,
    namespaced_hosts,
    why_no_namespaces,
    why_no_sshd,
)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Three names for one ssh server on loopback that an ordinary user runs; HOME is that of a client."""
    if reason := why_no_sshd():
        pytest.skip(reason)
    with loopback_hosts() as hosts:
        _live_in(hosts, monkeypatch)
        yield hosts


@pytest.fixture
def namespaced(monkeypatch: pytest.MonkeyPatch) -> Iterator[NamespacedHosts]:
    """Three hosts with addresses of their own, any of which can be cut off; HOME is that of a client."""
    if reason := why_no_namespaces():
        pytest.skip(reason)
    with namespaced_hosts() as hosts:
        _live_in(hosts, monkeypatch)
        yield hosts


def _live_in(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(hosts.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
