"""The results of a campaign as they lie on disk: whether they are what was published, and would come out the same."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from stormtracks.cluster.record import Published
from stormtracks.errors import InputError, ResultNotFoundError, ResultsError
from stormtracks.reanalysis import open_archive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.tracks import Tracks

__all__ = ["PublishedTracks"]

logger = logging.getLogger(__name__)


class PublishedTracks(Published):
    """The tracks that a campaign has published.

    Parameters
    ----------
    results : StormtracksResultsManager
    campaign : CampaignSettings
    first_years : collection of int
        Years of the campaign that follow on none of its years.
    """

    def __init__(
        self, results: StormtracksResultsManager, campaign: CampaignSettings, first_years: Collection[int]
    ) -> None:
        self._results = results
        self._campaign = campaign
        self._first_years = first_years
        self._archive = open_archive(campaign.data)
        self.unreadable = 0

    def find(self, year: int, ensemble_member: int) -> Mapping[str, Any] | None:
        """What `run_task` would return, if there is an intact result that would come out the same again."""
        try:
            tracks, sha256 = self._results.read_result(year, ensemble_member)
        except ResultsError:
            return None
        if self._why_not_current(tracks, ensemble_member):
            return None
        from stormtracks.tasks import summary_of

        return {**summary_of(tracks, first=year in self._first_years), "sha256": sha256}

    def fault(self, year: int, ensemble_member: int, result: Mapping[str, Any]) -> str:
        """Why the result that was published does not count any more; empty if it does."""
        try:
            tracks, sha256 = self._results.read_result(year, ensemble_member)
        except ResultNotFoundError:
            return "its result is gone"
        except ResultsError as error:
            return f"its result is damaged: {error.what}"
        if sha256 != result.get("sha256"):
            return "its result is another than the one that was published"
        return self._why_not_current(tracks, ensemble_member)

    def _why_not_current(self, tracks: Tracks, member: int) -> str:
        # Late, here and above: with it comes all that tracks, of no use before there are results.
        from stormtracks.tasks import is_current

        try:
            current = is_current(tracks, self._campaign, self._archive, member)
        except InputError as error:
            # Without its input it could not be made again: what is there is better than nothing.
            logger.info("a result of member %d is not checked: %s", member, error.what)
            self.unreadable += 1
            return ""
        return "" if current else "its input has changed since, or the code that tracks it"
