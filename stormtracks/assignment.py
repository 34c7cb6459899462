"""The one-to-one links of least total cost between tracks and centres, with the proof that there are none better.

Every centre has a price, which is nothing at first, and every track a worth: the least that a centre costs it with its
price, or what it costs to leave the track alone, if that is less. Prices rise until each track either has a centre, or
is alone, for its worth. That proves the links: whatever is linked to what, the sum of the costs is no less than the
worth of all tracks less the prices of all centres, and here it is just that, as centres that are not taken have no
price (duality of linear programs).

Prices rise as in the search for successive shortest augmenting paths (Jonker and Volgenant 1987, *Computing* 38,
325-340), but turned round, so that one run of Dijkstra's algorithm serves tracks in all parts of the globe. It starts
from all ends of such paths, which are the centres that nobody has and the leaving alone of any track, and tells for
every track how much it would lose if it had to yield its place, and what it would best take instead. Then each end
takes in one track that waits for a place, and those on the way to it move up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra, min_weight_full_bipartite_matching

__all__ = ["Links", "assign"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_RISE = 2.0
"""By how much prices may rise in a round: where costs are squared distances, in areas that hold one centre."""
_LEAST_RISE = 1 / 64
"""The least of it, relative to the cost of leaving a track alone."""
_MANY = 4000
"""Links from which the search here takes less time than that of SciPy."""
_ROUNDING = 1e-12
"""Relative to the cost of leaving a track alone: what sums of costs are off by at most."""
_AHEAD = 4
"""Rounds for which the links are picked out at a time that can matter in them."""


@dataclass(frozen=True, eq=False)
class Links:
    """Possible links, in order of centre, no pair twice.

    Parameters
    ----------
    track, centre : shape (n,), int64
        Indices of what is linked.
    cost : shape (n,), float64
        Not negative, and less than it costs to leave the track alone.
    """

    track: IntArray
    centre: IntArray
    cost: FloatArray

    def __len__(self) -> int:
        return len(self.cost)

    def __getitem__(self, keep: IntArray) -> Links:
        return Links(self.track[keep], self.centre[keep], self.cost[keep])


def assign(links: Links, n_tracks: int, n_centres: int, *, alone: float) -> IntArray:
    """Choose links so that nothing is linked twice and the sum of all costs is least.

    Parameters
    ----------
    links : Links
    n_tracks, n_centres : int
    alone : float
        What it costs to leave a track alone. Centres may be left at no cost.

    Returns
    -------
    numpy.ndarray, shape (n_centres,), int64
        For each centre the index of its track, -1 for none.

    Notes
    -----
    Where links are few, and where another choice costs the same, as happens with centres on the points of a coarse
    grid, the choice is that of `scipy.sparse.csgraph.min_weight_full_bipartite_matching`. Its time grows with the
    number of tracks times that of centres; that of the search here about with the number of links.
    """
    search = Search(links, n_tracks, n_centres, alone)
    if len(links) >= _MANY:
        search.run(links)
    if not search.goes_on() and search.is_only_choice(links):
        return search.track_at[:n_centres]
    return _by_scipy(links, n_tracks, n_centres, alone)


def _by_scipy(links: Links, n_tracks: int, n_centres: int, alone: float) -> IntArray:
    """The same on the sparse graph of links, in which one private column a track stands for leaving it alone."""
    track = np.arange(n_tracks)
    # Every track has exactly one column in the solution, so a constant on all costs changes nothing but keeps a
    # perfect link from being taken for an absent one.
    graph = coo_array(
        (
            np.concatenate([links.cost, np.full(n_tracks, alone)]) + 1.0,
            (np.concatenate([links.track, track]), np.concatenate([links.centre, n_centres + track])),
        ),
        shape=(n_tracks, n_centres + n_tracks),
    )
    row, column = min_weight_full_bipartite_matching(graph.tocsr())
    linked = column < n_centres
    track_at = np.full(n_centres, -1, dtype=np.int64)
    track_at[column[linked]] = row[linked]
    return track_at


class Search:
    """Prices and places, such that each track has the place that is cheapest for it, or waits.

    Places are the centres, then one for each track where it waits or stays alone, and at last `nowhere`, which stands
    for the leaving alone of any track. Parameters are those of `assign`.
    """

    def __init__(self, links: Links, n_tracks: int, n_centres: int, alone: float) -> None:
        self.alone = alone
        self.n_centres = n_centres
        self.nowhere = n_centres + n_tracks
        self.worth = np.full(n_tracks, alone)
        np.minimum.at(self.worth, links.track, links.cost)
        self.price = np.zeros(self.nowhere)
        self.place = np.arange(n_centres, self.nowhere)
        self.track_at = np.full(self.nowhere + 1, -1)  # of centres only
        self.instead = np.full(self.nowhere, self.nowhere)  # of each place, where its track would best go
        self.unsure = np.ones(n_tracks, dtype=bool)  # whether that, or what it would cost, is not known
        cheapest = links[np.flatnonzero(links.cost == self.worth[links.track])]
        cheapest = cheapest[np.unique(cheapest.track, return_index=True)[1]]
        cheapest = cheapest[np.unique(cheapest.centre, return_index=True)[1]]
        self._put(cheapest.track, cheapest.centre)

    def _put(self, track: IntArray, place: IntArray) -> None:
        self.place[track] = place
        at_centre = place < self.n_centres
        self.track_at[place[at_centre]] = track[at_centre]

    def goes_on(self) -> bool:
        """Whether a track still waits that could be worth more."""
        return bool(((self.place >= self.n_centres) & (self.worth < self.alone)).any())

    def run(self, links: Links) -> None:
        """Raise prices until no track waits."""
        rise = self.alone * float(np.clip(_RISE * len(self.worth) / max(len(links), 1), _LEAST_RISE, 1))
        rounds = 0
        while self.goes_on():
            if rounds % _AHEAD == 0:
                # What a link costs more than its track is worth shrinks by no more than one rise a round.
                near = links[np.flatnonzero(self.excess(links) < _AHEAD * rise)]
            self.raise_prices(near, rise)
            self.move_up()
            rounds += 1

    def excess(self, links: Links) -> FloatArray:
        """What links cost with the price of the centre beyond the worth of the track; never less than nothing."""
        excess = links.cost + self.price[links.centre] - self.worth[links.track]
        return np.asarray(np.maximum(excess, 0, out=excess))  # rounding

    def raise_prices(self, links: Links, most: float) -> None:
        """Raise tracks that are unsure, and the prices of their centres, by what they would lose, or by `most`.

        Parameters
        ----------
        links : Links
            At least all those whose excess is less than `most`.
        most : float
        """
        track = np.flatnonzero(self.unsure)
        place = self.place[track]
        loss, instead = self._loss(links, track, most)
        far = loss > most
        more = np.where(far, most, loss)
        self.worth[track] = np.where(far | (instead < self.nowhere), self.worth[track] + more, self.alone)
        self.price[place] += more
        self.price[self.n_centres :] = 0
        self.instead[place] = np.where(far, self.nowhere, instead)
        self.unsure[track] = far

    def _loss(self, links: Links, track: IntArray, most: float) -> tuple[FloatArray, IntArray]:
        """What tracks would lose if they had to yield, as far as it is within `most`, and where they would go."""
        place = self.place[track]
        excess = self.excess(links)
        use = np.flatnonzero((excess < most) & self.unsure[links.track])
        to_be_alone = np.maximum(self.alone - self.worth[track], 0)
        near_it = to_be_alone < most
        ways_on = np.bincount(links.centre[use], minlength=self.nowhere + 1)
        ways_on[self.nowhere] = np.count_nonzero(near_it)
        graph = csr_array(
            (
                np.concatenate([excess[use], to_be_alone[near_it]]),
                np.concatenate([self.place[links.track[use]], place[near_it]]),
                np.concatenate([[0], np.cumsum(ways_on)]),
            ),
            shape=(self.nowhere + 1, self.nowhere + 1),
        )
        known = ways_on > 0
        known[place] = False
        known[self.nowhere] = True
        loss, instead, _ = dijkstra(
            graph, indices=np.flatnonzero(known), min_only=True, return_predecessors=True, limit=most
        )
        return loss[place], instead[place]

    def move_up(self) -> None:
        """Let each end take in the track that waits for it and would lose least, and all on its way move up."""
        waits = np.flatnonzero((self.place >= self.n_centres) & (self.instead[self.place] < self.nowhere))
        if not len(waits):
            return
        end = self._ends()[self.place]
        waits = waits[np.argsort(-self.worth[waits], kind="stable")]
        taken_in = np.full(self.nowhere, -1)
        taken_in[end[waits]] = waits  # the last to write stays
        self.unsure |= taken_in[end] >= 0
        track = taken_in[taken_in >= 0]
        moves = []
        while len(track):
            to = self.instead[self.place[track]]
            moves.append((track, to))
            track = self.track_at[to]
            track = track[track >= 0]
        track, to = (np.concatenate(parts) for parts in zip(*moves, strict=True))
        self._put(track, np.where(to < self.nowhere, to, self.n_centres + track))

    def _ends(self) -> IntArray:
        """Of each place the last one on the way from it."""
        here = np.arange(self.nowhere)
        last = (self.instead == self.nowhere) | (self.track_at[:-1] < 0) & (here < self.n_centres)
        end = np.where(last, here, self.instead)
        while not np.array_equal(further := end[end], end):
            end = further
        return end

    def is_only_choice(self, links: Links) -> bool:
        """Whether no other choice costs as little, but for rounding.

        Any other choice differs in circles of places whose tracks move on by one, where all that nobody has count as
        one place with `nowhere`; and it costs more by the excess of the links that it makes.
        """
        least = _ROUNDING * self.alone
        tight = np.flatnonzero(self.excess(links) <= least)
        at_centre = self.place < self.n_centres
        may_be_alone = np.flatnonzero(at_centre & (self.alone - self.worth <= least))
        if len(tight) == np.count_nonzero(at_centre) and not len(may_be_alone):
            return True
        as_one = np.append(np.where(self.track_at[:-1] < 0, self.nowhere, np.arange(self.nowhere)), self.nowhere)
        as_one[self.place] = self.place
        needless = self.place[~at_centre | (self.price[self.place] <= least)]
        start = np.concatenate([as_one[links.centre[tight]], needless, np.full(len(may_be_alone), self.nowhere)])
        stop = np.concatenate(
            [self.place[links.track[tight]], np.full(len(needless), self.nowhere), self.place[may_be_alone]]
        )
        size = self.nowhere + 1
        graph = csr_array((np.ones(len(start)), (start, stop)), shape=(size, size))
        circles, _ = connected_components(graph, connection="strong")
        return bool(circles == size)
