"""A campaign from its settings to its summary: what is to be done, by which backend, and who is told."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from stormtracks.cluster.backends.base import Backend
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.campaign_store import check_capacity, open_store
from stormtracks.cluster.ledger import Ledger
from stormtracks.cluster.listener import Listener, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.manager_lock import hold_campaign
from stormtracks.cluster.published import PublishedTracks
from stormtracks.cluster.pyro_task import PyroTaskSchedule, task_name
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.errors import ResultsError
from stormtracks.reanalysis import open_archive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings, first_years
from stormtracks.settings.errors import SettingsError

__all__ = ["exit_status", "run_campaign", "years_and_members"]

logger = logging.getLogger(__name__)


def run_campaign(campaign: CampaignSettings, listener: Listener, *, replace: bool = False, resume: str = "") -> Summary:
    """Run what is still to be done of a campaign; the only manager that does so.

    Parameters
    ----------
    campaign : CampaignSettings
    listener : Listener
        Who is told; usually a board.
    replace : bool
        Delete results and record of other settings that lie in the way, instead of refusing.
    resume : str
        The command that goes on with this campaign.

    Raises
    ------
    SettingsError
        If the data do not hold the years or members asked for.
    InputError, ResultsError
        If the data or the results folder cannot be used at all.
    CampaignHeldError
        If another manager has the campaign.
    StoreError
        If its record cannot be used.
    ClusterError
        If the cluster cannot be set up.
    """
    task = task_name(campaign.task)
    years, members = years_and_members(campaign)
    largest = campaign.largest_bundle(len(members))
    schedule = PyroTaskSchedule(years=years, members=members, task=task, rules=_rules(campaign), largest_bundle=largest)
    firsts = first_years(years)
    results = StormtracksResultsManager(campaign.results.root, task)
    with hold_campaign(campaign.results.root):
        if not replace:
            results.claim(campaign.science, campaign.settings_hash)
        results.clean()
        with open_ledger(campaign, schedule, replace=replace, resume=resume) as ledger:
            # What is replaced goes only now: had the new campaign been refused, the old one would still be whole.
            results.claim(campaign.science, campaign.settings_hash, replace=replace)
            published = PublishedTracks(results, campaign, firsts)
            with _backend(campaign, firsts, ledger, slots=min(campaign.run.workers, len(schedule))) as backend:
                limits = _limits(campaign)
                manager = Manager(
                    schedule, backend, listener, record=ledger, published=published, limits=limits, resume=resume
                )
                summary = manager.run()
            _remove_leftovers(results)
            return summary


def _remove_leftovers(results: StormtracksResultsManager) -> None:
    """Remove what writers that were killed have left; the next start would, if this one cannot."""
    try:
        results.clean()
    except ResultsError as error:
        logger.warning("temporary files were left behind: %s", error)


@contextmanager
def open_ledger(
    campaign: CampaignSettings, schedule: PyroTaskSchedule, *, replace: bool, resume: str
) -> Iterator[Ledger]:
    """The record of a campaign, in which a start of a manager is noted; schedule and record agree.

    A record of other settings is replaced, if it may be; if that fails, it is where it was.

    Raises
    ------
    StoreError
        If the record cannot be used.
    """
    with open_store(campaign, replace=replace) as store:
        try:
            check_capacity(store, campaign)
            ledger = Ledger(store, schedule)
            ledger.start(_submission(campaign, resume), campaign.science, now=time.monotonic())
        except BaseException:
            if store.replaced_dir is not None:
                store.clear_pending()
                store.reinstate_replaced_dir()
            raise
        yield ledger


def _submission(campaign: CampaignSettings, resume: str) -> dict[str, Any]:
    """What there is to know of a start, beside the science: who, when, and with which machinery."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": resume,
        "run": campaign.run.model_dump(mode="json"),
        "fleet": [host.name for host in campaign.cluster.hosts],
    }


def _rules(campaign: CampaignSettings) -> Rules:
    """What the schedule of a campaign puts up with."""
    run = campaign.run
    return Rules(
        max_attempts=run.max_attempts,
        max_losses=run.max_losses,
        worker_strikes=run.worker_strikes,
        retry_delay=run.retry_delay,
        lease=campaign.cluster.given_up_after,
    )


def _limits(campaign: CampaignSettings) -> Limits:
    cluster = campaign.cluster
    return Limits(
        heartbeat=cluster.heartbeat,
        # The backend of a cluster gives up by itself a little earlier, and knows why.
        silence=cluster.heartbeat + 1.5 * cluster.given_up_after,
        patience=cluster.patience if campaign.run.backend == "pyro" else 0.0,
    )


def exit_status(summary: Summary) -> int:
    """How a command that has run a campaign ends.

    0: all complete; 1: a task failed or timed out; 3: it could not go on, as no worker came or was left, or its record
    could not be kept; 130: stopped by Ctrl-C.
    """
    if summary.interrupted:
        return 130
    if summary.problem:
        return 3
    return 0 if summary.ok else 1


@contextmanager
def _backend(
    campaign: CampaignSettings, first_years: Sequence[int], ledger: Ledger, *, slots: int
) -> Iterator[Backend]:
    """What carries the work of a campaign; `slots` are those that this machine gives."""
    if campaign.run.backend == "pyro":
        # Imported here: who works without a cluster need not wait for its libraries.
        from stormtracks.cluster.embedded import open_cluster

        with open_cluster(
            campaign, first_years, slots=slots, campaign_id=ledger.campaign_id, epoch=ledger.epoch
        ) as cluster:
            yield cluster
        return
    with LocalBackend(
        bundle_function="stormtracks.tasks:run_bundle",
        slots=slots,
        time_limit=campaign.run.time_limit,
        memory_limit_gib=campaign.run.memory_limit,
        arguments={"settings": campaign.model_dump(mode="json"), "first_years": first_years},
    ) as backend:
        yield backend


def years_and_members(campaign: CampaignSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The years and members that a campaign is about, the members as the data number them.

    Raises
    ------
    SettingsError
        If the data do not hold them.
    """
    archive = open_archive(campaign.data)
    years, members = tuple(archive.years()), tuple(archive.members())
    where = f"under {campaign.data.root} (layout {campaign.data.layout})"
    if not years:
        raise SettingsError(f"setting 'data.root': no data of {', '.join(campaign.data.variables)} {where}")
    if campaign.years != "all":
        # The season over the new year with which the data begin belongs to the year before.
        known = {*years, years[0] - 1} if campaign.season.over_new_year else set(years)
        if absent := sorted(set(campaign.years) - known):
            raise SettingsError(f"setting 'years': no data for {_listed(absent)} {where}, which holds {_listed(years)}")
        years = campaign.years
    if isinstance(campaign.members, int):
        if campaign.members > len(members):
            raise SettingsError(f"setting 'members' = {campaign.members}: there are only {len(members)} {where}")
        members = members[: campaign.members]
    elif campaign.members != "all":
        if absent := sorted(set(campaign.members) - set(members)):
            raise SettingsError(f"setting 'members': no {_listed(absent)} {where}, which holds {_listed(members)}")
        members = campaign.members
    if years[0] < 0 or years[-1] > 9999 or members[0] < 0 or members[-1] > 999:
        raise SettingsError(
            f"years {years[0]} to {years[-1]}, members {members[0]} to {members[-1]} {where}: results are kept for "
            "years 0 to 9999 and members 0 to 999; choose some with 'years' and 'members', or renumber the data"
        )
    return years, members


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" ... {numbers[-1]}" if len(numbers) > 10 else "")
