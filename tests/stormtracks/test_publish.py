"""Publishing under faults: what the disk says, who may still stop it, and what a kill leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stormtracks.errors import ResultsError, StormtracksError
from stormtracks.publish import is_temporary, publish, remove_temporaries, storage_error
from tests.stormtracks.system_faults import fail_calls, in_child, kill_after_rename, named, needs_failing_calls

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
STAYING = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def attempt(path: Path) -> ResultsError:
    """Publish and fail; the error, complete with path and remedy."""
    with pytest.raises(ResultsError) as caught:
        publish(path, b"new")
    assert str(path) in caught.value.what
    assert caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)
    assert os.strerror(caught.value.__cause__.errno or 0) in caught.value.what
    return caught.value


class TestFaults:
    @needs_failing_calls
    @pytest.mark.parametrize("code", [*PASSING, errno.EROFS, errno.EPERM], ids=named)
    @pytest.mark.parametrize("call", ["write", "fsync", "rename"])
    def test_whatever_the_kernel_says_and_whenever_nothing_is_left_behind(
        self, tmp_path: Path, call: str, code: int
    ) -> None:
        (tmp_path / "a").write_bytes(b"old")

        def refused() -> None:
            error = attempt(tmp_path / "a")
            assert (error.__cause__.errno, error.permanent) == (code, code in STAYING)  # type: ignore[union-attr]

        assert in_child(refused, prepare=lambda: fail_calls((call,), code)) == 0
        assert files_in(tmp_path) == {"a": b"old"}

    @pytest.mark.parametrize("code", [*PASSING, *STAYING], ids=named)
    def test_what_may_pass_is_told_from_what_will_stay(self, code: int) -> None:
        error = storage_error("write", Path("a"), OSError(code, os.strerror(code)))
        assert error.permanent == (code in STAYING)
        assert error.what == f"cannot write a: {os.strerror(code)}"

    def test_a_full_disk_may_be_mended(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "-t", "tmpfs", "-o", "size=16k", "none") as disk:
            (disk / "filler").write_bytes(b"x" * 12_000)
            with pytest.raises(ResultsError, match=r"cannot write .*a: No space left") as caught:
                publish(disk / "a", b"x" * 8_000)
            assert not caught.value.permanent
            (disk / "filler").unlink()
            publish(disk / "a", b"x" * 8_000)
            assert [path.name for path in disk.iterdir()] == ["a"]

    def test_a_read_only_disk_stays_so(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source/a").write_bytes(b"old")
        with mounted(tmp_path, "--bind", tmp_path / "source") as disk:
            subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
            error = attempt(disk / "a")
            assert error.permanent and "read-only" in error.remedy
        assert files_in(tmp_path / "source") == {"a": b"old"}

    @pytest.mark.parametrize("mode", [0o500, 0o000])
    def test_a_forbidden_folder_stays_so(self, tmp_path: Path, mode: int) -> None:
        def refused() -> None:
            assert attempt(tmp_path / "a").permanent

        tmp_path.chmod(mode)
        nobody = 65534
        assert in_child(refused, prepare=lambda: os.seteuid(nobody) if os.geteuid() == 0 else None) == 0
        tmp_path.chmod(0o700)
        assert files_in(tmp_path) == {}

    def test_a_place_that_can_be_none_stays_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "folder").mkdir()
        (tmp_path / "circle").symlink_to("circle")
        for path in (tmp_path / "file" / "a", tmp_path / "folder", tmp_path / "circle", tmp_path / ("x" * 300)):
            assert attempt(path).permanent


@contextmanager
def mounted(folder: Path, *options: str | Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", *options, disk], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


class TestCheck:
    @pytest.mark.parametrize("raised", [StormtracksError("lost"), OSError(errno.EPIPE, "gone"), KeyboardInterrupt()])
    def test_what_a_check_raises_stops_it_and_comes_out_as_it_is(self, tmp_path: Path, raised: BaseException) -> None:
        (tmp_path / "a").write_bytes(b"old")

        def refuse(written: Path) -> None:
            assert is_temporary(written.name)
            assert files_in(tmp_path) == {"a": b"old", written.name: b"new"}
            raise raised

        with pytest.raises(type(raised)) as caught:
            publish(tmp_path / "a", b"new", check=refuse)
        assert caught.value is raised
        assert files_in(tmp_path) == {"a": b"old"}

    def test_it_is_asked_last_of_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[str] = []
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, watched(calls, name, getattr(os, name)))
        publish(tmp_path / "a", b"new", check=lambda written: calls.append("check"))
        assert calls == ["fsync", "check", "replace", "fsync"]


def watched(calls: list[str], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return original(*arguments, **options)

    return call


def test_a_kill_before_the_move_leaves_the_old_file_and_one_after_it_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def before() -> None:
        publish(tmp_path / "a", b"new", check=lambda written: os.kill(os.getpid(), signal.SIGKILL))

    assert os.WTERMSIG(in_child(before)) == signal.SIGKILL
    left = [name for name in files_in(tmp_path) if is_temporary(name)]
    assert len(left) == 1 and files_in(tmp_path) == {"a": b"old", left[0]: b"new"}
    assert [path.name for path in remove_temporaries(tmp_path, older_than=3600)] == left

    status = in_child(lambda: publish(tmp_path / "a", b"new"), prepare=lambda: kill_after_rename(tmp_path))
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert files_in(tmp_path) == {"a": b"new"}
