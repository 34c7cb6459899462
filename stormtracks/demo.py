"""The demonstration: a synthetic ensemble of known truth, and what a campaign over it should have found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stormtracks.errors import ResultsError
from stormtracks.plot import save, track_map
from stormtracks.publish import make_folder, publish
from stormtracks.results import StormtracksResultsManager
from stormtracks.scores import Verification, pool, verify
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.synthetic import SyntheticEnsemble, write
from stormtracks.tracks import Tracks, concatenate

__all__ = ["Demonstration"]

MIN_POINTS = 8


@dataclass(frozen=True)
class Demonstration:
    """A small ensemble in the layout of 20CR version 2, and the campaign over it.

    Parameters
    ----------
    out : Path
        Folder for the data, the campaign file, the results and the map.
    first_year, last_year : int
        The data run from 1 December of the first to 31 January of the last, or over November and December of the
        one year.
    members : int
    seed : int
    """

    out: Path
    first_year: int
    last_year: int
    members: int
    seed: int

    @property
    def ensemble(self) -> SyntheticEnsemble:
        """The storms and fields."""
        if self.first_year == self.last_year:
            start, end = (self.first_year, 11, 1), (self.first_year + 1, 1, 1)
        else:
            start, end = (self.first_year, 12, 1), (self.last_year, 2, 1)
        return SyntheticEnsemble(start=start, end=end, members=self.members, seed=self.seed)

    @property
    def campaign_file(self) -> Path:
        """The campaign over the data, for `stormtracks run`."""
        return self.out / "campaign.toml"

    def write_input(self, *, replace: bool = False) -> bool:
        """Write data and campaign file, unless they are there already.

        Parameters
        ----------
        replace : bool
            Whether to do away with the data of another demonstration.

        Returns
        -------
        bool
            Whether the data had to be written.

        Raises
        ------
        ResultsError
            If the folder holds the data of another demonstration, or cannot be written.
        """
        made_by = {"years": f"{self.first_year}-{self.last_year}", "members": self.members, "seed": self.seed}
        data, marker = self.out / "data", self.out / "data" / "synthetic.json"
        make_folder(self.out)
        if marker.is_file():
            held = json.loads(marker.read_text(encoding="utf-8"))
            complete = held.pop("complete", False)
            if held == made_by and complete:
                return False
            if held != made_by and not replace:
                raise ResultsError(
                    f"{data} holds the data of another demonstration: {held}, asked for {made_by}",
                    remedy="choose another --out, or pass --replace to do away with them and their results",
                )
        elif any((self.out / name).exists() for name in ("data", "campaign.toml", "campaign", "results")):
            raise ResultsError(
                f"{self.out} holds data, a campaign or results that are no demonstration's",
                remedy="choose another --out: nothing of it was touched",
            )
        # First of all, so that a folder left half-written by a kill is known as ours; complete only at the end.
        make_folder(data)
        publish(marker, json.dumps(made_by | {"complete": False}).encode())
        for path in sorted(data.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path != marker:
                path.unlink()
        results = StormtracksResultsManager(self.out)
        for year in results.list_years():
            results.delete_year(year)
        write(self.ensemble, data, layout="c20")
        publish(self.campaign_file, self._campaign_text().encode())
        publish(marker, json.dumps(made_by | {"complete": True}).encode())
        return True

    def _campaign_text(self) -> str:
        years = str(self.first_year) if self.first_year == self.last_year else f"{self.first_year}-{self.last_year}"
        return (
            "# Synthetic storms of known truth, as files in the layout of 20CR version 2.\n"
            f'name = "demo"\nyears = "{years}"\nmembers = "all"\n\n'
            '[data]\nlayout = "c20"\nroot = "data"\n\n'
            f'[tracking]\nmin_points = {MIN_POINTS}\n\n[results]\nroot = "."\n'
        )

    def verify(self, campaign: CampaignSettings) -> Verification:
        """Compare the published tracks of all members with the truth."""
        results = StormtracksResultsManager(campaign.results.root, campaign.task)
        return pool(
            verify(self._published(results, member), self.ensemble.truth(member), min_points=MIN_POINTS)
            for member in range(1, self.members + 1)
        )

    def draw_map(self, campaign: CampaignSettings) -> Path:
        """Draw the tracks of the first member over the truth."""
        results = StormtracksResultsManager(campaign.results.root, campaign.task)
        figure = track_map(
            self._published(results, 1),
            reference=self.ensemble.truth(1),
            reference_label="truth",
            title="Synthetic storms, member 1",
        )
        return save(figure, self.out / "map.png")

    def _published(self, results: StormtracksResultsManager, member: int) -> Tracks:
        years = range(self.first_year, self.last_year + 1)
        return concatenate([results.get_result(year, member) for year in years])


def describe(verification: Verification) -> str:
    """A verification in one line."""
    return (
        f"against the truth: {verification.hits} hits, {verification.misses} misses, "
        f"{verification.false_alarms} false alarms; probability of detection "
        f"{verification.probability_of_detection:.3f}, false alarm ratio {verification.false_alarm_ratio:.3f}, "
        f"mean position error {verification.mean_position_error_km:.1f} km"
    )
