"""Pictures: what is drawn and where; the pixels are looked at only to tell land from sea."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from stormtracks.errors import InputError, ResultsError
from stormtracks.grid import Grid, great_circle_distance
from stormtracks.plot import coastline, field_map, save, track_map
from stormtracks.reanalysis.archive import Quantity
from stormtracks.tracks import Tracks

VORTICITY = Quantity("zeta", "atmosphere_relative_vorticity", "s-1")
PRESSURE = Quantity("prmsl", "air_pressure_at_mean_sea_level", "Pa")
WORLD = (-180, -90, 180, 90)

# Multiples of 1/64 degree, for which all arithmetic is exact.
LONGITUDES = st.integers(0, 360 * 64).map(lambda i: i / 64)
LATITUDES = st.integers(-90 * 64, 90 * 64).map(lambda i: i / 64)


def tracks_of(
    *paths: Sequence[tuple[float, float, float]],
    member: Sequence[int] = (),
    starts_cut: Sequence[bool] = (),
    start: str = "2001-12-01",
    quantity: Quantity = VORTICITY,
) -> Tracks:
    """Tracks from one list of (lon, lat, value) each, a point a day."""
    records = np.array([point for path in paths for point in path], dtype=np.float64).reshape(-1, 3)
    n = len(paths)
    return Tracks(
        row_size=np.array([len(path) for path in paths], dtype=np.int64),
        track_id=np.arange(1, n + 1),
        year=np.full(n, 2001),
        member=np.array(member or [1] * n, dtype=np.int64),
        starts_cut=np.array(starts_cut or [False] * n, dtype=bool),
        ends_cut=np.zeros(n, dtype=bool),
        time=np.datetime64(start, "s").astype(np.int64)
        + 86400 * np.array([day for path in paths for day in range(len(path))], dtype=np.int64),
        lon=np.mod(records[:, 0], 360.0),
        lat=records[:, 1],
        value=records[:, 2],
        quantity=quantity,
    )


def drawn(figure: Figure, gid: str) -> Any:
    """The one thing of that name on the map."""
    (artist,) = [child for child in figure.axes[0].get_children() if child.get_gid() == gid]
    return artist


def lines_of(figure: Figure, gid: str = "tracks") -> npt.NDArray[np.float64]:
    return np.array(drawn(figure, gid).get_segments())


def darkness(colours: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - np.asarray(colours)[..., :3] @ [0.299, 0.587, 0.114]


def lettering(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [axes.get_title(loc="left"), *(text.get_text() for text in axes.texts if isinstance(text, Annotation))]


def colour_at(figure: Figure, lon: float, lat: float) -> str:
    """The colour of the picture at a place on the map."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    x, y = figure.axes[0].transData.transform((lon, lat))
    return "#" + bytes(pixels[len(pixels) - 1 - int(y), int(x), :3]).hex()


class TestLines:
    def test_join_the_points_of_each_track_and_no_others(self) -> None:
        first, second = [(10, 40, 1e-4), (12, 41, 2e-4), (15, 42, 1e-4)], [(20, -30, -1e-4), (21, -31, -1e-4)]
        lines = lines_of(track_map(tracks_of(first, second), region=WORLD))
        assert sorted(lines.tolist()) == [[[10, 40], [12, 41]], [[12, 41], [15, 42]], [[20, -30], [21, -31]]]

    def test_over_the_seam_run_out_at_one_edge_and_in_at_the_other(self) -> None:
        eastward, westward = [(178, 40, 1e-4), (183, 41, 1e-4)], [(-178, 10, 1e-4), (-183, 12, 1e-4)]
        lines = lines_of(track_map(tracks_of(eastward, westward), region=WORLD))
        assert sorted(lines.tolist()) == [
            [[-182, 40], [-177, 41]],
            [[-178, 10], [-183, 12]],
            [[178, 40], [183, 41]],
            [[182, 10], [177, 12]],
        ]

    def test_are_whole_where_the_map_is_centred_on_the_date_line(self) -> None:
        lines = lines_of(track_map(tracks_of([(178, 40, 1e-4), (183, 41, 1e-4)]), region=(0, -90, 360, 90)))
        assert lines.tolist() == [[[178, 40], [183, 41]]]

    def test_leave_out_the_step_over_the_pole(self) -> None:
        over_the_pole = [(0, 84, 1e-4), (2, 89, 1e-4), (178, 89, 1e-4), (180, 84, 1e-4)]
        lines = lines_of(track_map(tracks_of(over_the_pole), region=WORLD))
        assert sorted(lines.tolist()) == [[[0, 84], [2, 89]], [[178, 89], [180, 84]]]

    @given(
        st.lists(st.lists(st.tuples(LONGITUDES, LATITUDES, st.just(1e-4)), min_size=1, max_size=6), max_size=5),
        st.sampled_from([(-180, -90, 180, 90), (0, -90, 360, 90), (100, -90, 260, 90), (-30, 0, 40, 80)]),
    )
    def test_never_cross_the_map_and_lie_where_the_points_are(
        self, paths: list[list[tuple[float, float, float]]], region: tuple[float, float, float, float]
    ) -> None:
        tracks = tracks_of([(0, 0, 1e-4)], *paths)
        figure = track_map(tracks, region=region)
        west = figure.axes[0].get_xlim()[0]
        lines = lines_of(figure).reshape(-1, 2, 2)
        assert (np.abs(np.diff(lines[:, :, 0])) <= 90).all()
        steps = {
            (a[0] % 360, a[1], b[0] % 360, b[1])
            for path in paths
            for a, b in pairwise(path)
            if abs((b[0] - a[0] + 180) % 360 - 180) <= 90
        }
        assert {(x0 % 360, y0, x1 % 360, y1) for (x0, y0), (x1, y1) in lines} == steps
        # What runs out of the circle of longitude at one side of the map comes in at the other.
        ends = {(lon, lat) for lon, lat in lines[:, 1]}
        assert {(lon - 360, lat) for lon, lat in ends if lon > west + 360} <= ends
        assert {(lon + 360, lat) for lon, lat in ends if lon < west} <= ends
        assert ((lines[:, :, 0].max(axis=1) >= west) & (lines[:, :, 0].min(axis=1) <= west + 360)).all()


class TestColour:
    def test_of_vorticity_is_its_magnitude_in_customary_units(self) -> None:
        figure = track_map(tracks_of([(10, 40, 1e-4), (12, 41, 3e-4)], [(10, -40, -2e-4), (12, -41, -4e-4)]))
        assert drawn(figure, "tracks").get_array().tolist() == pytest.approx([20, 30])
        assert drawn(figure, "genesis").get_array().tolist() == pytest.approx([10, 20])
        assert figure.axes[0].child_axes[0].get_ylabel() == "Relative vorticity, magnitude (10⁻⁵ s⁻¹)"

    def test_of_pressure_is_in_hectopascal_and_darkest_where_it_is_lowest(self) -> None:
        figure = track_map(tracks_of([(10, 40, 100000), (12, 41, 99000), (14, 42, 95000)], quantity=PRESSURE))
        lines = drawn(figure, "tracks")
        assert lines.get_array().tolist() == [995, 970]
        weak, strong = darkness(lines.to_rgba(lines.get_array()))
        assert strong > weak
        assert figure.axes[0].child_axes[0].get_ylabel() == "Air pressure at mean sea level (hPa)"

    def test_of_vorticity_is_darkest_where_it_is_highest(self) -> None:
        lines = drawn(track_map(tracks_of([(10, 40, 1e-4), (12, 41, 1e-4), (14, 42, 4e-4)])), "tracks")
        weak, strong = darkness(lines.to_rgba(np.array([10.0, 25.0])))
        assert strong > weak

    def test_of_anything_else_is_in_its_own_units(self) -> None:
        humidity = Quantity("q", "specific_humidity", "kg kg-1")
        figure = track_map(tracks_of([(10, 40, 0.01), (12, 41, 0.02)], quantity=humidity))
        assert drawn(figure, "tracks").get_array().tolist() == pytest.approx([0.015])
        assert figure.axes[0].child_axes[0].get_ylabel() == "Specific humidity (kg kg-1)"

    def test_of_the_strongest_lies_on_top(self) -> None:
        strong, weak = [(10, 40, -4e-4), (12, 41, -4e-4)], [(12, 40, 1e-4), (10, 41, 1e-4)]
        assert lines_of(track_map(tracks_of(strong, weak)))[-1].tolist() == [[10, 40], [12, 41]]

    def test_tells_members_apart(self) -> None:
        path = [(10, 40, 1e-4), (12, 41, 1e-4)]
        figure = track_map(tracks_of(*[path] * 56, member=range(1, 57)), colour_by="member")
        lines = drawn(figure, "tracks")
        assert len(np.unique(lines.to_rgba(lines.get_array()), axis=0)) == 56
        labels = [label.get_text() for label in figure.axes[0].child_axes[0].get_yticklabels()]
        assert labels[:3] == ["1", "6", "11"] and len(labels) == 12

    def test_by_anything_else_is_refused(self) -> None:
        with pytest.raises(InputError, match="coloured by 'age'"):
            track_map(tracks_of(), colour_by="age")  # type: ignore[arg-type]


class TestGenesis:
    def test_is_where_each_storm_was_born(self) -> None:
        paths = [(190, 40, 1e-4), (192, 41, 1e-4)], [(20, -30, -1e-4)], [(30, 10, 1e-4), (31, 11, 1e-4)]
        dots = drawn(track_map(tracks_of(*paths, starts_cut=[False, False, True]), region=WORLD), "genesis")
        assert dots.get_offsets().tolist() == [[-170, 40], [20, -30]]

    def test_is_explained_in_the_colour_of_no_track(self) -> None:
        for value in (1e-4, 4e-4):
            figure = track_map(tracks_of([(10, 40, value), (12, 41, 4e-4)], [(20, 40, 1e-4), (22, 41, 1e-4)]))
            (entry,) = figure.axes[0].get_legend().legend_handles
            assert entry.get_markerfacecolor() == "white"


class TestReference:
    def test_lies_beneath_the_tracks(self) -> None:
        path, truth = [(10, 40, 1e-4), (12, 41, 1e-4)], [(10, 39, 1e-4), (12, 40, 1e-4)]
        figure = track_map(tracks_of(path), reference=tracks_of(truth), region=WORLD)
        assert lines_of(figure, "reference").tolist() == [[[10, 39], [12, 40]]]
        assert drawn(figure, "reference").get_zorder() < drawn(figure, "tracks").get_zorder()
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["reference", "genesis"]

    def test_is_called_as_asked(self) -> None:
        path = [(10, 40, 1e-4), (12, 41, 1e-4)]
        figure = track_map(tracks_of(path), reference=tracks_of(path), reference_label="truth")
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["truth", "genesis"]

    def test_is_drawn_where_nothing_was_found(self) -> None:
        figure = track_map(tracks_of(), reference=tracks_of([(10, 40, 1e-4), (12, 41, 1e-4)]))
        assert len(lines_of(figure, "reference")) == 1


class TestRegion:
    @pytest.mark.parametrize(
        ("points", "limits"),
        [
            ([(-75, 25), (-20, 52)], (-90, 10, -10, 70)),
            ([(140, 30), (215, 47)], (130, 20, 230, 60)),
            ([(-5, 50), (5, 60)], (-20, 40, 20, 70)),
            ([(lon, 45 if lon < 180 else -45) for lon in range(0, 360, 30)], (-180, -60, 180, 60)),
            ([(lon, 85) for lon in range(0, 360, 30)], (-180, 70, 180, 90)),
            ([], WORLD),
        ],
        ids=["Atlantic", "date line", "Greenwich", "globe", "Arctic", "nothing"],
    )
    def test_is_by_default_the_box_round_the_tracks(
        self, points: list[tuple[float, float]], limits: tuple[float, float, float, float]
    ) -> None:
        axes = track_map(tracks_of(*[[(lon, lat, 1e-4)] for lon, lat in points])).axes[0]
        assert (axes.get_xlim(), axes.get_ylim()) == ((limits[0], limits[2]), (limits[1], limits[3]))

    @pytest.mark.parametrize(
        ("region", "limits"),
        [
            ((0, -90, 360, 90), (0, 360)),
            ((-20, 40, 15, 65), (-20, 15)),
            ((340, 40, 15, 65), (-20, 15)),
            ((120, 0, -120, 60), (120, 240)),
            ((10, 0, -350, 60), (10, 370)),
        ],
    )
    def test_may_cross_greenwich_and_the_date_line(
        self, region: tuple[float, float, float, float], limits: tuple[float, float]
    ) -> None:
        axes = track_map(tracks_of(), region=region).axes[0]
        assert (axes.get_xlim(), axes.get_ylim()) == (limits, (region[1], region[3]))

    @pytest.mark.parametrize(
        "region", [(10, 0, 10, 60), (0, 60, 10, 40), (0, -91, 10, 0), (0, 0, 361, 10), (np.nan, 0, 10, 10)]
    )
    def test_that_is_none_is_refused(self, region: tuple[float, float, float, float]) -> None:
        with pytest.raises(InputError, match="is no region"):
            track_map(tracks_of(), region=region)

    @pytest.mark.parametrize("region", [WORLD, (-90, 10, 10, 70), (0, 0, 10, 80), (-180, 60, 180, 90)])
    def test_fills_the_figure_in_its_true_shape(self, region: tuple[float, float, float, float]) -> None:
        figure = track_map(tracks_of(), region=region)
        axes = figure.axes[0]
        asked = axes.get_position().bounds
        FigureCanvasAgg(figure).draw()
        assert axes.get_position().bounds == pytest.approx(asked)
        corner, east, north = axes.transData.transform(
            [(region[0], mid := (region[1] + region[3]) / 2), (region[0] + 1, mid), (region[0], mid + 1)]
        )
        assert (east - corner)[0] == pytest.approx((north - corner)[1] * np.cos(np.deg2rad(mid)))


class TestLettering:
    def test_counts_what_is_shown(self) -> None:
        path = [(10, 40, 1e-4), (12, 41, 1e-4)]
        several = tracks_of(path, path, path, member=[1, 1, 4], start="2001-12-31")
        assert lettering(track_map(several, title="Atlantic")) == [
            *("Atlantic", "3 tracks  ·  2 members  ·  Dec 2001 – Jan 2002")
        ]
        assert lettering(track_map(tracks_of(path)))[1] == "1 track  ·  1 member  ·  Dec 2001"
        assert lettering(track_map(tracks_of()))[1] == "0 tracks"

    def test_dates_in_the_calendar_of_the_tracks(self) -> None:
        thirty_days = replace(tracks_of([(10, 40, 1e-4), (12, 41, 1e-4)]), calendar="360_day")
        days = np.array([29, 30]) + 360 * 31 + 30  # 30 February 2001 and the day after
        assert lettering(track_map(replace(thirty_days, time=86400 * days)))[1].endswith("Feb 2001 – Mar 2001")

    def test_names_degrees_by_their_side(self) -> None:
        axes = track_map(tracks_of(), region=WORLD).axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            *("180°", "120°W", "60°W", "0°", "60°E", "120°E", "180°")
        ]
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            *("90°S", "60°S", "30°S", "0°", "30°N", "60°N", "90°N")
        ]

    def test_names_degrees_beyond_the_date_line(self) -> None:
        axes = track_map(tracks_of(), region=(160, 20, -130, 60)).axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            *("160°E", "170°E", "180°", "170°W", "160°W", "150°W", "140°W", "130°W")
        ]


class TestCoastline:
    def test_passes_known_capes(self) -> None:
        shore = np.concatenate(coastline())
        land_s_end, good_hope, finisterre, leeuwin, soya = [
            *((-5.72, 50.07), (18.48, -34.36), (-9.27, 42.88), (115.13, -34.37), (141.94, 45.52))
        ]
        for lon, lat in (land_s_end, good_hope, finisterre, leeuwin, soya):
            assert great_circle_distance(lat, lon, shore[:, 1], shore[:, 0]).min() < 20

    def test_has_no_line_that_is_no_shore(self) -> None:
        for ring in coastline():
            start, end = ring[:-1], ring[1:]
            assert np.abs(end - start).max() < 12
            assert not ((np.abs(start[:, 0]) == 180) & (start[:, 0] == end[:, 0])).any()
            assert ring[:, 1].min() > -86

    def test_closes_every_ring_but_that_round_the_pole(self) -> None:
        closed = [bool((ring[0] == ring[-1]).all()) for ring in coastline()]
        assert closed == [False] + [True] * (len(closed) - 1)
        assert [coastline()[0][0, 0], coastline()[0][-1, 0]] == [180, -180]

    @pytest.mark.parametrize("region", [WORLD, (0, -90, 360, 90), (100, -90, 460, 90)])
    def test_parts_land_from_sea_on_every_map(self, region: tuple[float, float, float, float]) -> None:
        figure = track_map(tracks_of(), region=region)
        west = region[0]
        inland = [(-1.5, 52.5), (135, -25), (-58, -10), (105, 58), (178, 67.5), (-178, 67), (70, -80), (-40, 75)]
        at_sea = [(-35, 40), (51, 41), (-145, 10), (175, 5), (80, -40), (-179, -50), (-179, 80)]
        assert {colour_at(figure, west + (lon - west) % 360, lat) for lon, lat in inland} == {"#e3e1da"}
        assert {colour_at(figure, west + (lon - west) % 360, lat) for lon, lat in at_sea} == {"#f3f7fa"}


def regional_grid(step: float = 2.0) -> Grid:
    return Grid(np.arange(-90, 90 + step / 2, step), np.arange(0, 360, step))


def contour_points(figure: Figure) -> npt.NDArray[np.float64]:
    (contours,) = [child for child in figure.axes[0].get_children() if type(child).__name__ == "QuadContourSet"]
    return np.concatenate([path.vertices for path in contours.get_paths()])


class TestFieldMap:
    def test_draws_isobars_where_they_are(self) -> None:
        grid = regional_grid()
        field = np.repeat(100000 + 100.0 * grid.lat[:, None], 180, axis=1)
        figure = field_map(field, grid, quantity=PRESSURE, region=(-20, 41, 15, 59), interval=8)
        assert set(np.round(contour_points(figure)[:, 1], 6)) >= {48, 56}
        inside = contour_points(figure)[:, 1]
        assert set(np.round(inside[(inside > 41) & (inside < 59)], 6)) == {48, 56}
        assert lettering(figure)[1] == "contours every 8 hPa"

    def test_is_the_same_whichever_way_the_grid_runs(self) -> None:
        grid = regional_grid()
        lat, lon = np.deg2rad(np.meshgrid(grid.lat, grid.lon, indexing="ij"))
        field = 100000 + 2000 * np.cos(lat) * np.cos(3 * lon) + 1000 * np.sin(2 * lat)
        region = (-30, 20, 30, 70)
        expected = contour_points(field_map(field, grid, quantity=PRESSURE, region=region))
        southward = Grid(grid.lat[::-1], grid.lon)
        westward = Grid(grid.lat, grid.lon - 180)
        local = Grid(grid.lat, np.arange(-50, 51, 2.0) + 360)
        for other, values in [
            (southward, field[::-1]),
            (westward, np.roll(field, 90, axis=1)),
            (local, np.roll(field, 25, axis=1)[:, :51]),
        ]:
            points = contour_points(field_map(values, other, quantity=PRESSURE, region=region))
            assert np.allclose(points, expected, atol=1e-6)

    def test_closes_the_circle_of_longitude(self) -> None:
        grid = regional_grid(10.0)
        field = np.repeat(100.0 * grid.lat[:, None], 36, axis=1)
        lon = contour_points(field_map(field, grid, quantity=PRESSURE))[:, 0]
        assert lon.min() <= -180 and lon.max() >= 180

    def test_leaves_missing_values_blank(self) -> None:
        grid = regional_grid()
        field = np.repeat(100000 + 100.0 * grid.lat[:, None], 180, axis=1)
        field[:, :20] = np.nan
        lon = contour_points(field_map(field, grid, quantity=PRESSURE))[:, 0]
        assert not ((lon > 0) & (lon < 38)).any()
        assert lettering(field_map(np.full(grid.shape, np.nan), grid, quantity=PRESSURE))[1] == "contours every 1 hPa"

    def test_does_not_change_its_input_and_takes_integers(self) -> None:
        grid = regional_grid()
        field = np.full(grid.shape, 100000)
        field_map(field, grid, quantity=PRESSURE)
        assert (field == 100000).all()

    @pytest.mark.parametrize(
        ("amplitude", "quantity", "note"),
        [
            (20e2, PRESSURE, "contours every 4 hPa"),
            (60e2, PRESSURE, "contours every 8 hPa"),
            (2e-4, VORTICITY, "contours every 5 10⁻⁵ s⁻¹"),
        ],
    )
    def test_chooses_a_customary_interval(self, amplitude: float, quantity: Quantity, note: str) -> None:
        grid = regional_grid()
        field = np.repeat(amplitude * np.sin(np.deg2rad(grid.lat))[:, None], 180, axis=1)
        assert lettering(field_map(field, grid, quantity=quantity))[1] == note

    def test_shows_centres_with_their_spread(self) -> None:
        grid = regional_grid()
        centres = ([359.0, 1.0, 2.0], [51.0, 52.0, 53.0], [95500.0, 96000.0, 95230.0])
        figure = field_map(
            np.full(grid.shape, 1e5), grid, quantity=PRESSURE, centres=centres, region=(-20, 40, 15, 65), title="1987"
        )
        dots = drawn(figure, "centres")
        assert dots.get_offsets().tolist() == [[1, 52], [-1, 51], [2, 53]]  # the deepest on top
        assert dots.get_array().tolist() == pytest.approx([960, 955, 952.3])
        assert lettering(figure) == ["1987", "3 centres, 952.3 to 960 hPa  ·  contours every 4 hPa"]

    def test_says_that_there_are_no_centres(self) -> None:
        figure = field_map(np.full((91, 180), 1e5), regional_grid(), quantity=PRESSURE, centres=([], [], []))
        assert lettering(figure)[1].startswith("0 centres")

    def test_refuses_what_does_not_fit(self) -> None:
        grid = regional_grid()
        with pytest.raises(InputError, match=r"shape \(180, 91\), its grid \(91, 180\)"):
            field_map(np.zeros((180, 91)), grid, quantity=PRESSURE)
        with pytest.raises(InputError, match="interval is -4"):
            field_map(np.zeros(grid.shape), grid, quantity=PRESSURE, interval=-4)
        local = Grid(np.arange(40, 61, 2.0), np.arange(0, 21, 2.0))
        with pytest.raises(InputError, match="no points in the region"):
            field_map(np.zeros(local.shape), local, quantity=PRESSURE, region=(100, 40, 120, 60))

    def test_shows_the_storm_of_october_1987(self, shared_data: Path) -> None:
        with netCDF4.Dataset(shared_data / "20cr2c_1987101606" / "20CR2c.1987101606.prmsl.nc") as data:
            grid = Grid(data["lat"][:], data["lon"][:])
            mean = np.asarray(data["prmsl"][:]).mean(axis=0)
        figure = field_map(mean, grid, quantity=PRESSURE, region=(-20, 42, 16, 64))
        points = contour_points(figure)
        over_england = points[(np.abs(points[:, 0]) < 5) & (np.abs(points[:, 1] - 53) < 5)]
        assert len(over_england) > 50  # tightly packed isobars round the low


class TestSave:
    @pytest.mark.parametrize(("name", "start"), [("map.png", b"\x89PNG"), ("map.pdf", b"%PDF")])
    def test_gives_the_same_bytes_each_time(self, tmp_path: Path, name: str, start: bytes) -> None:
        tracks = tracks_of([(10, 40, 1e-4), (12, 41, 2e-4)])
        first = save(track_map(tracks), tmp_path / "new folder" / name).read_bytes()
        assert first.startswith(start)
        assert save(track_map(tracks), str(tmp_path / name)).read_bytes() == first
        assert sorted(path.name for path in tmp_path.iterdir()) == [name, "new folder"]

    def test_refuses_a_kind_of_file_that_it_cannot_write(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"map\.txt"):
            save(track_map(tracks_of()), tmp_path / "map.txt")

    def test_says_what_the_disk_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "map.png").mkdir()
        with pytest.raises(ResultsError, match=r"map\.png"):
            save(track_map(tracks_of()), tmp_path / "map.png")
        assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_pictures_leave_the_global_state_of_matplotlib_alone() -> None:
    program = "import sys, stormtracks.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_matplotlib_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['matplotlib'] = None; import stormtracks.plot"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "stormtracks.errors.StormtracksError: pictures need matplotlib" in done.stderr
    assert "pip install 'stormtracks-ensemble[plot]'" in done.stderr
