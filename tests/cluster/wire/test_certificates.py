"""A campaign's certificates: made once, for all names of a machine, read by their owner alone, and never too old."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from stormtracks.cluster.errors import CertificateError
from stormtracks.cluster.wire import certificates
from stormtracks.cluster.wire.certificates import host_certificate, make_certificates
from stormtracks.cluster.wire.credentials import credentials_for, credentials_in, wants_certificates
from stormtracks.cluster.wire.transport import use_credentials
from stormtracks.errors import ResultsError
from stormtracks.settings.campaign import CampaignSettings
from tests.cluster.cluster_parts import ROOT

HOSTS: list[dict[str, Any]] = [{"name": "storm1", "address": "10.77.0.2"}, {"name": "storm2"}]


@pytest.fixture(autouse=True)
def no_ssh_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "certs"
    use_credentials(None)


def campaign_in(folder: Path, **cluster: Any) -> CampaignSettings:
    values = {"listen": "10.77.0.1", "hosts": HOSTS, "certificates": folder} | cluster
    return CampaignSettings.model_validate({"name": "gale", "cluster": values})


def serial_of(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def serials_in(folder: Path) -> dict[str, int]:
    return {path.name: serial_of(path) for path in folder.iterdir()}


# --- making


def test_they_are_made_once_and_stay(folder: Path) -> None:
    lines = make_certificates(campaign_in(folder))
    assert [line.partition(":")[0] for line in lines] == ["authority", "manager", "storm1", "storm2"]
    assert all(": made, valid until " in line for line in lines)
    assert {"authority.crt", "authority.pem", "manager.pem", "host.storm1.pem", "host.storm2.pem"} == {
        path.name for path in folder.iterdir()
    }
    before = serials_in(folder)
    assert not any(": made" in line for line in make_certificates(campaign_in(folder)))
    assert serials_in(folder) == before


def test_each_is_for_all_the_names_of_its_machine(folder: Path) -> None:
    with (folder.parent / "config").open("w", encoding="utf-8") as config:
        config.write("Host storm2\n  HostName 127.0.0.9\n")
    (folder.parent / ".ssh").mkdir()
    (folder.parent / "config").rename(folder.parent / ".ssh" / "config")
    campaign = campaign_in(folder, nameserver="names.example:9090")
    make_certificates(campaign)
    assert host_certificate(campaign, "storm1").names >= {"storm1", "10.77.0.2"}
    assert host_certificate(campaign, "storm2").names == {"storm2", "127.0.0.9"}
    found = credentials_for(campaign)
    assert found is not None
    assert found.names == {"10.77.0.1", "names.example", "localhost", "127.0.0.1", socket.gethostname().lower()}
    assert found.cover("Names.Example")
    assert not found.cover("10.77.0.2")


def test_a_certificate_for_other_names_is_made_again(folder: Path) -> None:
    make_certificates(campaign_in(folder))
    before = serials_in(folder)
    lines = make_certificates(campaign_in(folder, listen="10.77.0.9"))
    assert [": made" in line for line in lines] == [False, True, False, False]
    assert {name for name, serial in serials_in(folder).items() if serial != before[name]} == {"manager.pem"}
    # An address that only the host knew stays.
    campaign = campaign_in(folder)
    assert "10.9.9.9" in host_certificate(campaign, "storm2", also="10.9.9.9").names
    make_certificates(campaign)
    assert "10.9.9.9" in host_certificate(campaign, "storm2").names


def test_all_but_the_authority_can_be_renewed(folder: Path) -> None:
    campaign = campaign_in(folder)
    make_certificates(campaign)
    before = serials_in(folder)
    assert [": made" in line for line in make_certificates(campaign, renew=True)] == [False, True, True, True]
    after = serials_in(folder)
    assert {name for name in before if before[name] == after[name]} == {"authority.crt", "authority.pem"}
    assert credentials_for(campaign) is not None


def test_they_last_a_year_and_the_authority_ten(folder: Path) -> None:
    make_certificates(campaign_in(folder))
    now = datetime.now(UTC)
    for name, days in (("manager.pem", 365), ("host.storm1.pem", 365), ("authority.crt", 3650)):
        certificate = x509.load_pem_x509_certificate((folder / name).read_bytes())
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=days)) < timedelta(minutes=5)
        assert certificate.not_valid_before_utc < now


def test_openssl_finds_them_in_order(folder: Path) -> None:
    make_certificates(campaign_in(folder))
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder / "authority.crt")]
        subprocess.run([*command, str(folder / "manager.pem")], check=True, capture_output=True, timeout=20)


def test_keys_are_for_their_owner_alone_from_the_first_byte_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def watched(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    umask = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", watched)
            make_certificates(campaign_in(folder))
    finally:
        os.umask(umask)
    kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert kept.pop("authority.crt") == 0o666
    assert set(kept.values()) == {0o600}
    assert modes.count(0o600) == 4
    assert b"PRIVATE" not in (folder / "authority.crt").read_bytes()


def test_what_goes_to_a_host_holds_no_key_but_its_own(folder: Path) -> None:
    campaign = campaign_in(folder)
    make_certificates(campaign)
    files = host_certificate(campaign, "storm1").files
    assert sorted(files) == ["authority.crt", "worker.pem"]
    assert files["worker.pem"] == (folder / "host.storm1.pem").read_bytes()
    assert b"PRIVATE" not in files["authority.crt"]
    there = folder.parent / "there"
    there.mkdir()
    for name, content in files.items():
        (there / name).write_bytes(content)
        (there / name).chmod(0o600)
    assert credentials_in(there).names >= {"storm1"}


def test_of_two_who_make_them_at_the_same_time_one_makes_the_authority(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.cluster.wire.test_certificates import campaign_in;"
        "from stormtracks.cluster.wire.certificates import make_certificates;"
        "make_certificates(campaign_in(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: subprocess.run(command, env=environment, timeout=60), range(2)))
    assert [one.returncode for one in done] == [0] * 2
    assert serial_of(folder / "authority.crt") == serial_of(folder / "authority.pem")
    assert credentials_for(campaign_in(folder)) is not None
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="file"):
        make_certificates(campaign_in(tmp_path / "file" / "certs"))


# --- who needs them


@pytest.mark.parametrize(
    ("cluster", "wanted"),
    [
        ({}, True),
        ({"insecure": True}, False),
        ({"listen": "127.0.0.1", "hosts": []}, False),
        ({"listen": "127.0.0.1"}, True),  # a host listens beyond
        ({"listen": "127.0.0.1", "hosts": [{"name": "storm2"}]}, False),
        ({"listen": "127.0.0.1", "hosts": [], "nameserver": "10.77.0.1:9090"}, True),
        ({"listen": "10.77.0.1", "hosts": [], "nameserver": "localhost:9090"}, False),
        ({"listen": "0.0.0.0", "hosts": []}, True),
    ],
)
def test_whatever_listens_beyond_this_machine_needs_them(folder: Path, cluster: dict[str, Any], wanted: bool) -> None:
    campaign = campaign_in(folder, **cluster)
    assert wants_certificates(campaign) is wanted
    if wanted:
        with pytest.raises(CertificateError, match="there is no certificate") as caught:
            credentials_for(campaign)
        assert "stormtracks certs" in caught.value.remedy
    else:
        assert credentials_for(campaign) is None


# --- those that cannot be used


def test_what_has_ended_is_refused_with_the_date_and_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = campaign_in(folder)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_LASTS", timedelta(seconds=-5))
        make_certificates(campaign)
    with pytest.raises(CertificateError, match=rf"manager.pem has ended on {datetime.now(UTC):%Y-%m-%d}") as caught:
        credentials_for(campaign)
    assert "stormtracks certs CAMPAIGN.toml --renew" in caught.value.remedy
    make_certificates(campaign)
    found = credentials_for(campaign)
    assert found is not None
    found.check_age()
    with pytest.raises(CertificateError, match="has ended"):
        found.check_age(datetime.now(UTC) + timedelta(days=366))


def test_what_has_not_begun_is_refused_with_both_dates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this machine, or of the one where they were made, is days off."""
    campaign = campaign_in(folder)
    monkeypatch.setattr(certificates, "_BEFORE", timedelta(days=-2))
    make_certificates(campaign)
    now = datetime.now(UTC)
    says = rf"manager.pem begins on {now + timedelta(days=2):%Y-%m-%d} .+, and here it is {now:%Y-%m-%d} "
    with pytest.raises(CertificateError, match=says) as caught:
        credentials_for(campaign)
    assert "clock" in caught.value.remedy


def test_a_name_that_no_certificate_can_hold_is_told(folder: Path) -> None:
    with pytest.raises(CertificateError, match=r"'bö\.example' cannot stand in a certificate") as caught:
        make_certificates(campaign_in(folder, listen="bö.example"))
    assert "plain ASCII" in caught.value.remedy


def test_what_ends_soon_is_told_and_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = campaign_in(folder)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_LASTS", timedelta(days=29))
        make_certificates(campaign)
    credentials_for(campaign)
    assert re.search(r"manager\.pem ends soon, on \d{4}-\d\d-\d\d .*; renew it with", caplog.text)
    assert ": made" in make_certificates(campaign)[1]
    caplog.clear()
    credentials_for(campaign)
    assert caplog.text == ""


def test_an_authority_that_ends_is_told_and_takes_all_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = campaign_in(folder)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_AUTHORITY_LASTS", timedelta(days=20))
        lines = make_certificates(campaign)
    assert "ends before long" in lines[0]
    before = serials_in(folder)
    assert not any(": made" in line for line in make_certificates(campaign)[1:]), "it would not help"
    assert serials_in(folder) == before
    credentials_for(campaign)
    assert "its authority ends with it" in caplog.text

    for path in folder.iterdir():
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_AUTHORITY_LASTS", timedelta(seconds=-5))
        with pytest.raises(CertificateError, match=r"the authority .*authority.pem has ended on") as caught:
            make_certificates(campaign)
    assert "delete" in caught.value.remedy


def test_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    campaign, other = campaign_in(folder), campaign_in(tmp_path / "other")
    make_certificates(campaign)
    make_certificates(other)
    (folder / "manager.pem").write_bytes((tmp_path / "other" / "manager.pem").read_bytes())
    with pytest.raises(CertificateError, match="is not from the authority"):
        credentials_for(campaign)
    assert [": made" in line for line in make_certificates(campaign)] == [False, True, False, False]
    assert credentials_for(campaign) is not None


def test_a_key_that_others_may_read_is_refused(folder: Path) -> None:
    campaign = campaign_in(folder)
    make_certificates(campaign)
    for mode in (0o640, 0o604, 0o620):
        (folder / "manager.pem").chmod(mode)
        with pytest.raises(CertificateError, match="may be read or changed by others") as caught:
            credentials_for(campaign)
        assert "chmod 600" in caught.value.remedy
    (folder / "manager.pem").chmod(0o600)
    assert credentials_for(campaign) is not None


def test_what_is_damaged_is_told(folder: Path) -> None:
    campaign = campaign_in(folder)
    make_certificates(campaign)
    whole = (folder / "manager.pem").read_bytes()
    other = (folder / "host.storm1.pem").read_bytes()
    split = whole.index(b"-----BEGIN PRIVATE")
    damages = {
        "cannot be read": [b"", whole[:100], b"\xff" * 500, whole[:split], whole[: split + 60]],
        "is not that of its certificate": [whole[:split] + other[other.index(b"-----BEGIN PRIVATE") :]],
    }
    for said, contents in damages.items():
        for content in contents:
            (folder / "manager.pem").write_bytes(content)
            with pytest.raises(CertificateError, match=said):
                credentials_for(campaign)
    assert ": made" in make_certificates(campaign)[1]
    (folder / "authority.pem").rename(folder / "elsewhere")
    with pytest.raises(CertificateError, match=r"authority\.crt is there, but not its key") as caught:
        make_certificates(campaign)
    assert "bring that back" in caught.value.remedy
    (folder / "authority.pem").write_bytes(b"nonsense")
    with pytest.raises(CertificateError, match=r"authority\.pem cannot be read") as caught:
        make_certificates(campaign)
    anew = f"end all workers, delete {folder}, and make them"
    assert anew in caught.value.remedy
    (folder / "authority.pem").write_bytes((folder / "elsewhere").read_bytes())
    (folder / "authority.pem").chmod(0o644)
    with pytest.raises(CertificateError, match=r"may be read or changed by others") as caught:
        make_certificates(campaign)
    assert caught.value.remedy.startswith(f"chmod 600 {folder / 'authority.pem'}; ")
    assert anew in caught.value.remedy
