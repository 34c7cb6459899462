"""What is measured: all figures by name, and the letters by which targets speak of them."""

from __future__ import annotations

from benchmarks.bench import Figure
from benchmarks.campaigns import bundles, imports, memory, splitting, two_workers, worker_start
from benchmarks.machinery import dispatch, fleet, overhead, store
from benchmarks.peers import linking, pressure_beside_peer, vorticity_beside_peer
from benchmarks.tracking import member_year_of_20cr, pressure_minima, start_up, vorticity_maxima

__all__ = ["FIGURES", "LETTERS"]

FIGURES: dict[str, Figure] = {
    "pressure": pressure_minima,
    "pressure-peer": pressure_beside_peer,
    "vorticity": vorticity_maxima,
    "vorticity-peer": vorticity_beside_peer,
    "member-year": member_year_of_20cr,
    "bundles": bundles,
    "splitting": splitting,
    "workers": two_workers,
    "memory": memory,
    "start-up": start_up,
    "worker-start": worker_start,
    "imports": imports,
    "linking": linking,
    "fleet": fleet,
    "dispatch": dispatch,
    "overhead": overhead,
    "store": store,
}
LETTERS = {
    "pressure": "B1",
    "pressure-peer": "B2",
    "vorticity": "B3",
    "vorticity-peer": "B3",
    "member-year": "B4",
    "bundles": "B5",
    "splitting": "B5",
    "workers": "B6",
    "memory": "B7",
    "start-up": "B8",
    "worker-start": "B8",
    "imports": "B8",
    "linking": "B9",
    "fleet": "B10",
}
