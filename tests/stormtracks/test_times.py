"""Time axes: every calendar, the reckoning of old files, and years."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.times import EPOCH, TimeAxis, decode_times, join, one_calendar, seconds_of

CALENDARS = ["standard", "gregorian", "proleptic_gregorian", "julian", "noleap", "365_day", "all_leap", "360_day"]
CANONICAL = {"gregorian": "standard", "365_day": "noleap"}


def test_old_reanalysis_files_count_hours_in_the_mixed_calendar() -> None:
    times = decode_times([17415870.0], "hours since 1-1-1 00:00:0.0")
    assert times.date(0) == "1987-10-16 06:00:00"
    # The mixed calendar had 2 days more between the year 1 and now than the proleptic one.
    proleptic = decode_times([17415870.0], "hours since 1-1-1 00:00:0.0", "proleptic_gregorian")
    assert proleptic.seconds[0] - times.seconds[0] == 2 * 86400


@given(
    calendar=st.sampled_from(CALENDARS),
    unit=st.sampled_from(["seconds", "minutes", "hours", "days"]),
    since=st.sampled_from(["1-1-1 00:00:0.0", "1582-10-04", "1850-01-01 12:00", "1970-01-01", "2000-02-28 06:00:00"]),
    values=st.lists(st.integers(0, 10**6).map(lambda n: n / 8), min_size=1, max_size=5),
)
def test_decoding_agrees_with_cftime(calendar: str, unit: str, since: str, values: list[float]) -> None:
    units = f"{unit} since {since}"
    dates = cftime.num2date(np.array(values), units.replace("00:00:0.0", "00:00:00"), calendar=calendar)
    exact = np.array([cftime.date2num(date, EPOCH, calendar=calendar) for date in dates], dtype=float)
    assert np.abs(decode_times(values, units, calendar).seconds - exact).max() <= 0.5


@pytest.mark.parametrize("calendar", CALENDARS)
def test_names_of_one_calendar_become_one(calendar: str) -> None:
    modern = decode_times([0.0], "days since 2000-01-01", calendar).calendar
    assert modern == ("standard" if calendar == "proleptic_gregorian" else CANONICAL.get(calendar, calendar))


def test_a_proleptic_axis_before_the_reform_stays_proleptic() -> None:
    assert decode_times([0.0], "days since 1582-10-14", "proleptic_gregorian").calendar == "proleptic_gregorian"
    assert decode_times([0.0], "days since 1582-10-15", "proleptic_gregorian").calendar == "standard"


def test_months_are_whole_in_the_calendar_of_360_days() -> None:
    assert decode_times([13.0], "months since 1850-01-01", "360_day").date(0) == "1851-02-01 00:00:00"


@pytest.mark.parametrize(
    ("units", "calendar", "says"),
    [
        ("hours", "standard", "unit_string"),
        ("fortnights since 2000-01-01", "standard", "units"),
        ("months since 2000-01-01", "standard", "360_day"),
        ("days since yesterday", "standard", "yesterday"),
        ("days since 2001-02-30", "noleap", "day"),
        ("days since 2000-01-01", "lunar", "lunar"),
    ],
)
def test_what_is_no_cf_time_is_refused(units: str, calendar: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_times([0.0], units, calendar)


def test_a_missing_time_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match="value 1 "):
        decode_times([0.0, np.nan, 2.0], "days since 2000-01-01")


@pytest.mark.parametrize("value", [1e12, -1e12, 1e30, -1e308])
def test_a_time_that_has_no_date_is_refused_by_its_place(value: float) -> None:
    with pytest.raises(ValueError, match=f"no date can be given to value 1, {value:g}".replace("+", r"\+")):
        decode_times([0.0, value, 2.0], "days since 2000-01-01")


def test_an_origin_that_has_no_date_is_refused() -> None:
    with pytest.raises(ValueError, match="count from too long ago or too far ahead"):
        decode_times([0.0], "days since 99999999-01-01")


def test_no_times_are_times() -> None:
    assert len(decode_times([], "days since 2000-01-01")) == 0


def test_axes_before_and_after_the_reform_become_proleptic_together() -> None:
    before, after = (
        decode_times([0.0, 1.0], f"days since {year}-01-01", "proleptic_gregorian") for year in (1500, 1600)
    )
    assert (before.calendar, after.calendar) == ("proleptic_gregorian", "standard")
    both = one_calendar([after, before])
    assert [axis.calendar for axis in both] == ["proleptic_gregorian", "proleptic_gregorian"]
    assert [axis.date(1) for axis in both] == ["1600-01-02 00:00:00", "1500-01-02 00:00:00"]


@pytest.mark.parametrize("calendar", ["standard", "julian", "noleap"])
def test_axes_whose_days_do_not_correspond_keep_their_calendars(calendar: str) -> None:
    proleptic = decode_times([0.0], "days since 1500-01-01", "proleptic_gregorian")
    other = decode_times([0.0], "days since 1501-01-01", calendar)
    assert [axis.calendar for axis in one_calendar([proleptic, other])] == ["proleptic_gregorian", calendar]


@given(calendar=st.sampled_from(CALENDARS), days=st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=20))
def test_years_are_those_of_the_dates(calendar: str, days: list[int]) -> None:
    times = TimeAxis(np.array(days) * 86400 + 43200, CANONICAL.get(calendar, calendar))
    assert times.years().tolist() == [date.year for date in times.dates()]


@given(
    calendar=st.sampled_from(CALENDARS),
    hours=st.lists(st.integers(-200_000 * 24, 200_000 * 24) | st.integers(-3_394_000, -3_392_000), max_size=20),
)
def test_days_are_those_of_the_dates(calendar: str, hours: list[int]) -> None:
    times = TimeAxis(np.array(hours, dtype=np.int64) * 3600, calendar)
    days, day_of = times.days()
    assert len(set(days)) == len(days)
    dates = times.dates()
    assert [days[index] for index in day_of] == [date.replace(hour=0) for date in dates]


def test_an_empty_axis_has_no_years() -> None:
    assert TimeAxis(np.empty(0, dtype=np.int64)).years().tolist() == []


@pytest.mark.parametrize(("calendar", "days"), [("standard", 366), ("noleap", 365), ("360_day", 360)])
def test_the_steps_of_a_year_are_cut_out_whole(calendar: str, days: int) -> None:
    times = decode_times(6.0 * np.arange(-10, 4 * 400), "hours since 2000-01-01", calendar)
    cut = times.year_slice(2000)
    assert (cut.start, cut.stop) == (10, 10 + 4 * days)
    assert set(times[cut].years().tolist()) == {2000}
    assert times.year_slice(1990) == slice(0, 0)


def test_axes_join_end_to_end() -> None:
    times = decode_times(np.arange(10.0), "days since 2000-01-01", "360_day")
    joined = join([times[:4], times[4:]])
    assert joined.calendar == "360_day"
    assert joined.seconds.tolist() == times.seconds.tolist()
    assert seconds_of("360_day", 2000, 1, 10) == joined.seconds[-1]
