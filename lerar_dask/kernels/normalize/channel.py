"""The sky of a night: joint solution, scales, common gradient, put together for one channel.

In: cells of all subs, transforms, star scales, times. Out: scale, sky surface with its error, and quality of each sub;
normalized = (sub - sky) / scale + sky_level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates, median_filter

from lerar_dask.constants import BLOCK_PX
from lerar_dask.kernels.normalize.cells import cell_edges
from lerar_dask.kernels.normalize.common_gradient import (
    N_TERMS,
    Frame,
    Gauge,
    common_terms,
    evaluate_common,
    parallactic_angle,
    sky_modes,
    solve_common_gradient,
)
from lerar_dask.kernels.normalize.joint import Solution, regress_scales, solve
from lerar_dask.kernels.normalize.scales import combine_scales, fit_linear
from lerar_dask.kernels.normalize.slab import Scene, Slab, components, make_slab, scene_canvas
from lerar_dask.kernels.normalize.surface import axis_matrix, fit_surface, surface_shape

__all__ = ["Cells", "Site", "Skies", "identity_skies", "linear_fit_skies", "solve_skies"]

MIN_SPLINE_SUBS = 5
"""Fewer subs get planes: two disturbed subs would outvote a third."""
GRID = 16
"""Points per axis at which a sky is compared with the common field."""
POOR_SCALE = 0.01
"""Scales known worse than this are improved by the scene's own detail."""
SLAB_SUBS = 32
"""Subs whose cells are worked on together: they stay in the cache."""


@dataclass(frozen=True)
class Cells:
    """Cells of subs of one frame shape."""

    subs: np.ndarray
    """(n,) int64: numbers of the subs."""
    frame: tuple[int, int]
    value: np.ndarray
    """(n, cy, cx) float32"""
    weight: np.ndarray
    """(n, cy, cx) float32: 1 / variance; 0 = no data."""


@dataclass(frozen=True)
class Site:
    """What says how the horizon turns in the reference plane."""

    latitude_deg: float
    longitude_deg: float
    ra_deg: float
    dec_deg: float
    parity: int
    """+1 when going from x to y in the reference plane is going from east to north, -1 when it is the reverse."""
    field_deg: float


@dataclass(frozen=True)
class Skies:
    """Result for one channel of all subs."""

    scale: np.ndarray
    """(n,) float64"""
    scale_error: np.ndarray
    """(n,) float64: relative."""
    coefficients: list[np.ndarray]
    """Per sub (py, px) float64: sky in ADU, `surface.evaluate_surface`."""
    error: list[np.ndarray]
    """Per sub (ty, tx) float64: sigma of the sky on its tiles, ADU."""
    variance_ratio: np.ndarray
    """(n,) float64: measured over formal variance of cells."""
    rejected: np.ndarray
    """(n,) float64: share of cells left out as outliers."""
    component: np.ndarray
    """(n,) int64: group of overlapping subs; 0 = the largest."""
    sky_level: float
    """Constant that is added back to all normalized subs, ADU."""
    common: np.ndarray
    """(10,) float64: common field that was moved from the skies to the scene."""
    common_error: np.ndarray
    """(10,) float64: its sigma: what is not known about the scene's own gradient."""
    model: str
    scene: np.ndarray
    """(sy, sx) float32; NaN where no sub saw it; its 10th percentile is 0."""
    scene_grid: Scene


def identity_skies(n: int, frames: Sequence[tuple[int, int]], tile_px: int, scene: Scene) -> Skies:
    """Skies that change nothing."""
    shapes = [surface_shape(f, tile_px) for f in frames]
    return Skies(
        np.ones(n),
        np.zeros(n),
        [np.zeros((y + 3, x + 3)) for y, x in shapes],
        [np.zeros(s) for s in shapes],
        np.ones(n),
        np.zeros(n),
        np.zeros(n, np.int64),
        0.0,
        np.zeros(N_TERMS),
        np.zeros(N_TERMS),
        "none",
        np.full(scene.shape, np.nan, np.float32),
        scene,
    )


def solve_skies(
    cells: Sequence[Cells],
    transforms: np.ndarray,
    *,
    ln_scale: np.ndarray,
    scale_error: np.ndarray,
    exposure_s: np.ndarray,
    time_s: np.ndarray,
    cell_px: int,
    tile_px: int,
    reference: int | None = None,
    site: Site | None = None,
    constant_only: bool = False,
) -> Skies:
    """Scale and sky of every sub of a group.

    Parameters
    ----------
    transforms : (n, 3, 3) float64      reference plane to sub
    ln_scale, scale_error : (n,) float  from stars (`scales.solve_scales`); NaN and inf where stars failed
    exposure_s, time_s : (n,) float     start in unix seconds; NaN = unknown
    tile_px : int                       wanted length of a spline interval
    reference : int, optional           sub in whose units the result is; else the median sub
    constant_only : bool                one constant per sub (`global`)
    """
    n = len(transforms)
    shapes = _frames_of(cells, n)
    scene = scene_canvas(transforms, shapes, cell_px=cell_px)
    slabs = list(_slabs(cells, transforms, scene, tile_px))
    ln_s, error = combine_scales(ln_scale, scale_error, exposure_s)
    terms = "constant" if constant_only or n == 1 else "planes" if n < MIN_SPLINE_SUBS else "all"
    solution = solve(slabs, np.exp(ln_s), scene, terms=terms)
    if n >= 3 and np.median(error) > POOR_SCALE:
        ln_s, error, solution = _scales_from_detail(slabs, ln_s, error, scene, terms, solution)
    scale = np.exp(ln_s - (ln_s[reference] if reference is not None else np.median(ln_s)))
    # The scene was solved in units of the median sub.
    unit = float(np.exp(ln_s[0]) / scale[0])
    order = np.concatenate([slab.subs for slab in slabs])
    splines, errors = _in_order(solution.splines, order), _in_order(solution.error, order)
    groups = components(slabs, scene, n_subs=n)
    image = solution.scene * unit
    coverage = solution.coverage
    first: Gauge | None = None
    for group in range(int(groups.max(initial=0)) + 1):
        members = np.flatnonzero(groups == group)
        area = coverage if groups.max() == 0 else coverage * _touched(slabs, members, scene)
        gradient, frame = _fix_common_gradient(
            members, splines, shapes, transforms, scale, time_s, image, area, scene, tile_px, site, terms
        )
        image[area > 0] += evaluate_common(gradient.common, *_scene_positions(scene, area > 0), frame)
        first = first or gradient
    assert first is not None
    level = float(
        first.levels[_rank(reference, groups)] if _rank(reference, groups) is not None else np.median(first.levels)
    )
    return Skies(
        scale,
        error,
        splines,
        errors,
        np.concatenate(solution.variance_ratio)[np.argsort(order)],
        np.concatenate(solution.rejected)[np.argsort(order)],
        groups,
        level,
        first.common,
        first.error,
        first.model,
        np.where(coverage > 0, image, np.nan).astype(np.float32),
        scene,
    )


def linear_fit_skies(
    cells: Sequence[Cells], transforms: np.ndarray, *, cell_px: int, tile_px: int, reference: int
) -> Skies:
    """Legacy linear fit of each sub to the reference sub: one line of least absolute deviation on common cells."""
    n = len(transforms)
    shapes = _frames_of(cells, n)
    skies = identity_skies(n, [tuple(s) for s in shapes], tile_px, scene_canvas(transforms, shapes, cell_px=cell_px))
    its_cells = next(part for part in cells if reference in part.subs)
    at = int(np.flatnonzero(its_cells.subs == reference)[0])
    known = np.where(its_cells.weight[at] > 0, its_cells.value[at], np.nan).astype(np.float64)
    for part in cells:
        y, x = np.meshgrid(*(_centers(length, cell_px) for length in part.frame), indexing="ij")
        for i, k in enumerate(part.subs):
            step = transforms[reference] @ np.linalg.inv(transforms[k])
            rx, ry = _apply(step, x, y)
            grid = [
                np.interp(v, _centers(length, cell_px), np.arange(len(_centers(length, cell_px))), left=-9, right=-9)
                for v, length in ((ry, its_cells.frame[0]), (rx, its_cells.frame[1]))
            ]
            there = map_coordinates(known, grid, order=1, cval=np.nan)
            common = np.isfinite(there) & (part.weight[i] > 0)
            a, b = (0.0, 1.0) if k == reference else fit_linear(part.value[i][common], there[common])
            b = b if b > 0 else 1.0
            skies.scale[k] = 1.0 / b
            skies.coefficients[k][:] = -a / b
    return skies


def _frames_of(cells: Sequence[Cells], n: int) -> np.ndarray:
    """(n, 2) height and width of each sub."""
    shapes = np.zeros((n, 2), np.int64)
    for part in cells:
        shapes[part.subs] = part.frame
    return shapes


def _slabs(cells: Sequence[Cells], transforms: np.ndarray, scene: Scene, tile_px: int) -> Sequence[Slab]:
    out = []
    for part in cells:
        for a in range(0, len(part.subs), SLAB_SUBS):
            piece = slice(a, a + SLAB_SUBS)
            out.append(
                make_slab(
                    part.subs[piece],
                    part.value[piece],
                    part.weight[piece],
                    transforms=transforms[part.subs[piece]],
                    frame=part.frame,
                    scene=scene,
                    tile_px=tile_px,
                )
            )
    return out


def _scales_from_detail(
    slabs: Sequence[Slab], ln_s: np.ndarray, error: np.ndarray, scene: Scene, terms: str, solution: Solution
) -> tuple[np.ndarray, np.ndarray, Solution]:
    """Alternate scales by regression on the scene's detail with the joint solution; stop early leaves the spread too small."""
    start_ln, start_error = ln_s, error
    for _ in range(5):
        found, formal = regress_scales(slabs, np.exp(ln_s), solution)
        formal = np.maximum(formal, 0.002)
        # The prior is centered on the first guess; below 3 % of formal error detail alone decides.
        w_detail = 1.0 / formal**2
        w_start = np.where(
            formal < 0.03, np.where(start_error < POOR_SCALE, 1.0 / start_error**2, 0.0), 1.0 / start_error**2
        )
        new = (np.log(found) * w_detail + start_ln * w_start) / (w_detail + w_start)
        new -= np.median(new)
        moved = np.abs(new - ln_s).max()
        ln_s, error = new, 1.0 / np.sqrt(w_detail + w_start)
        solution = solve(slabs, np.exp(ln_s), scene, terms=terms, start=solution.scene, rounds=2)
        if moved < 0.001:
            break
    return ln_s, error, solution


def _fix_common_gradient(
    members: np.ndarray,
    splines: list[np.ndarray],
    shapes: np.ndarray,
    transforms: np.ndarray,
    scale: np.ndarray,
    time_s: np.ndarray,
    image: np.ndarray,
    coverage: np.ndarray,
    scene: Scene,
    tile_px: int,
    site: Site | None,
    terms: str,
) -> tuple[Gauge, Frame]:
    """Find the common field of a group of subs and take it off their skies (in place)."""
    grids = [_grid(shapes[k], tile_px) for k in members]
    places = [
        _apply(np.linalg.inv(transforms[k]), *np.meshgrid(g[1], g[0])) for k, g in zip(members, grids, strict=True)
    ]
    values = [(gy @ splines[k] @ gx.T / scale[k]).ravel() for k, (_, _, gy, gx) in zip(members, grids, strict=True)]
    frame = _common_frame(places)
    xs, ys = (np.array([p[i].ravel() for p in places]) for i in (0, 1))
    modes = sky_modes(np.array(values), xs, ys, frame)
    seen = coverage[coverage > 0]
    well = coverage > 0.2 * (np.median(seen) if len(seen) else 0.0)
    smooth = median_filter(np.where(coverage > 0, image, np.median(image[well]) if well.any() else 0.0), 3)
    px, py = _scene_positions(scene, well)
    turn = None
    if site is not None and np.isfinite(time_s[members]).all():
        angle = parallactic_angle(
            time_s[members],
            latitude_deg=site.latitude_deg,
            longitude_deg=site.longitude_deg,
            ra_deg=site.ra_deg,
            dec_deg=site.dec_deg,
        )
        turn = -site.parity * angle
    gradient = solve_common_gradient(
        modes,
        time_s[members],
        smooth[well],
        common_terms(px, py, frame),
        frame=frame,
        turn=turn,
        field_deg=site.field_deg if site else None,
        mean_only=terms != "all",
    )
    if terms == "constant":
        gradient.common[1:] = 0.0
    for k, (gy, gx, _, _), (x, y) in zip(members, grids, places, strict=True):
        field = evaluate_common(gradient.common, x, y, frame)
        splines[k] -= scale[k] * fit_surface(field, tuple(shapes[k]), tile_px, gy, gx)
    return gradient, frame


def _grid(shape: np.ndarray, tile_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns over a frame, and the spline weights there."""
    out = []
    for length, n in zip(shape, surface_shape((int(shape[0]), int(shape[1])), tile_px), strict=True):
        points = np.linspace(0, length - 1, max(GRID, 2 * (n + 3)))
        out.append((points, axis_matrix(points, int(length), n)))
    return out[0][0], out[1][0], out[0][1], out[1][1]


def _common_frame(places: Sequence[tuple[np.ndarray, np.ndarray]]) -> Frame:
    """Median footprint of the subs in the reference plane."""
    low = np.median([[p[0].min(), p[1].min()] for p in places], axis=0)
    high = np.median([[p[0].max(), p[1].max()] for p in places], axis=0)
    half = np.maximum((high - low + 1) / 2, 1.0)
    middle = (low + high) / 2
    return Frame((float(middle[0]), float(middle[1])), (float(half[0]), float(half[1])))


def _scene_positions(scene: Scene, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reference-plane x and y of chosen scene cells."""
    rows, columns = np.nonzero(where)
    return scene.origin_xy[0] + columns * scene.cell_px, scene.origin_xy[1] + rows * scene.cell_px


def _touched(slabs: Sequence[Slab], members: np.ndarray, scene: Scene) -> np.ndarray:
    """(sy, sx) bool: scene cells under some subs."""
    out = np.zeros(scene.shape, bool)
    for slab in slabs:
        for i in np.flatnonzero(np.isin(slab.subs, members)):
            good = slab.weight[i] > 0
            r, c = slab.row[i][good].astype(int), slab.column[i][good].astype(int)
            for a in (0, 1):
                for b in (0, 1):
                    out[r + a, c + b] = True
    return out


def _rank(reference: int | None, groups: np.ndarray) -> int | None:
    """Place of the reference among the subs of the largest group."""
    if reference is None or groups[reference] != 0:
        return None
    return int((groups[:reference] == 0).sum())


def _in_order(parts: Sequence[np.ndarray], order: np.ndarray) -> list[np.ndarray]:
    """Per-slab stacks as a list by sub number."""
    flat = [item for part in parts for item in part]
    return [flat[i] for i in np.argsort(order)]


def _centers(length: int, cell_px: int) -> np.ndarray:
    edges = np.minimum(cell_edges(length, cell_px) * BLOCK_PX, length).astype(np.float64)
    return (edges[:-1] + edges[1:] - 1) / 2


def _apply(transform: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions through a 3x3 transform."""
    d = transform[2, 0] * x + transform[2, 1] * y + transform[2, 2]
    return (
        (transform[0, 0] * x + transform[0, 1] * y + transform[0, 2]) / d,
        (transform[1, 0] * x + transform[1, 1] * y + transform[1, 2]) / d,
    )
