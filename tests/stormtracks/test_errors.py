"""Errors say whether trying again is in vain, and arrive elsewhere as they were raised."""

from __future__ import annotations

import copy
import errno

import pytest

from stormtracks.errors import InputError, ResultNotFoundError, ResultsError, StormtracksError, will_stay


@pytest.mark.parametrize(
    ("kind", "permanent"),
    [(StormtracksError, False), (InputError, True), (ResultsError, False), (ResultNotFoundError, False)],
)
@pytest.mark.parametrize("given", [None, True, False])
def test_an_error_arrives_as_it_was_raised(kind: type[StormtracksError], permanent: bool, given: bool | None) -> None:
    error = copy.copy(kind("u.nc is cut short", remedy="fetch it again", permanent=given))
    assert type(error) is kind
    assert (error.what, error.remedy) == ("u.nc is cut short", "fetch it again")
    assert error.permanent == (permanent if given is None else given)
    assert str(error) == "u.nc is cut short\n  remedy: fetch it again"


def test_an_error_without_remedy() -> None:
    assert str(StormtracksError("no")) == "no"


@pytest.mark.parametrize(
    ("code", "stays"), [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False), (errno.EIO, False)]
)
def test_what_the_system_says_may_stay(code: int, stays: bool) -> None:
    assert will_stay(OSError(code, "")) == stays
    assert not will_stay(OSError("without a number"))
