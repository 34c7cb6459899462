"""The hosts of a campaign over real ssh: what happens on each is told, bounded, and held up by none of the others."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from stormtracks.cluster.errors import ClusterError, HostError
from stormtracks.cluster.fleet import AT_A_TIME, Fleet, HostReport, print_reports
from stormtracks.cluster.host import Process
from stormtracks.cluster.inspection import COLUMNS, Inspection, inspect_hosts, print_inspection
from stormtracks.cluster.ssh import RemoteHost, read_ssh_config
from stormtracks.cluster.wire.certificates import make_certificates
from stormtracks.settings.campaign import CampaignSettings
from tests.cluster.ssh_hosts import ROOT, Hosts, NamespacedHosts, make_key, until

STAND_IN = str(Path(__file__).with_name("stand_in_worker.py"))
QUICK = {"connect_timeout": 2.0, "lease": 20.0}


def campaign_of(hosts: Hosts, *, changes: dict[str, dict[str, Any]] | None = None, **cluster: Any) -> CampaignSettings:
    """A campaign on these hosts; `changes` holds settings of single hosts, and hosts that there are none."""
    document = tomllib.loads(hosts.toml(**(QUICK | cluster)))
    listed = {host["name"]: host for host in document["cluster"]["hosts"]}
    for name, values in (changes or {}).items():
        listed[name] = listed.get(name, {"name": name}) | values
    document["cluster"]["hosts"] = list(listed.values())
    folders = {"data": {"root": hosts.shared / "data"}, "results": {"root": hosts.shared / "out"}}
    return CampaignSettings.model_validate({"name": "gale"} | folders | document)


def fleet_of(hosts: Hosts, **options: Any) -> Fleet:
    """A fleet whose workers are stand-ins."""
    return Fleet(campaign_of(hosts, **options), worker=[STAND_IN])


def by_host(reports: Iterator[HostReport]) -> dict[str, HostReport]:
    return {report.host: report for report in reports}


def happened(reports: Iterator[HostReport]) -> dict[str, str]:
    return {report.host: report.what for report in reports}


def terms(hosts: Hosts, host: str) -> dict[str, Any]:
    """On which terms a stand-in was started last."""
    said: dict[str, Any] = json.loads((hosts.logs / f"gale.{host}.log").read_text(encoding="utf-8").splitlines()[-1])
    return said


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Fail if something takes longer than a bound that is far above what it needs, and far below for ever."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def program(hosts: Hosts, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"stormtracks.{name}", *map(str, arguments)]
    return subprocess.run(
        command, env=hosts.environment, capture_output=True, text=True, timeout=120, check=False, cwd=hosts.home
    )


@pytest.fixture
def campaign_file(loopback: Hosts) -> Path:
    (loopback.shared / "data").mkdir()
    (loopback.shared / "data" / "u850.nc").write_bytes(b"wind")
    # As an administrator does it who shares a disk: whoever logs in may write to it.
    (loopback.shared / "out").mkdir()
    (loopback.shared / "out").chmod(0o777)
    path = loopback.shared / "c.toml"
    head = 'name = "gale"\n[data]\nroot = "data"\n[results]\nroot = "out"\n'
    path.write_text(head + loopback.toml(), encoding="utf-8")
    return path


# --- the programs, with the real worker


def test_the_programs_start_check_and_stop_real_workers(loopback: Hosts, campaign_file: Path) -> None:
    started = program(loopback, "cluster.pyro_starter", campaign_file)
    assert started.returncode == 0, started.stdout + started.stderr
    lines = sorted(started.stdout.splitlines())
    assert [line.split()[:2] for line in lines] == [[name, "started,"] for name in sorted(loopback.names)]
    pids = {int(re.findall(r"pid (\d+)", line)[0]) for line in lines}
    again = program(loopback, "cluster.pyro_starter", campaign_file)
    assert again.stdout.count("already running") == 3
    assert {int(pid) for pid in re.findall(r"pid (\d+)", again.stdout)} == pids
    assert pids <= set(loopback.processes())

    checked = program(loopback, "cli", "hosts", campaign_file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    head, *rows = checked.stdout.splitlines()
    assert head.split("  ")[0] == "host"
    assert [row.split()[:2] for row in rows] == [[name, "yes"] for name in loopback.names]
    assert list((loopback.shared / "out").iterdir()) == []

    stopped = program(loopback, "cluster.pyro_ender", campaign_file)
    assert (stopped.returncode, stopped.stdout.count("stopped, pid")) == (0, 3), stopped.stdout
    assert loopback.processes() == []
    assert program(loopback, "cluster.pyro_ender", campaign_file).stdout.count("not running") == 3
    assert {path.suffix for path in loopback.logs.iterdir()} == {".log"}


def test_a_program_says_what_failed_and_ends_with_1(loopback: Hosts, campaign_file: Path) -> None:
    text = campaign_file.read_text(encoding="utf-8").replace('name = "east"', 'name = "west"')
    campaign_file.write_text(text, encoding="utf-8")
    started = program(loopback, "cluster.pyro_starter", campaign_file)
    assert started.returncode == 1
    assert re.search(r"^west   failed: no such host: .*\n       remedy: .*ssh/config$", started.stdout, re.MULTILINE)
    assert started.stdout.count(" started, ") == 2
    assert started.stderr == ""
    stopped = program(loopback, "cluster.pyro_ender", campaign_file)
    assert (stopped.returncode, stopped.stdout.count("stopped")) == (1, 2)


@pytest.mark.parametrize("name", ["cluster.pyro_starter", "cluster.pyro_ender"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "gale"', "names no hosts"),
        ("[cluster]\nhost = 1", "did you mean"),
        ('[cluster]\nlisten = "0.0.0.0"\n[[cluster.hosts]]\nname = "north"', "cluster.nameserver"),
    ],
)
def test_a_campaign_that_cannot_be_used_ends_a_program_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, says: str
) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    module = __import__(f"stormtracks.{name}", fromlist=["main"])
    assert module.main([str(tmp_path / "c.toml")]) == 2
    assert says in capsys.readouterr().err


# --- start and stop


def test_a_worker_is_told_its_terms_whatever_they_hold(loopback: Hosts) -> None:
    odd = """it's "so" $HOME `id`; & * ~ \\ !x é"""
    logs = loopback.shared / 'log\'s "folder" $HOME'
    changes = {"north": {"slots": 3, "environment": {"ODD": odd}}, "south": {"address": "127.0.0.3"}}
    python = loopback.shared / "a 'python' of \"mine\""
    python.symlink_to(sys.executable)
    options = {"environment": {"ODD": "even", "PYTHONPATH": str(ROOT)}, "log_folder": str(logs)}
    fleet = fleet_of(loopback, changes=changes, nameserver="localhost:4444", insecure=True, **options)
    assert set(happened(fleet.start()).values()) == {"started"}
    said = {name: json.loads((logs / f"gale.{name}.log").read_text(encoding="utf-8")) for name in loopback.names}
    assert said["north"]["environment"]["ODD"] == odd
    assert said["east"]["environment"]["ODD"] == "even"
    expected = "--name north --campaign gale --nameserver localhost:4444 --slots 3 --insecure --listen 127.0.0.1"
    assert " ".join(said["north"]["arguments"]) == expected
    assert said["south"]["arguments"][-1] == "127.0.0.3"
    assert set(happened(fleet.stop()).values()) == {"stopped"}
    quoted = fleet_of(loopback, names=["north"], python=str(python))
    assert happened(quoted.start()) == {"north": "started"}
    assert happened(quoted.stop()) == {"north": "stopped"}


def test_relative_folders_and_tilde_start_at_the_home_of_who_logs_in(loopback: Hosts) -> None:
    pythons = {"north": {"python": "~/python"}, "south": {"python": "./python"}}
    with RemoteHost(campaign_of(loopback).cluster.hosts[0], campaign_of(loopback).cluster, read_ssh_config()) as remote:
        home = remote.run(["pwd"], seconds=20.0).output.strip()
        remote.run(["ln", "-s", sys.executable, "python"], seconds=20.0)
    fleet = fleet_of(loopback, names=["north", "south"], changes=pythons, log_folder="~/my logs")
    reports = by_host(fleet.start())
    assert [report.what for report in reports.values()] == ["started", "started"], reports
    assert reports["north"].detail.endswith(f"log {home}/my logs/gale.north.log")


def test_a_worker_that_does_not_end_is_killed_by_force_alone(loopback: Hosts) -> None:
    fleet = fleet_of(loopback, changes={"north": {"environment": {"STAND_IN": "stubborn"}}})
    assert set(happened(fleet.start()).values()) == {"started"}
    reports = by_host(fleet.stop(wait=0.3))
    assert "has not ended within 0.3 s" in reports["north"].detail
    assert "--force" in reports["north"].remedy
    assert {reports[name].what for name in ("south", "east")} == {"stopped"}
    assert happened(fleet.stop(force=True, wait=0.1)) == dict.fromkeys(loopback.names, "not running") | {
        "north": "killed"
    }
    assert loopback.processes() == []


def test_only_this_campaigns_own_process_is_stopped(loopback: Hosts) -> None:
    fleet = fleet_of(loopback, names=["north"])
    other = Fleet(campaign_of(loopback, names=["north"]).model_copy(update={"name": "calm"}), worker=[STAND_IN])
    assert happened(fleet.start()) == happened(other.start()) == {"north": "started"}
    state = loopback.logs / "gale.north.json"
    document = json.loads(state.read_bytes())
    with subprocess.Popen(["sleep", "600"]) as bystander:
        found = Process.find(bystander.pid)
        assert found is not None
        state.write_text(json.dumps(document | {"pid": found.pid}), encoding="utf-8")
        reports = by_host(fleet.stop(force=True, wait=0.1))
        assert reports["north"].what == "not running"
        assert "left alone" in reports["north"].detail
        assert bystander.poll() is None
        bystander.kill()
    assert happened(other.stop()) == {"north": "stopped"}
    assert loopback.processes() == [document["pid"]]


def test_reports_are_printed_as_they_come() -> None:
    out = io.StringIO()
    reports = [HostReport("north", "started", "pid 7"), HostReport("gale-22", "failed", "no answer", "look")]
    assert not print_reports(reports[:], out, width=7)
    assert out.getvalue() == "north    started, pid 7\ngale-22  failed: no answer\n         remedy: look\n"
    assert print_reports(reports[:1], out, width=5)


def test_each_host_gets_what_it_proves_itself_with_and_nothing_else(loopback: Hosts) -> None:
    folder = loopback.shared / "certs"
    # Nobody is asked there: that the manager listens beyond this machine is enough.
    options = {"listen": "192.0.2.1", "certificates": str(folder)}
    fleet = fleet_of(loopback, **options)
    assert set(happened(fleet.start()).values()) == {"started"}
    assert len(list(folder.glob("host.*.pem"))) == 3
    for name in loopback.names:
        there = loopback.logs / f"gale.{name}.certs"
        assert terms(loopback, name)["arguments"][-4:] == ["--listen", "127.0.0.1", "--certificates", str(there)]
        assert stat.S_IMODE(there.stat().st_mode) == 0o700
        files = {path.name: path for path in there.iterdir()}
        assert {key: stat.S_IMODE(path.stat().st_mode) for key, path in files.items()} == {
            "authority.crt": 0o600,
            "worker.pem": 0o600,
        }
        assert files["worker.pem"].read_bytes() == (folder / f"host.{name}.pem").read_bytes()
    before = {path.name: path.stat().st_mtime_ns for path in loopback.logs.glob("*.certs")}
    assert set(happened(fleet.start()).values()) == {"already running"}
    assert {path.name: path.stat().st_mtime_ns for path in loopback.logs.glob("*.certs")} == before, "nothing is copied"
    make_certificates(campaign_of(loopback, **options), renew=True)
    assert set(happened(fleet.start()).values()) == {"already running"}
    for name in loopback.names:
        there = loopback.logs / f"gale.{name}.certs" / "worker.pem"
        assert there.read_bytes() == (folder / f"host.{name}.pem").read_bytes()
    assert set(happened(fleet.stop()).values()) == {"stopped"}
    assert {path.suffix for path in loopback.logs.iterdir()} == {".log"}


def test_an_address_that_only_the_host_knows_gets_into_its_certificate(loopback: Hosts) -> None:
    folder = loopback.shared / "certs"
    with (loopback.home / ".ssh" / "config").open("a", encoding="utf-8") as config:
        # As behind a jump host: here, the name stands for nothing.
        server = loopback.servers[0]
        config.write(f"Host inner\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n")
    changes = {"inner": {"python": sys.executable}}
    fleet = fleet_of(
        loopback, names=["north"], changes=changes, listen="192.0.2.1", certificates=str(folder), log_folder="logs"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stormtracks.cluster.ssh.places_of", lambda host, cluster, config: {host.name})
        assert happened(fleet.start()) == {"north": "started", "inner": "started"}
    found = x509.load_pem_x509_certificate((folder / "host.inner.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert happened(fleet.stop()) == {"north": "stopped", "inner": "stopped"}


# --- what fails


def test_each_host_that_fails_says_why_and_the_rest_goes_on(loopback: Hosts) -> None:
    port = loopback.servers[0].port
    with (loopback.home / ".ssh" / "config").open("a", encoding="utf-8") as config:
        config.write(f"Host unknown\n  HostName 127.0.0.2\n  Port {port}\nHost shut\n  HostName 127.0.0.1\n")
    changes: dict[str, dict[str, Any]] = {
        "south": {"python": "python9"},
        "east": {"python": sys.executable, "environment": {"PYTHONPATH": "/nowhere"}},
        "absent.invalid": {},
        "shut": {"port": 1},
        "keyless": {"key": str(loopback.home / "no-key")},
    }
    # A python that has no stormtracks: the bare one below the one that runs the tests.
    bare = loopback.shared / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=60)
    changes["east"]["python"] = str(bare / "bin" / "python")
    with bounded(60.0):
        reports = by_host(fleet_of(loopback, changes=changes).start())
    assert reports.pop("north").what == "started"
    expected = {
        "south": ("python 'python9' cannot be run there: .*python9", "'python'"),
        "east": ("has no stormtracks: .*No module named", "--install"),
        "absent.invalid": ("no such host: .*absent.invalid", "ssh/config"),
        "shut": ("no connection to .*port 1: Connection refused", "ssh server"),
        "keyless": ("there is no private key .*no-key", "'key'"),
    }
    assert sorted(reports) == sorted(expected)
    for name, (detail, remedy) in expected.items():
        assert reports[name].what == "failed"
        assert re.search(detail, reports[name].detail), reports[name]
        assert remedy in reports[name].remedy


def test_a_key_that_the_host_does_not_know_is_told(loopback: Hosts) -> None:
    for path in loopback.key.parent.glob("id_ed25519*"):
        path.rename(loopback.shared / path.name)
    (report,) = fleet_of(loopback, names=["north"]).start()
    assert report.detail.startswith("no key was accepted for ")
    make_key(loopback.key)
    (report,) = fleet_of(loopback, names=["north"]).start()
    assert report.detail.startswith("no key was accepted for ")
    assert "ssh-copy-id" in report.remedy
    # The right one, by the settings: the host's own before the cluster's.
    key = {"key": str(loopback.shared / "id_ed25519")}
    assert happened(fleet_of(loopback, names=["north"], changes={"north": key}, key=str(loopback.key)).start()) == {
        "north": "started"
    }
    assert happened(fleet_of(loopback, names=["north"], **key).stop()) == {"north": "stopped"}


def test_an_unknown_host_key_is_refused_and_so_is_a_changed_one(loopback: Hosts) -> None:
    known = loopback.home / ".ssh" / "known_hosts"
    right = known.read_text(encoding="utf-8")
    known.unlink()
    (report,) = fleet_of(loopback, names=["north"]).start()
    assert "a key that is not in known_hosts: SHA256:" in report.detail
    assert "plain ssh" in report.remedy

    make_key(loopback.shared / "another")
    another = (loopback.shared / "another.pub").read_text(encoding="utf-8")
    known.write_text(f"{right.split()[0]} {another}", encoding="utf-8")
    (report,) = fleet_of(loopback, names=["north"]).start()
    assert "shows another key than the one in known_hosts" in report.detail
    assert "ssh-keygen -R" in report.remedy

    # Where ssh is configured to find them elsewhere, or to trust, that is what happens.
    elsewhere = loopback.shared / "known elsewhere".replace(" ", "-")
    elsewhere.write_text(right, encoding="utf-8")
    config = loopback.home / ".ssh" / "config"
    plain = config.read_text(encoding="utf-8")
    config.write_text(f"UserKnownHostsFile /nowhere {elsewhere}\n{plain}", encoding="utf-8")
    assert happened(fleet_of(loopback, names=["north"]).start()) == {"north": "started"}
    config.write_text(f"UserKnownHostsFile /nowhere\nStrictHostKeyChecking accept-new\n{plain}", encoding="utf-8")
    assert happened(fleet_of(loopback, names=["north"]).stop()) == {"north": "stopped"}


def test_a_configuration_that_makes_no_sense_is_told(loopback: Hosts) -> None:
    (loopback.home / ".ssh" / "config").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ClusterError, match="ssh configuration"):
        fleet_of(loopback)


def test_a_host_that_hangs_is_given_up_in_time(loopback: Hosts) -> None:
    loopback.servers[0].pause()
    with bounded(30.0):
        reports = by_host(fleet_of(loopback, connect_timeout=0.5).start())
    loopback.servers[0].resume()
    assert {report.detail for report in reports.values()} == {"no answer within 0.5 s"}
    assert len(reports) == 3


def test_a_host_that_hangs_in_mid_command_is_given_up_in_time(loopback: Hosts) -> None:
    campaign = campaign_of(loopback)
    with RemoteHost(campaign.cluster.hosts[0], campaign.cluster, read_ssh_config()) as remote:
        assert remote.run(["echo", "a  b", "$HOME"], seconds=20.0).output == "a  b $HOME\n"
        for session in loopback.servers[0].sessions():
            session.suspend()
        with bounded(30.0), pytest.raises(HostError, match=r"no answer within 0.5 s"):
            remote.run(["true"], seconds=0.5)
    for session in loopback.servers[0].sessions():
        session.resume()


def test_a_connection_that_breaks_is_told_and_leaves_no_thread(loopback: Hosts) -> None:
    campaign = campaign_of(loopback)
    before = set(threading.enumerate())
    with RemoteHost(campaign.cluster.hosts[0], campaign.cluster, read_ssh_config()) as remote:
        timer = threading.Timer(0.3, lambda: [session.kill() for session in loopback.servers[0].sessions()])
        timer.start()
        with bounded(30.0), pytest.raises(HostError, match="the connection broke"):
            remote.run(["sleep", "60"], seconds=60.0)
    until(lambda: set(threading.enumerate()) <= before, "all threads have ended")


def test_more_hosts_than_are_asked_at_a_time(loopback: Hosts) -> None:
    names = [f"host{number:03d}" for number in range(AT_A_TIME + 8)]
    port = loopback.servers[0].port
    with (loopback.home / ".ssh" / "config").open("a", encoding="utf-8") as config:
        config.write(f"Host host*\n  HostName 127.0.0.1\n  Port {port}\n  User {loopback.servers[0].user}\n")
    document = campaign_of(loopback).model_dump(mode="json")
    # No python is run, so that it takes no time.
    document["cluster"]["hosts"] = [{"name": name, "python": "false"} for name in names]
    reports = by_host(Fleet(CampaignSettings.model_validate(document)).stop())
    assert sorted(reports) == names
    assert {report.detail for report in reports.values()} == {
        "python 'false' there has ended with exit status 1: without a word"
    }


# --- as with plain ssh


def test_an_agent_and_a_jump_host_work_as_with_plain_ssh(loopback: Hosts) -> None:
    ssh = loopback.home / ".ssh"
    loopback.key.rename(loopback.shared / "key")
    with (ssh / "config").open("a", encoding="utf-8") as config:
        server = loopback.servers[0]
        config.write(f"Host inner\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump jump\n")
        config.write(f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n")
    changes = {"inner": {"user": loopback.servers[0].user, "python": sys.executable}}
    with agent(loopback.shared / "agent") as environment, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        fleet = fleet_of(loopback, names=["north"], changes=changes)
        assert {report.what for report in fleet.start()} == {"failed"}
        subprocess.run(["ssh-add", "-q", loopback.shared / "key"], env=environment, check=True, timeout=20)
        assert happened(fleet.start()) == {"north": "started", "inner": "started"}
        assert happened(fleet.stop()) == {"north": "stopped", "inner": "stopped"}
        # An identity that is not there is no reason to fail, and an unknown jump host is refused as any other.
        with (ssh / "config").open("a", encoding="utf-8") as config:
            config.write("IdentityFile ~/.ssh/no-such-key\n")
        (ssh / "known_hosts").unlink()
        (report,) = (one for one in fleet_of(loopback, names=["north"], changes=changes).stop() if one.host == "inner")
        assert "not in known_hosts" in report.detail


def test_a_locked_key_is_told(loopback: Hosts) -> None:
    for path in loopback.key.parent.glob("id_ed25519*"):
        path.unlink()
    make_key(loopback.key, passphrase="the sea")
    (report,) = fleet_of(loopback, names=["north"]).start()
    assert report.detail.startswith("the private key for ")
    assert "ssh-add" in report.remedy


def test_an_agent_with_more_keys_than_a_host_has_patience_for_is_told(loopback: Hosts) -> None:
    for path in loopback.key.parent.glob("id_ed25519*"):
        path.rename(loopback.shared / path.name)
    with agent(loopback.shared / "agent") as environment, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        for number in range(8):
            make_key(loopback.shared / f"key{number}")
            subprocess.run(["ssh-add", "-q", loopback.shared / f"key{number}"], env=environment, check=True, timeout=20)
        (report,) = fleet_of(loopback, names=["north"]).start()
        assert report.detail.startswith("no key was accepted for ")
        assert "'key'" in report.remedy
        key = str(loopback.shared / "id_ed25519")
        assert happened(fleet_of(loopback, names=["north"], key=key).stop()) == {"north": "not running"}


@contextmanager
def agent(socket: Path) -> Iterator[dict[str, str]]:
    """A key agent of our own."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        until(socket.exists, "the agent listens")
        try:
            yield os.environ | {"SSH_AUTH_SOCK": str(socket)}
        finally:
            process.terminate()


# --- hosts with addresses of their own


def test_a_host_that_is_cut_off_holds_up_nobody(namespaced: NamespacedHosts) -> None:
    lost = namespaced.names[1]
    fleet = fleet_of(namespaced, connect_timeout=2.0, insecure=True)
    namespaced.cut(lost)
    with bounded(60.0):
        assert happened(fleet.start()) == dict.fromkeys(namespaced.names, "started") | {lost: "failed"}
    assert terms(namespaced, namespaced.names[0])["arguments"][-1] == namespaced.address(namespaced.names[0])
    namespaced.heal(lost)
    with bounded(60.0):
        assert happened(fleet.start()) == dict.fromkeys(namespaced.names, "already running") | {lost: "started"}
    namespaced.cut(lost)
    with bounded(60.0):
        reports = by_host(fleet.stop())
    assert {name: report.what for name, report in reports.items()} == dict.fromkeys(namespaced.names, "stopped") | {
        lost: "failed"
    }
    assert reports[lost].detail == "no answer within 2 s"
    namespaced.heal(lost)
    assert by_host(fleet.stop())[lost].what == "stopped"
    assert namespaced.processes() == []


def test_a_host_behind_a_jump_host_and_cut_off_is_given_up_in_time(namespaced: NamespacedHosts) -> None:
    jump, lost, _ = namespaced.names
    with (namespaced.home / ".ssh" / "config").open("a", encoding="utf-8") as config:
        config.write(f"Host {lost}\n  ProxyJump {jump}\n")
    fleet = fleet_of(namespaced, names=[lost], connect_timeout=1.0)
    assert happened(fleet.stop()) == {lost: "not running"}
    namespaced.cut(lost)
    with bounded(30.0):
        (report,) = fleet.stop()
    assert report.detail == "no answer within 1 s"


def test_a_command_is_given_up_in_time_when_its_host_is_cut_off(namespaced: NamespacedHosts) -> None:
    campaign = campaign_of(namespaced)
    with RemoteHost(campaign.cluster.hosts[0], campaign.cluster, read_ssh_config()) as remote:
        namespaced.cut(namespaced.names[0])
        with bounded(30.0), pytest.raises(HostError, match=r"no answer within 1 s"):
            remote.run(["sleep", "600"], seconds=1.0)


def test_a_manager_on_loopback_is_refused_where_no_host_could_reach_it(namespaced: NamespacedHosts) -> None:
    reports = by_host(fleet_of(namespaced, listen="127.0.0.1").start())
    assert {report.what for report in reports.values()} == {"failed"}
    assert namespaced.here in reports[namespaced.names[0]].remedy
    assert namespaced.processes() == []


# --- stormtracks hosts


def test_hosts_that_are_not_fit_are_told_with_the_reason(namespaced: NamespacedHosts) -> None:
    first, second, third = namespaced.names
    for folder in ("data", "out", "older"):
        (namespaced.shared / folder).mkdir()
    (namespaced.shared / "data" / "u850.nc").write_bytes(b"wind")
    older = 'import stormtracks\nstormtracks.__version__ = "0.0.9"\nimport time\nnow = time.time\n'
    older += "time.time = lambda: now() - 90.0\n"
    (namespaced.shared / "older" / "sitecustomize.py").write_text(older, encoding="utf-8")
    path = f"{namespaced.shared / 'older'}:{ROOT}"
    changes = {first: {"environment": {"PYTHONPATH": path}}, "absent.invalid": {}}
    campaign = campaign_of(namespaced, changes=changes)
    namespaced.server(second).hide(namespaced.shared / "out")
    namespaced.server(third).hide(namespaced.shared / "data")
    inspections = inspect_hosts(campaign)
    wrong = {one.host: {problem.column: problem for problem in one.problems} for one in inspections}
    assert {host: set(columns) for host, columns in wrong.items()} == {
        first: {"stormtracks", "clock"},
        second: {"results root"},
        third: {"data root"},
        "absent.invalid": {"reached"},
    }
    assert "stormtracks is 0.0.9 there and " in wrong[first]["stormtracks"].what
    assert re.search(r"its clock is (89|90|91) s behind", wrong[first]["clock"].what)
    assert str(campaign.results.root) in wrong[second]["results root"].remedy
    assert str(campaign.data.root) in wrong[third]["data root"].what
    assert list(campaign.results.root.iterdir()) == []

    cells = inspections[1].cells
    assert cells["results root"] == "BAD"
    assert cells["data root"] == "ok"
    assert float(cells["free"].removesuffix(" GiB")) == 0.0
    out = io.StringIO()
    assert not print_inspection(inspections, out)
    lines = out.getvalue().splitlines()
    assert lines[0].split("  ")[0] == "host"
    assert all(column in lines[0] for column in COLUMNS)
    assert lines[4].split() == ["absent.invalid", "no", *["-"] * (len(COLUMNS) - 1)]
    assert sum(line.startswith("  remedy: ") for line in lines) == 5


def test_on_a_terminal_the_table_has_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    assert print_inspection([Inspection("north", dict.fromkeys(COLUMNS, "ok"), [])], out)
    assert "━" in out.getvalue()


def test_data_that_are_not_even_here_are_told(loopback: Hosts) -> None:
    with pytest.raises(ClusterError, match="data root"):
        inspect_hosts(campaign_of(loopback))


# --- installing


def test_a_wheel_is_copied_and_installed_before_the_start(loopback: Hosts) -> None:
    folder = loopback.shared / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    subprocess.run(["chmod", "-R", "a+rwX", folder], check=True, timeout=60)
    # All that stormtracks needs, and pip, as an environment would have it; but not the wheel.
    path = f"{ROOT}:{sysconfig.get_path('purelib')}"
    options = {"python": str(folder / "bin" / "python"), "environment": {"PYTHONPATH": path}, "names": ["north"]}
    fleet = fleet_of(loopback, **options)
    for content in ("1", "2"):
        wheel = make_wheel(
            loopback.shared / "gale_probe-1.0-py3-none-any.whl", {"gale_probe.py": f"level = {content}\n"}
        )
        assert happened(fleet.start(wheel=wheel))["north"] in ("started", "already running")
        (installed,) = folder.glob("lib/python*/site-packages/gale_probe.py")
        assert installed.read_text(encoding="utf-8") == f"level = {content}\n"
    assert {path.suffix for path in loopback.logs.iterdir()} == {".log", ".json"}
    broken = loopback.shared / "gale_broken-1.0-py3-none-any.whl"
    broken.write_bytes(b"no wheel")
    (report,) = fleet.start(wheel=broken)
    assert "gale_broken-1.0-py3-none-any.whl cannot be installed" in report.detail
    with pytest.raises(ClusterError, match="is no wheel"):
        fleet.start(wheel=loopback.shared / "absent.whl")


def make_wheel(path: Path, modules: dict[str, str]) -> Path:
    """A wheel of pure python by hand."""
    name, version = path.name.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    files = modules | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{file},sha256={_digest(text)},{len(text)}" for file, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
