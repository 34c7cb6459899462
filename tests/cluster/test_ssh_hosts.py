"""The hosts that other tests rely on: they leave nothing behind, even if their run is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.ssh_hosts import ROOT, Hosts, NamespacedHosts, end_leftovers, until, why_no_namespaces

RUN = """
import sys, time
from tests.cluster import ssh_hosts
with ssh_hosts.namespaced_hosts(2) as hosts:
    ssh = ["ssh", "-F", f"{hosts.home}/.ssh/config", "-i", hosts.key]
    ssh += ["-o", f"UserKnownHostsFile={hosts.home}/.ssh/known_hosts"]
    ssh_hosts.subprocess.run([*ssh, hosts.names[0], "sleep 600 >/dev/null 2>&1 </dev/null &"], check=True)
    print(hosts.processes()[0], hosts.shared, flush=True)
    time.sleep(600)
"""


def listed(*what: str) -> str:
    return subprocess.run(["ip", *what], capture_output=True, text=True, check=True, timeout=20).stdout


def test_what_a_killed_run_left_behind_is_ended() -> None:
    if reason := why_no_namespaces():
        pytest.skip(reason)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        pid, shared = run.stdout.readline().split()
        names = f"st{run.pid}"
        assert listed("netns", "list").count(names) == 2
        run.kill()
    assert Path("/proc", pid).exists()
    end_leftovers()
    until(lambda: not Path("/proc", pid).exists(), "its processes have ended")
    assert names not in listed("netns", "list") + listed("-o", "link")
    assert not Path(shared).parent.exists()


def test_the_ordinary_user_is_none_but_one(loopback: Hosts) -> None:
    """Nobody but the servers' own processes knows the user, who can write nowhere but where all can."""
    (server,) = {id(server): server for server in loopback.servers}.values()
    assert f"{server.user}:" in Path(f"/proc/{server.process.pid}/root/etc/passwd").read_text(encoding="utf-8")
    uid = Path(f"/proc/{server.process.pid}").stat().st_uid
    assert uid != 0


def test_a_host_is_cut_off_and_healed_alone(namespaced: NamespacedHosts) -> None:
    first, second, _ = namespaced.names

    def answers(name: str) -> bool:
        command = ["ssh-keyscan", "-T", "1", namespaced.address(name)]
        return bool(subprocess.run(command, capture_output=True, timeout=20, check=False).stdout)

    assert answers(first)
    namespaced.cut(first)
    assert not answers(first)
    assert answers(second)
    namespaced.heal(first)
    assert answers(first)
