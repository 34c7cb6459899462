"""The settings of a campaign: every value typed, described and checked; unknown names are refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "CampaignSettings",
    "ClusterSettings",
    "DataSettings",
    "DetectionSettings",
    "HostSettings",
    "ResultsSettings",
    "RunSettings",
    "Season",
    "TrackingSettings",
    "first_years",
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


_SEASONS = {
    "year": ("01-01", "01-01"),
    "DJF": ("12-01", "03-01"),
    "MAM": ("03-01", "06-01"),
    "JJA": ("06-01", "09-01"),
    "SON": ("09-01", "12-01"),
}


class Season(_Model):
    """The part of the year in which a track must start to be kept; it then is kept whole."""

    start: str = Field(default="01-01", description="first day, MM-DD")
    end: str = Field(default="01-01", description="day after the last, MM-DD; the same as start means the whole year")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in _SEASONS:
                raise ValueError(
                    f"season {value!r} is not one of {', '.join(_SEASONS)}, nor a table such as "
                    '{ start = "06-01", end = "12-01" }'
                )
            start, end = _SEASONS[value]
            return {"start": start, "end": end}
        return value

    @field_validator("start", "end")
    @classmethod
    def _day(cls, value: str) -> str:
        month_day(value)
        return value

    @property
    def over_new_year(self) -> bool:
        """Whether the season runs from one calendar year into the next."""
        return month_day(self.end) <= month_day(self.start) and month_day(self.end) != (1, 1)

    def year_of(self, year: int, month: int, day: int) -> int | None:
        """The year whose season holds this day: the one in which the season starts; None outside the season."""
        start, end, today = month_day(self.start), month_day(self.end), (month, day)
        if self.over_new_year:
            return year if today >= start else year - 1 if today < end else None
        return year if today >= start and (today < end or end == (1, 1)) else None


@lru_cache(maxsize=64)  # asked for every time step
def month_day(text: str) -> tuple[int, int]:
    """``"06-01"`` as (6, 1)."""
    match = re.fullmatch(r"([0-9]{2})-([0-9]{2})", text)
    if not match or not _is_day(int(match[1]), int(match[2])):
        raise ValueError(f"{text!r} is not a day of the year as MM-DD, such as 06-01")
    return int(match[1]), int(match[2])


def _is_day(month: int, day: int) -> bool:
    """Whether a month has such a day in some calendar: 30 February is one of the calendar of 360 days."""
    return 1 <= month <= 12 and 1 <= day <= (30 if month in (2, 4, 6, 9, 11) else 31)


def parse_numbers(value: Any) -> tuple[int, ...]:
    """Whole numbers from ``2000``, ``"2000-2012"``, ``"1-10,15"`` or a list of these; sorted, each once."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    numbers: set[int] = set()
    for part in parts:
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(part))
        if not match:
            raise ValueError(f"{part!r} is neither a whole number nor a range such as 2000-2012")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part!r} runs backwards")
        if last - first > 100_000:
            raise ValueError(f"the range {part!r} is longer than any archive")
        numbers.update(range(first, last + 1))
    if not numbers:
        raise ValueError("an empty list: give at least one number")
    return tuple(sorted(numbers))


def _parse_years(value: Any) -> Any:
    return value if value == "all" else parse_numbers(value)


def _parse_members(value: Any) -> Any:
    # A bare whole number is a count; a range or a list names members as the data number them.
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if value == "all":
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        # Said here: a choice of types reports what is wrong once for each.
        if value < 1:
            raise ValueError(f"{value} members are none: at least 1 is needed")
        return value
    return parse_numbers(value)


Years = Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_parse_years)]
Members = Annotated[Literal["all"] | int | tuple[int, ...], BeforeValidator(_parse_members)]


def _whole_number(value: Any) -> Any:
    # Environment variables are texts, which a choice of numbers does not take.
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def _number_or_word(value: Any) -> Any:
    # Said here: a choice of types reports what is wrong once for each.
    if value in ("auto", "none"):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError("neither a finite number, nor auto, nor none")
    return number


def _bundle_size(value: Any) -> Any:
    value = _whole_number(value)
    # Said here: a choice of types reports what is wrong once for each.
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError("neither a whole number of at least 1, nor auto")
    return value


def _split_at_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class DataSettings(_Model):
    """Where the fields are and how they are laid out."""

    layout: Literal["c20", "c20v3", "cf"] = Field(default="c20", description="layout of the archive: c20, c20v3 or cf")
    root: Path = Field(
        default=Path("data"), description="folder of the archive; a relative one starts at the campaign file"
    )
    pattern: str = Field(default="*.nc", description="cf only: names of the files below root, as a glob")
    variable: str | None = Field(default=None, description="variable to follow, by its name in the file")
    wind: Annotated[tuple[str, str] | None, BeforeValidator(_split_at_commas)] = Field(
        default=None, description="eastward and northward wind whose vorticity is followed; default u850, v850"
    )
    level: float | None = Field(
        default=None, gt=0, description="pressure level in hPa, for variables with a level axis"
    )
    gaps: Literal["error", "cut"] = Field(
        default="error", description="a gap in time inside a file: error, or cut the tracks"
    )
    missing: Literal["error", "mask"] = Field(default="error", description="missing values: error, or mask the points")
    breaks: Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(), description="days (YYYY-MM-DD) on which a stream starts afresh: tracks are cut"
    )

    @model_validator(mode="after")
    def _one_field(self) -> DataSettings:
        if self.variable is not None and self.wind is not None:
            raise ValueError("give either variable or wind, not both")
        return self

    @field_validator("breaks")
    @classmethod
    def _days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for day in value:
            match = re.fullmatch(r"[0-9]{4}-([0-9]{2})-([0-9]{2})", day)
            if not match or not _is_day(int(match[1]), int(match[2])):
                raise ValueError(f"break {day!r} is not a day as YYYY-MM-DD, such as 1950-01-31")
        return value

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables to read: one field, or eastward and northward wind."""
        return (self.variable,) if self.variable is not None else (self.wind or ("u850", "v850"))

    @property
    def shares_pass(self) -> bool:
        """Whether the members of a year lie in the same chunks, so that one pass over the data serves them all."""
        return self.layout == "c20"


class DetectionSettings(_Model):
    """What makes a grid point the centre of a storm."""

    mode: Literal["auto", "max", "min"] = Field(
        default="auto", description="maxima or minima; auto: minima of pressure, maxima of all else"
    )
    threshold: Annotated[float | Literal["auto", "none"], BeforeValidator(_number_or_word)] = Field(
        default="auto",
        description="value a centre must reach, in SI units; auto: 4e-5 s-1 for vorticity, none for all else",
    )
    region: Annotated[tuple[float, float, float, float] | None, BeforeValidator(_split_at_commas)] = Field(
        default=None, description="west, south, east, north in degrees; may cross 0 or 180"
    )
    merge_km: float = Field(default=0.0, ge=0, description="the weaker of two centres closer than this is absorbed; km")
    refine: bool = Field(default=True, description="place centres between grid points by a quadratic fit")
    vorticity_order: Annotated[Literal[2, 4], BeforeValidator(_whole_number)] = Field(
        default=2, description="order of the differences that give vorticity from wind"
    )

    @field_validator("region")
    @classmethod
    def _box(cls, value: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if value is not None:
            west, south, east, north = value
            if not -90 <= south < north <= 90:
                raise ValueError(f"region: south {south:g} must be below north {north:g}, both in -90..90")
            if not (-360 <= west <= 360 and -360 <= east <= 360) or west == east:
                raise ValueError(f"region: west {west:g} and east {east:g} must differ and lie in -360..360")
        return value


class TrackingSettings(_Model):
    """How centres are linked from one time step to the next."""

    method: Literal["nearest", "assignment"] = Field(
        default="nearest", description="nearest: each centre to the nearest one; assignment: globally best links"
    )
    max_speed: float = Field(default=40.0, gt=0, description="fastest a storm may travel; m/s")
    min_points: int = Field(default=6, ge=1, description="shortest track kept; points")
    max_gap: int = Field(default=0, ge=0, le=8, description="time steps a storm may go unseen")


class ResultsSettings(_Model):
    """Where results are published."""

    root: Path = Field(default=Path("stormtracks-out"), description="folder of the campaign's results and state")


class RunSettings(_Model):
    """How the work is carried out; never changes a result."""

    backend: Literal["local", "pyro"] = Field(default="pyro", description="what carries the work: local or pyro")
    workers: int = Field(default=2, ge=1, le=1024, description="worker processes on this machine")
    bundle: Annotated[Literal["auto"] | int, BeforeValidator(_bundle_size)] = Field(
        default="auto",
        description="members of one year that travel together and share one pass over the data; auto: all of them "
        "where the layout keeps them in the same chunks (c20), else 1",
    )
    time_limit: float = Field(default=3600.0, gt=0, description="seconds one attempt may take")
    memory_limit: float = Field(
        default=4.0, ge=1, description="GiB of memory one worker process may take; the libraries alone need half of one"
    )
    max_attempts: int = Field(default=2, ge=1, description="attempts at a task that may fail before it is given up")
    max_losses: int = Field(default=5, ge=1, description="workers that may be lost under a task before it is given up")
    worker_strikes: int = Field(
        default=3, ge=2, description="different tasks that may fail on a worker in a row before it is given up"
    )
    retry_delay: float = Field(
        default=1.0, ge=0, le=3600, description="seconds before a failed task is tried again; doubles each time"
    )
    store: Literal["sqlite", "json", "zarr"] = Field(
        default="sqlite", description="how the campaign's record is kept: sqlite, json (one task at a time) or zarr"
    )


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]


class HostSettings(_Model):
    """One machine of the cluster; what is not given here is taken from the cluster's section."""

    name: str = Field(
        pattern=_NAME, description="name of the host, as ssh knows it (an alias of ~/.ssh/config will do)"
    )
    address: str | None = Field(default=None, description="address its worker listens on; default: where ssh comes in")
    slots: int = Field(default=1, ge=1, le=1024, description="tasks at a time")
    user: str | None = Field(default=None, description="who logs in")
    port: int | None = Field(default=None, ge=1, le=65535, description="port of its ssh server")
    key: Path | None = Field(default=None, description="private key file")
    python: str | None = Field(default=None, description="python that has stormtracks installed there")
    environment: Environment = Field(default={}, description="environment variables of its worker")


class ClusterSettings(_Model):
    """The machines that carry the work, and how they are reached; never changes a result.

    Without hosts, the work is done by one worker on this machine, started by the manager.
    """

    hosts: tuple[HostSettings, ...] = Field(default=(), description="the machines; a [[cluster.hosts]] table for each")
    nameserver: str | None = Field(
        default=None, pattern=r"^[^\s:]+:\d{1,5}$", description="HOST:PORT of the name server; none: the manager's own"
    )
    listen: str = Field(default="127.0.0.1", description="address that the name server of the manager listens on")
    user: str | None = Field(default=None, description="who logs in; default: as ssh does")
    port: int | None = Field(default=None, ge=1, le=65535, description="port of the ssh servers; default: as ssh does")
    key: Path | None = Field(default=None, description="private key file; default: as ssh does")
    python: str = Field(default="python3", description="python that has stormtracks installed on the hosts")
    environment: Environment = Field(default={}, description="environment variables of the workers")
    log_folder: Path = Field(default=Path("stormtracks-logs"), description="folder on each host for its worker's log")
    heartbeat: float = Field(default=2.0, gt=0, le=60, description="seconds a call to a worker waits at most")
    lease: float = Field(
        default=30.0, gt=0, description="seconds a worker goes on without its manager; then it ends what it is at"
    )
    patience: float = Field(default=60.0, gt=0, description="seconds to wait for the first worker")
    connect_timeout: float = Field(default=10.0, gt=0, description="seconds to wait for an ssh connection")
    insecure: bool = Field(default=False, description="allow plain text beyond this machine")
    certificates: Path = Field(
        default=Path("stormtracks-certs"),
        description="folder of the campaign's certificates; a relative one starts at the campaign file",
    )
    strict_cpu: bool = Field(
        default=False, description="refuse workers whose processors may round otherwise than the manager's"
    )

    @property
    def given_up_after(self) -> float:
        """Seconds without an answer after which a worker's tasks go to others: its lease, and a grace beyond it."""
        return 1.25 * self.lease

    @model_validator(mode="after")
    def _each_host_once(self) -> ClusterSettings:
        names = [host.name for host in self.hosts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"host {', '.join(twice)} is named twice")
        return self


def first_years(years: Collection[int]) -> list[int]:
    """Those of some years that follow on none of them."""
    return sorted(set(years) - {year + 1 for year in years})


class CampaignSettings(_Model):
    """Everything a campaign decides."""

    name: str = Field(default="campaign", pattern=_NAME, description="name of the campaign")
    task: str = Field(default="vort_track", description="what is done for each year and member")
    years: Years = Field(default="all", description="years, such as 2000-2012, 2005 or a list, or all the data hold")
    members: Members = Field(
        default="all", description="how many members, a range or list of them, or all the data hold"
    )
    season: Season = Field(default=Season(), description="year, DJF, MAM, JJA, SON, or a table of start and end, MM-DD")
    preset: Literal["none", "original"] = Field(default="none", description="a set of parameters to start from")
    data: DataSettings = Field(default=DataSettings(), description="the input")
    detection: DetectionSettings = Field(default=DetectionSettings(), description="centres of storms")
    tracking: TrackingSettings = Field(default=TrackingSettings(), description="links between centres")
    results: ResultsSettings = Field(default=ResultsSettings(), description="the output")
    run: RunSettings = Field(default=RunSettings(), description="the machinery")
    cluster: ClusterSettings = Field(default=ClusterSettings(), description="the machines")

    @property
    def science(self) -> dict[str, Any]:
        """What decides a result, as plain JSON values; paths, years, members and machinery left out."""
        document: dict[str, Any] = self.model_dump(mode="json", include={"task", "season", "detection", "tracking"})
        document["data"] = self.data.model_dump(mode="json", exclude={"root", "variable", "wind"})
        document["data"]["variables"] = list(self.data.variables)
        return document

    @property
    def settings_hash(self) -> str:
        """sha256 of `science` as canonical JSON, the first 16 hexadecimal digits."""
        text = json.dumps(self.science, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def largest_bundle(self, members: int) -> int:
        """How many members of one year may travel together, of so many that there are."""
        if self.run.bundle == "auto":
            return members if self.data.shares_pass else 1
        return min(self.run.bundle, members)
