"""Vorticity against closed forms, symmetries and the real winds of a winter."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import ducc0
import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import sph_harm_y

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM, Grid, unit_vectors
from stormtracks.vorticity import relative_vorticity

RADIUS = 1000 * EARTH_RADIUS_KM
ERA5 = Path(__file__).parents[2] / "../shared/data/era5_djf"

Array = npt.NDArray[np.float64]
Fields = tuple[Array, Array, Array]

ORDERS = pytest.mark.parametrize("order", [2, 4])


def grid_of(kind: str, n: int) -> Grid:
    """A grid of about n latitudes over the globe; n even."""
    even = np.linspace(90, -90, n + 1)
    globe = np.arange(2 * n) * 180 / n
    fraction = np.linspace(-1, 1, n + 1)
    match kind:
        case "poles":
            return Grid(even, globe)
        case "half_offset":
            return Grid((even[1:] + even[:-1]) / 2, globe)
        case "gaussian":
            return Grid(np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0])), globe - 180)
        case "uneven":
            return Grid(90 * (fraction + 0.15 * np.sin(np.pi * fraction)), globe)
        case "odd":
            return Grid(even, np.arange(2 * n + 1) * 360 / (2 * n + 1))
        case "half_offset_odd":
            return Grid((even[1:] + even[:-1]) / 2, np.arange(2 * n + 1) * 360 / (2 * n + 1))
        case "hemisphere":
            return Grid(np.linspace(90, -30, 2 * n // 3 + 1), globe)
        case "band":
            return Grid(np.linspace(-30, 65, n // 2 + 1), globe)
        case "limited":
            return Grid(np.linspace(75, 20, n // 2 + 1), np.linspace(260, 340, n // 2 + 1))
        case "uneven_limited":
            return Grid(45 + 25 * (fraction + 0.15 * np.sin(np.pi * fraction)), np.linspace(-60, 20, n + 1))
    raise ValueError(kind)


KINDS = (
    "poles", "half_offset", "gaussian", "uneven", "odd", "half_offset_odd", "hemisphere", "band", "limited",
    "uneven_limited",
)  # fmt: skip
GRIDS = pytest.mark.parametrize("kind", KINDS)


def with_junk_on_poles(field: Array, grid: Grid) -> Array:
    """The field, except that what is stored on a pole is of no use."""
    field = field.copy()
    field[..., list(grid.pole_rows), :] = np.nan
    return field


def rotation(grid: Grid, axis: tuple[float, float, float]) -> Fields:
    """u, v and vorticity of a solid-body rotation of 1e-5 s-1 about an axis."""
    lat, lon = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    up = unit_vectors(lat, lon)
    east = unit_vectors(0 * lat, lon + 90)
    omega = 1e-5 * np.array(axis) / np.linalg.norm(axis)
    velocity = np.cross(omega, RADIUS * up)
    north = np.cross(up, east)
    return (velocity * east).sum(axis=-1), (velocity * north).sum(axis=-1), 2 * up @ omega


def harmonics(grid: Grid, *, divergent: bool) -> Fields:
    """u, v and vorticity for a sum of spherical harmonics, taken as streamfunction or as velocity potential.

    Zonal wavenumbers 0, 1 and 2 are among them: their winds, vorticity and vorticity gradients do not vanish at the
    poles.
    """
    theta, lam = np.deg2rad(90 - grid.lat)[:, None], np.deg2rad(grid.lon)
    fields = np.zeros((3, *grid.shape))
    for degree, wavenumber, phase in ((3, 2, 0.3), (4, 0, 0.0), (5, 1, 1.1), (6, 3, 2.0), (7, 5, 0.7)):
        value, gradient = sph_harm_y(degree, wavenumber, theta, lam - phase, diff_n=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            eastward = gradient[..., 1].real / np.sin(theta)
        northward = -gradient[..., 0].real
        laplacian = -degree * (degree + 1) * value.real
        fields += [eastward, northward, 0 * laplacian] if divergent else [-northward, eastward, laplacian]
    u, v, zeta = fields * 10  # m/s; the vorticity per radius
    return with_junk_on_poles(u, grid), with_junk_on_poles(v, grid), zeta / RADIUS


def noise(grid: Grid, *, steps: int = 1, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    u, v = np.random.default_rng(seed).normal(scale=15, size=(2, steps, *grid.shape)).astype(np.float32)
    return u, v


class TestClosedForms:
    @GRIDS
    @ORDERS
    @pytest.mark.parametrize("axis", [(0, 0, 1), (1, 0, 0), (0.3, -0.8, 0.5), (-0.2, 0.1, -1)])
    def test_solid_body_rotation_is_exact_about_any_axis(
        self, kind: str, order: int, axis: tuple[float, float, float]
    ) -> None:
        grid = grid_of(kind, 36)
        u, v, expected = rotation(grid, axis)
        zeta = relative_vorticity(with_junk_on_poles(u, grid), with_junk_on_poles(v, grid), grid, order=order)
        assert zeta.dtype == np.float32
        np.testing.assert_allclose(zeta, expected, rtol=0, atol=2e-7 * 2e-5)

    @ORDERS
    def test_rotation_in_single_precision(self, order: int) -> None:
        grid = grid_of("poles", 90)
        u, v, expected = rotation(grid, (0.3, -0.8, 0.5))
        zeta = relative_vorticity(u.astype(np.float32), v.astype(np.float32), grid, order=order)
        np.testing.assert_allclose(zeta, expected, rtol=0, atol=5e-5 * 2e-5)

    @GRIDS
    @ORDERS
    @pytest.mark.parametrize("divergent", [False, True], ids=["rotational", "divergent"])
    def test_converges_at_its_order_up_to_the_poles_and_edges(self, kind: str, order: int, divergent: bool) -> None:
        everywhere, at_the_ends = [], []
        for n in (48, 96):
            grid = grid_of(kind, n)
            u, v, expected = harmonics(grid, divergent=divergent)
            error = np.abs(relative_vorticity(u, v, grid, order=order) - expected)
            everywhere.append(error.max())
            at_the_ends.append(max(error[:3].max(), error[-3:].max()))
        typical = np.abs(harmonics(grid, divergent=False)[2]).max()
        assert everywhere[1] < {2: 1e-2, 4: 1.5e-4}[order] * typical
        assert np.log2(everywhere[0] / everywhere[1]) > order - 0.25
        assert np.log2(at_the_ends[0] / at_the_ends[1]) > order - 0.25

    @ORDERS
    @pytest.mark.parametrize("kind", ["poles", "uneven", "odd"])
    def test_a_pole_has_one_value(self, kind: str, order: int) -> None:
        grid = grid_of(kind, 24)
        zeta = relative_vorticity(*noise(grid, steps=3), grid, order=order)
        assert len(grid.pole_rows) == 2
        on_poles = zeta[:, list(grid.pole_rows)]
        assert np.isfinite(on_poles).all()
        assert (on_poles == on_poles[..., :1]).all()

    def test_the_pole_value_is_the_circulation_round_the_nearest_ring(self) -> None:
        grid = grid_of("poles", 36)
        u, v = noise(grid)
        south, north = (np.float64(u[0, row]) for row in (-2, 1))
        ring = RADIUS * np.sin(np.deg2rad(5))
        column_width = 2 * np.pi * ring / grid.shape[1]
        zeta = relative_vorticity(u, v, grid)
        assert zeta[0, 0, 0] == pytest.approx(north.sum() * column_width / (np.pi * ring**2), rel=1e-6)
        assert zeta[0, -1, 0] == pytest.approx(-south.sum() * column_width / (np.pi * ring**2), rel=1e-6)

    def test_a_pole_without_its_ring_has_no_value(self) -> None:
        grid = Grid(np.linspace(90, 20, 29), np.linspace(260, 340, 33))
        u, v, expected = rotation(grid, (0.3, -0.8, 0.5))
        zeta = relative_vorticity(u, v, grid)
        assert np.isnan(zeta[0]).all()
        np.testing.assert_allclose(zeta[1:], expected[1:], rtol=0, atol=2e-7 * 2e-5)


class TestSymmetries:
    @ORDERS
    @pytest.mark.parametrize("kind", ["poles", "half_offset", "gaussian", "odd", "band"])
    @pytest.mark.parametrize("shift", [1, 17, -5])
    def test_roll_in_longitude(self, kind: str, order: int, shift: int) -> None:
        grid = grid_of(kind, 24)
        u, v = noise(grid)
        rolled_grid = Grid(grid.lat, grid.lon - shift * grid.lon_step)
        rolled = relative_vorticity(np.roll(u, shift, -1), np.roll(v, shift, -1), rolled_grid, order=order)
        expected = np.roll(relative_vorticity(u, v, grid, order=order), shift, -1)
        off_poles = [row for row in range(grid.shape[0]) if row not in grid.pole_rows]
        np.testing.assert_array_equal(rolled[:, off_poles], expected[:, off_poles])
        np.testing.assert_allclose(rolled, expected, rtol=1e-6)

    @GRIDS
    @ORDERS
    def test_the_order_of_the_latitudes_does_not_show(self, kind: str, order: int) -> None:
        grid = grid_of(kind, 24)
        u, v = noise(grid)
        flipped = relative_vorticity(u[:, ::-1], v[:, ::-1], Grid(grid.lat[::-1], grid.lon), order=order)
        np.testing.assert_array_equal(flipped[:, ::-1], relative_vorticity(u, v, grid, order=order))

    @GRIDS
    @ORDERS
    def test_the_mirrored_wind_has_the_mirrored_vorticity_of_other_sign(self, kind: str, order: int) -> None:
        grid = grid_of(kind, 24)
        u, v = noise(grid)
        zeta = relative_vorticity(u, v, grid, order=order)
        mirrored = relative_vorticity(u, -v, Grid(-grid.lat, grid.lon), order=order)
        np.testing.assert_allclose(mirrored, -zeta, rtol=1e-6, atol=1e-6 * np.abs(zeta).max())

    @ORDERS
    def test_a_limited_area_agrees_inside_with_the_globe(self, order: int) -> None:
        globe = grid_of("poles", 36)
        u, v = noise(globe)
        rows, columns = slice(4, 20), slice(30, 50)
        inside = (..., slice(order // 2, -order // 2), slice(order // 2, -order // 2))
        zeta = relative_vorticity(u, v, globe, order=order)[:, rows, columns][inside]
        area = Grid(globe.lat[rows], globe.lon[columns])
        of_area = relative_vorticity(u[:, rows, columns], v[:, rows, columns], area, order=order)[inside]
        np.testing.assert_allclose(of_area, zeta, rtol=1e-5, atol=1e-6 * np.abs(zeta).max())


class TestBlocks:
    @settings(max_examples=40)
    @given(
        cuts=st.sets(st.integers(1, 10)),
        kind=st.sampled_from(["poles", "gaussian", "limited"]),
        order=st.sampled_from([2, 4]),
        double=st.booleans(),
    )
    def test_the_number_of_steps_per_call_does_not_show(
        self, cuts: set[int], kind: str, order: int, double: bool
    ) -> None:
        grid = grid_of(kind, 90)
        u, v = (wind.astype(np.float64 if double else np.float32) for wind in noise(grid, steps=11))
        edges = [0, *sorted(cuts), 11]
        blocks = [
            relative_vorticity(u[start:stop], v[start:stop], grid, order=order) for start, stop in pairwise(edges)
        ]
        whole = relative_vorticity(u, v, grid, order=order)
        assert np.concatenate(blocks).tobytes() == whole.tobytes()

    @ORDERS
    def test_layout_in_memory_does_not_show(self, order: int) -> None:
        grid = grid_of("poles", 24)
        u, v = noise(grid, steps=6)
        expected = relative_vorticity(u, v, grid, order=order)
        time_fastest = [np.moveaxis(np.moveaxis(wind, 0, -1).copy(), -1, 0) for wind in (u, v)]
        big_endian = [wind.astype(">f4") for wind in (u, v)]
        for other in (time_fastest, big_endian):
            np.testing.assert_array_equal(relative_vorticity(*other, grid, order=order), expected)
        with_members = relative_vorticity(u.reshape(2, 3, *grid.shape), v.reshape(2, 3, *grid.shape), grid, order=order)
        np.testing.assert_array_equal(with_members.reshape(expected.shape), expected)
        np.testing.assert_array_equal(relative_vorticity(u[0], v[0], grid, order=order), expected[0])
        assert relative_vorticity(u[:0], v[:0], grid, order=order).shape == (0, *grid.shape)


class TestMissing:
    @ORDERS
    def test_a_missing_point_blanks_its_neighbours_along_both_axes(self, order: int) -> None:
        grid = grid_of("poles", 24)
        u, v = noise(grid)
        u[0, 9, 0] = v[0, 9, 0] = np.nan
        reach = range(1, order // 2 + 1)
        nlon = grid.shape[1]
        expected = {(9, 0)}
        for k in reach:
            expected |= {(9 - k, 0), (9 + k, 0), (9, k), (9, nlon - k)}
        rows, columns = np.nonzero(np.isnan(relative_vorticity(u, v, grid, order=order)[0]))
        assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected

    def test_beside_a_pole_it_blanks_the_pole_and_the_opposite_column(self) -> None:
        grid = grid_of("poles", 24)
        u, v = noise(grid)
        u[0, 1, 3] = np.nan
        missing = np.isnan(relative_vorticity(u, v, grid)[0])
        assert missing[0].all()
        assert np.flatnonzero(missing[1]).tolist() == [3, 3 + 24]
        assert np.flatnonzero(missing[2]).tolist() == [3]
        assert not missing[3:].any()

    def test_masked_is_missing(self) -> None:
        grid = grid_of("gaussian", 24)
        u, v = noise(grid)
        masked = np.ma.masked_greater(u, 30)
        assert masked.mask.any()
        expected = relative_vorticity(np.where(u > 30, np.nan, u).astype(np.float32), v, grid)
        np.testing.assert_array_equal(relative_vorticity(masked, v, grid), expected)


class TestBadInput:
    @pytest.mark.parametrize(
        ("u_shape", "v_shape"),
        [((2, 25, 48), (3, 25, 48)), ((2, 48, 25), (2, 48, 25)), ((25, 48), (24, 48)), ((48,), (48,))],
    )
    def test_shapes_that_differ(self, u_shape: tuple[int, ...], v_shape: tuple[int, ...]) -> None:
        grid = grid_of("poles", 24)
        with pytest.raises(InputError) as raised:
            relative_vorticity(np.zeros(u_shape), np.zeros(v_shape), grid)
        assert f"u has shape {u_shape}, v has shape {v_shape}" in str(raised.value)
        assert "25 latitudes and 48 longitudes" in str(raised.value)

    def test_an_order_there_is_none_of(self) -> None:
        grid = grid_of("poles", 24)
        with pytest.raises(InputError, match="order 3"):
            relative_vorticity(*noise(grid), grid, order=3)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("lat", "lon"), [([90, 45, 0, -45, -90], 10), ([30, 20, 10, 0, -10], 4)])
    def test_a_grid_too_small_for_the_order(self, lat: list[float], lon: int) -> None:
        grid = Grid(np.array(lat, dtype=float), np.arange(lon) * 5.0)
        u = np.zeros(grid.shape)
        assert relative_vorticity(u, u, grid, order=2).shape == grid.shape
        with pytest.raises(InputError, match="at least 5 of each; order 2 needs 3"):
            relative_vorticity(u, u, grid, order=4)


# ---- Real winds


def eddies(field: npt.NDArray[np.float32]) -> Array:
    """Total wavenumbers 5 to 42 of a field on an even grid with both poles, shape (nlat, nlon)."""
    nlat, nlon = field.shape
    top = min(nlat - 2, (nlon - 1) // 2)
    common = {"spin": 0, "lmax": top, "mmax": top, "geometry": "CC"}
    coefficients = ducc0.sht.analysis_2d(map=field[None].astype(np.float64), **common)
    degree = np.concatenate([np.arange(wavenumber, top + 1) for wavenumber in range(top + 1)])
    coefficients[:, (degree < 5) | (degree > 42)] = 0
    return np.asarray(ducc0.sht.synthesis_2d(alm=coefficients, ntheta=nlat, nphi=nlon, **common)[0])


def correlation(a: Array, b: Array, weight: Array) -> float:
    """Pearson's coefficient over all points, weighted."""
    a = a - np.average(a, weights=weight)
    b = b - np.average(b, weights=weight)
    return float((weight * a * b).sum() / np.sqrt((weight * a * a).sum() * (weight * b * b).sum()))


@pytest.fixture(scope="module")
def winter() -> tuple[Grid, npt.NDArray[np.float32], npt.NDArray[np.float32], Array]:
    """Grid, eddy wind u and v, and the eddy vorticity that it belongs to, by spherical harmonics."""
    if not ERA5.is_dir():
        pytest.skip(f"the ERA5 sample is not at {ERA5}")
    fields = {}
    for name in ("u850", "v850", "vo850"):
        with netCDF4.Dataset(ERA5 / f"{name}.nc") as data:
            fields[name] = np.asarray(data[name][:])
            grid = Grid(np.asarray(data["lat"][:]), np.asarray(data["lon"][:]))
    return grid, fields["u850"], fields["v850"], np.stack([eddies(step) for step in fields["vo850"]])


@pytest.mark.parametrize(("order", "needed", "needed_near_poles"), [(2, 0.99, 0.985), (4, 0.998, 0.997)])
def test_winds_of_a_real_winter(
    winter: tuple[Grid, npt.NDArray[np.float32], npt.NDArray[np.float32], Array],
    order: int,
    needed: float,
    needed_near_poles: float,
) -> None:
    grid, u, v, expected = winter
    zeta = relative_vorticity(u, v, grid, order=order).astype(np.float64)
    area = np.broadcast_to(np.cos(np.deg2rad(grid.lat))[:, None], zeta.shape)
    equatorward = np.abs(grid.lat) < 70
    for rows, bound in ((equatorward, needed), (~equatorward, needed_near_poles)):
        for weight in (area, np.ones_like(area)):
            assert correlation(zeta[:, rows], expected[:, rows], weight[:, rows]) > bound
    per_step = [correlation(*(field[step, equatorward] for field in (zeta, expected, area))) for step in range(len(u))]
    assert len(per_step) == 360
    assert min(per_step) > needed
