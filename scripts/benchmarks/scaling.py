"""What a production run would take: a cost model, filled with measured figures. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["CLUSTER", "LAPTOP", "Costs", "Machines", "Production", "Times", "costs_of", "hosts_fed", "times"]

DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Production:
    """A campaign over years in the layout of 20CR version 2.

    Parameters
    ----------
    years, members : int
    halo_days : float
        How far a pass over a year reads beyond it: back for the start of the trackers, on until the last storm ends.
    """

    years: int = 120
    members: int = 56
    halo_days: float = 20.0

    @property
    def tasks(self) -> int:
        """Member-years."""
        return self.years * self.members

    @property
    def halo(self) -> float:
        """How many times its own data a year reads."""
        return 1 + self.halo_days / DAYS_A_YEAR


@dataclass(frozen=True)
class Machines:
    """Where it runs.

    Parameters
    ----------
    name : str
    hosts, cores : int
        How many, and cores of each.
    storage : str
        Where the data lie, in words.
    bytes_per_s : float
        How fast they come from there, to all hosts together.
    """

    name: str
    hosts: int
    cores: int
    storage: str
    bytes_per_s: float

    @property
    def slots(self) -> int:
        """Bundles at a time."""
        return self.hosts * self.cores


LAPTOP = Machines("one laptop", 1, 2, "a solid-state disk of its own, 500 MB/s", 500e6)
CLUSTER = Machines("12 hosts", 12, 2, "one file server behind 1 Gbit/s", 117e6)


@dataclass(frozen=True)
class Costs:
    """What was measured.

    Parameters
    ----------
    cpu_s : float
        Processor seconds of a member-year, its share of the reading included.
    input_bytes : float
        Of a member-year, as they lie on disk.
    efficiency : float
        What two workers do on two cores over twice what one does on one.
    manager_s : float
        Processor seconds of the manager for a task.
    start_s : float
        Seconds until a worker takes its first task.
    """

    cpu_s: float
    input_bytes: float
    efficiency: float
    manager_s: float
    start_s: float


@dataclass(frozen=True)
class Times:
    """What each part takes, in seconds; the parts go on at the same time, so that the longest decides.

    Parameters
    ----------
    computing, reading, managing : float
    whole : float
    """

    computing: float
    reading: float
    managing: float
    whole: float

    @property
    def limit(self) -> str:
        """What decides."""
        parts = {"computing": self.computing, "the data's way": self.reading, "the manager": self.managing}
        return max(parts, key=lambda name: parts[name])


def costs_of(document: dict[str, Any]) -> Costs | None:
    """The costs that were measured; None if one of the figures is missing.

    Parameters
    ----------
    document : dict
        What `scripts/bench` prints.
    """
    figures = document["figures"]
    try:
        bundles = figures["bundles"]
        run = bundles["ours"]["run, above 4e-5"]
        member_years = 2 * bundles["members"] * bundles["days"] / DAYS_A_YEAR
        return Costs(
            cpu_s=(run["cpu_s"]["median"] - run["start"]["cpu_s"]["median"]) / member_years,
            input_bytes=sum(bundles["input"].values()) / member_years,
            efficiency=figures["workers"]["times_as_fast"]["median"] / 2,
            manager_s=figures["fleet"]["values"]["manager_cpu_ms_per_task"]["median"] / 1e3,
            start_s=figures["worker-start"]["values"]["first_task_begins_s"]["median"],
        )
    except KeyError:
        return None


def times(production: Production, machines: Machines, costs: Costs) -> Times:
    """How long a campaign takes.

    A slot takes a year with all its members at a time, so that the last round of years may leave slots empty.
    """
    rounds = math.ceil(production.years / machines.slots)
    year_s = production.members * costs.cpu_s * production.halo / costs.efficiency
    computing = rounds * year_s
    reading = production.tasks * costs.input_bytes * production.halo / machines.bytes_per_s
    managing = production.tasks * costs.manager_s
    return Times(computing, reading, managing, costs.start_s + max(computing, reading, managing))


def hosts_fed(machines: Machines, costs: Costs) -> float:
    """How many hosts such storage can keep at work: with more of them the data's way decides."""
    return machines.bytes_per_s * costs.cpu_s / (costs.input_bytes * machines.cores * costs.efficiency)
