"""Digests of input files: what they tell, when they are computed anew, and that nobody disturbs anybody."""

from __future__ import annotations

import errno
import hashlib
import logging
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stormtracks.errors import InputError
from stormtracks.inputs import Stamp, input_digest, opening, stamp_of, unchanged
from tests.stormtracks.system_faults import fail_calls, in_child, named, needs_failing_calls

LONG_AGO = 10**18  # ns


def write(path: Path, content: bytes, *, mtime_ns: int = LONG_AGO) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "2001").mkdir(parents=True)
    write(root / "2001" / "u.nc", b"the wind")
    write(root / "v.nc", b"another wind")
    return root


def digest_of(root: Path, *names: str, kept_in: Path) -> str:
    return input_digest(root, {name: stamp_of(root / name) for name in names}, kept_in=kept_in)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class TestDigest:
    def test_is_the_sha256_of_names_and_contents(self, data: Path, tmp_path: Path) -> None:
        lines = [(b"2001/u.nc", b"the wind"), (b"v.nc", b"another wind")]
        text = b"".join(b"%s\0%s\n" % (name, hashlib.sha256(it).hexdigest().encode()) for name, it in lines)
        expected = hashlib.sha256(text).hexdigest()
        assert digest_of(data, "v.nc", "2001/u.nc", kept_in=tmp_path / "a") == expected
        assert digest_of(data, "2001/u.nc", "v.nc", kept_in=tmp_path / "a") == expected
        assert len(kept(tmp_path / "a")) == 2

    def test_a_changed_file_has_another_one(self, data: Path, tmp_path: Path) -> None:
        before = digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        write(data / "v.nc", b"ANOTHER WIND", mtime_ns=LONG_AGO + 1)
        assert digest_of(data, "v.nc", kept_in=tmp_path / "kept") != before

    def test_a_file_just_written_may_change_again_within_the_tick_of_a_clock(self, data: Path, tmp_path: Path) -> None:
        now = time.time_ns()
        write(data / "v.nc", b"aaaa", mtime_ns=now)
        before = digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        assert kept(tmp_path / "kept") == []
        write(data / "v.nc", b"bbbb", mtime_ns=now)
        assert digest_of(data, "v.nc", kept_in=tmp_path / "kept") != before

    def test_copies_elsewhere_are_known_by_themselves(self, data: Path, tmp_path: Path) -> None:
        shutil.copytree(data, tmp_path / "copy")
        write(tmp_path / "copy" / "v.nc", b"other winds!")
        assert digest_of(data, "v.nc", kept_in=tmp_path / "kept") != digest_of(
            tmp_path / "copy", "v.nc", kept_in=tmp_path / "kept"
        )

    def test_a_name_of_any_bytes(self, data: Path, tmp_path: Path) -> None:
        name = os.fsdecode(b"\xff\n" + b"x" * 250)
        write(data / name, b"strange")
        expected = digest_of(data, name, kept_in=tmp_path / "kept")
        write(data / name, b"changed", mtime_ns=LONG_AGO)  # as long as it was: what is kept is found again
        assert digest_of(data, name, kept_in=tmp_path / "kept") == expected


class TestKept:
    def test_no_damage_is_ever_believed(self, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        expected = digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        (record,) = kept(tmp_path / "kept")
        content = record.read_bytes()
        place = record.relative_to(tmp_path / "kept")
        damages: list[bytes] = [b"", b"[]", b"{}", b"null", content[:-1], content + b" ", b"\xff" * 10]
        damages += [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
        for number, damage in enumerate(damages):
            copy = tmp_path / str(number) / place
            copy.parent.mkdir(parents=True)
            copy.write_bytes(damage)
            assert digest_of(data, "v.nc", kept_in=tmp_path / str(number)) == expected
            assert copy.read_bytes() == content
        assert sum("is damaged" in message for message in caplog.messages) == len(damages)

    def test_a_record_of_another_file_is_not_believed(self, data: Path, tmp_path: Path) -> None:
        digest_of(data, "2001/u.nc", kept_in=tmp_path / "of u")
        expected = digest_of(data, "v.nc", kept_in=tmp_path / "of v")
        (foreign,), (own,) = kept(tmp_path / "of u"), kept(tmp_path / "of v")
        copy = tmp_path / "mixed" / own.relative_to(tmp_path / "of v")
        copy.parent.mkdir(parents=True)
        shutil.copy(foreign, copy)
        assert digest_of(data, "v.nc", kept_in=tmp_path / "mixed") == expected

    def test_where_nothing_can_be_kept_it_is_computed_each_time(
        self, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        (tmp_path / "file").write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            assert digest_of(data, "v.nc", kept_in=tmp_path / "file") == expected
        assert "is not kept: cannot make the folder" in caplog.text

    def test_many_at_the_same_time(self, tmp_path: Path) -> None:
        names = [f"{number}.nc" for number in range(20)]
        for name in names:
            write(tmp_path / name, name.encode() * 100_000)
        context = multiprocessing.get_context("fork")
        start, answers = context.Barrier(6), context.Queue()

        def work() -> None:
            start.wait(30)
            answers.put(digest_of(tmp_path, *names, kept_in=tmp_path / "kept"))

        processes = [context.Process(target=work) for _ in range(6)]
        for process in processes:
            process.start()
        found = {answers.get(timeout=60) for _ in processes}
        for process in processes:
            process.join()
        assert found == {digest_of(tmp_path, *names, kept_in=tmp_path / "alone")}
        assert [path.relative_to(tmp_path / "kept") for path in kept(tmp_path / "kept")] == [
            path.relative_to(tmp_path / "alone") for path in kept(tmp_path / "alone")
        ]


class TestChange:
    def test_a_file_that_changes_while_it_is_hashed(self, tmp_path: Path) -> None:
        path = tmp_path / "large.nc"
        with path.open("wb") as file:
            file.truncate(2**28)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
        appended = threading.Thread(target=append_when_open, args=(path,))
        appended.start()
        with pytest.raises(
            InputError, match=r"has changed while it was read: it had 268435456 bytes of 2001"
        ) as caught:
            digest_of(tmp_path, "large.nc", kept_in=tmp_path / "kept")
        appended.join()
        assert not caught.value.permanent and "download" in caught.value.remedy
        assert kept(tmp_path / "kept") == []

    def test_a_file_that_has_changed_since_it_was_read(self, data: Path, tmp_path: Path) -> None:
        stamp = stamp_of(data / "v.nc")
        digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        write(data / "v.nc", b"another wind", mtime_ns=LONG_AGO + 1)
        with pytest.raises(InputError, match="has changed"):
            input_digest(data, {"v.nc": stamp}, kept_in=tmp_path / "kept")

    def test_a_file_that_is_removed_may_come_back(self, data: Path) -> None:
        with (
            pytest.raises(InputError, match=r"v\.nc was removed while") as caught,
            unchanged(data / "v.nc", stamp_of(data / "v.nc")),
        ):
            (data / "v.nc").unlink()
        assert not caught.value.permanent

    def test_what_went_wrong_meanwhile_is_the_change_or_else_itself(self, data: Path) -> None:
        with pytest.raises(ZeroDivisionError), unchanged(data / "v.nc", stamp_of(data / "v.nc")):
            raise ZeroDivisionError
        with pytest.raises(InputError, match="has changed") as caught, unchanged(data / "v.nc", Stamp(1, 1)):
            raise ZeroDivisionError
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def append_when_open(path: Path) -> None:
    """Append to a file as soon as this process reads it."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                found = descriptor.readlink()
            except FileNotFoundError:
                continue
            if found == path:
                with path.open("ab") as file:
                    file.write(b"more")
                return


@needs_failing_calls
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT], ids=named)
def test_a_fault_of_the_disk_may_pass(data: Path, tmp_path: Path, code: int) -> None:
    def refused() -> None:
        with pytest.raises(InputError) as caught:
            digest_of(data, "v.nc", kept_in=tmp_path / "kept")
        assert str(data / "v.nc") in caught.value.what and os.strerror(code) in caught.value.what
        assert caught.value.remedy and not caught.value.permanent

    assert in_child(refused, prepare=lambda: fail_calls(("read", "pread64"), code)) == 0


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
    ids=["absent", "folder", "circle"],
)
def test_what_is_no_file_stays_none(tmp_path: Path, make: Callable[[Path], None], what: str) -> None:
    path = tmp_path / "x.nc"
    make(path)
    with pytest.raises(InputError, match=what) as caught, opening(path):
        path.read_bytes()
    assert caught.value.permanent and caught.value.remedy and str(path) in caught.value.what
