"""The joint solution: one scene and one smooth sky per sub, for all subs together.

Model of cell u of sub k: `y_k(u) = s_k C(T_k u) + b_k(u) + noise`, with the scene C on a canvas of cells in the reference
plane and the sky b_k a spline surface in the sub's own pixels. Everything is solved at once by preconditioned conjugate
gradients; there is no reference sub, hence no reference noise and no reference gradient. In: cells of all subs in slabs
of one frame shape. Out: scene, mode coefficients, their variances. The gradient common to all subs is left as the data
leave it; `kernels/gauge.py` fixes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from lerar_dask.kernels.cells import BLOCK_PX, cell_edges
from lerar_dask.kernels.surface import AxisModes, axis_modes, surface_shape

__all__ = [
    "Scene",
    "Slab",
    "Solution",
    "components",
    "follow_scene",
    "make_slab",
    "regress_scales",
    "scene_canvas",
    "solve",
]

KAPPA = 0.03
"""Share of the scene's Laplacian that bilinear sampling of the scene may be wrong by (calibrated: z = 1)."""
MAD = 1.4826
EXPONENTS = (0.75, 1.0, 1.5, 2.0)
"""Slopes of the prior's spectrum that the evidence may choose from."""


@dataclass(frozen=True)
class Scene:
    """Where the scene's cells lie in the reference plane."""

    origin_xy: tuple[float, float]
    """Reference-plane position of cell (0, 0)'s center."""
    shape: tuple[int, int]
    """Cells in y and x."""
    cell_px: int
    """Side of a cell."""


@dataclass
class Slab:
    """Cells of subs with one frame shape, and what the solver knows of them."""

    subs: np.ndarray
    """(n,) int64: numbers of the subs."""
    frame: tuple[int, int]
    """Height and width of the frames, in pixels."""
    value: np.ndarray
    """(n, cy, cx) float32: cell means, less `level`."""
    weight: np.ndarray
    """(n, cy, cx) float32: 1 / variance; 0 = no data."""
    level: np.ndarray
    """(n,) float64: constant taken off the cells of each sub, so that float32 suffices."""
    row: np.ndarray
    """(n, cy, cx) float32: position of each cell center on the scene, in cells."""
    column: np.ndarray
    rows: AxisModes
    """Modes along y."""
    columns: AxisModes
    solve_weight: np.ndarray = field(init=False)
    """(n, cy, cx) float32: weight in force: noise, scene detail, outliers."""
    modes: np.ndarray = field(init=False)
    """(n, my, mx) float64: sky in modes."""
    penalty: np.ndarray = field(init=False)
    """(n, my, mx) float64: inverse prior variance of each mode."""
    f: np.ndarray = field(init=False)
    """(n,) float64: measured over formal variance of a sub's cells."""

    def __post_init__(self) -> None:
        n = len(self.subs)
        self.solve_weight = self.weight.copy()
        self.modes = np.zeros((n, len(self.rows.roughness), len(self.columns.roughness)))
        self.penalty = np.zeros_like(self.modes)
        self.f = np.ones(n)


@dataclass(frozen=True)
class Solution:
    """What the joint solution knows, before the common gradient is fixed."""

    scene: np.ndarray
    """(sy, sx) float64: scene, in units of a sub of scale 1."""
    coverage: np.ndarray
    """(sy, sx) float64: weight of each scene cell; 0 = nobody saw it."""
    splines: list[np.ndarray]
    """Per slab (n, py, px) float64: sky as spline coefficients."""
    error: list[np.ndarray]
    """Per slab (n, ty, tx) float64: posterior sigma of the sky at the middle of each tile."""
    f: list[np.ndarray]
    """Per slab (n,) float64: measured over formal variance of a sub's cells."""
    rejected: list[np.ndarray]
    """Per slab (n,) float64: share of cells that count less than half for being outliers."""
    iterations: int


def scene_canvas(transforms: np.ndarray, shapes: np.ndarray, *, cell_px: int) -> Scene:
    """Canvas of cells that holds every sub, with a margin of a cell.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     reference plane to sub
    shapes : (n, 2) int                height and width of each sub
    """
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    points = []
    for transform, (height, width) in zip(transforms, np.asarray(shapes, float), strict=True):
        frame = np.column_stack([corners * [width - 1, height - 1], np.ones(4)])
        mapped = frame @ np.linalg.inv(transform).T
        points.append(mapped[:, :2] / mapped[:, 2:])
    low = np.floor(np.min(points, axis=(0, 1))) - cell_px
    high = np.ceil(np.max(points, axis=(0, 1))) + cell_px
    cells = np.ceil((high - low) / cell_px).astype(int) + 1
    return Scene((float(low[0]), float(low[1])), (int(cells[1]), int(cells[0])), cell_px)


def make_slab(
    subs: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    *,
    transforms: np.ndarray,
    frame: tuple[int, int],
    scene: Scene,
    tile_px: int,
) -> Slab:
    """Put cells of subs of one frame shape where the solver wants them.

    Parameters
    ----------
    subs : (n,) int                     numbers of the subs
    value, weight : (n, cy, cx) float32   from `cells.bin_cells`
    transforms : (n, 3, 3) float64      reference plane to sub
    """
    centers, modes = [], []
    for length, n in zip(frame, surface_shape(frame, tile_px), strict=True):
        edges = np.minimum(cell_edges(length, scene.cell_px) * BLOCK_PX, length).astype(float)
        centers.append((edges[:-1] + edges[1:] - 1) / 2)
        modes.append(axis_modes(edges, length, n))
    row = np.empty(value.shape, np.float32)
    column = np.empty(value.shape, np.float32)
    inverse = np.linalg.inv(np.asarray(transforms, np.float64))
    _place(inverse, *centers, *scene.origin_xy, 1.0 / scene.cell_px, row, column)
    level = np.array([np.median(v[w > 0]) if (w > 0).any() else 0.0 for v, w in zip(value, weight, strict=True)], float)
    shifted = (value - level[:, None, None]).astype(np.float32)
    shifted[weight <= 0] = 0.0
    inside = (row >= 0) & (column >= 0) & (row < scene.shape[0] - 1) & (column < scene.shape[1] - 1)
    weight = np.where(inside, weight, 0.0).astype(np.float32)
    row[~inside], column[~inside] = 0.0, 0.0
    return Slab(np.asarray(subs, np.int64), frame, shifted, weight, level, row, column, *modes)


def solve(
    slabs: Sequence[Slab],
    scale: np.ndarray,
    scene: Scene,
    *,
    terms: str = "all",
    start: np.ndarray | None = None,
    rounds: int = 6,
    tolerance: float = 0.03,
    inner: int = 15,
) -> Solution:
    """Scene and sky of all subs.

    Parameters
    ----------
    slabs : cells of all subs; their modes, penalties and weights are worked on in place
    scale : (n_subs,) float64        s_k
    terms : {"all", "planes", "constant"}     what a sky may hold
    start : (sy, sx) float64         scene to go on from (with the slabs' modes), after scales changed

    Notes
    -----
    Stage 1 solves the flat modes {1, x, y, xy} alone, so that curvature common to all subs goes to the scene; started
    with all modes at once, part of it would stay with the skies, and the evidence would keep it there.
    """
    state = _State(slabs, scale, scene, start)
    iterations = 0
    if start is None:
        state.hold(terms, only_flat=True)
        iterations += state.descend(tolerance=tolerance, inner=40)
        state.reweight(cut=13.5, detail=False)
        iterations += state.descend(tolerance=tolerance, inner=inner)
    for turn in range(rounds):
        before = np.concatenate([slab.f for slab in slabs])
        state.reweight(cut=4.5 if turn or start is not None else 9.0, detail=True)
        if terms == "all":
            state.learn_prior()
        else:
            state.hold(terms, only_flat=True)
        iterations += state.descend(tolerance=tolerance, inner=inner)
        after = np.concatenate([slab.f for slab in slabs])
        if turn >= 2 and np.abs(np.log(after / before)).max(initial=0.0) < 0.02:
            break
    return state.finish(iterations)


def regress_scales(slabs: Sequence[Slab], scale: np.ndarray, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Scales from the scene's own detail (nebula), for subs without usable stars.

    Both the scene under a sub and the sub itself lose what the sub's sky modes can follow; the rest is regressed.

    Returns
    -------
    scale : (n_subs,) float64     new estimate; the old one where detail says nothing
    error : (n_subs,) float64     formal relative error
    """
    new, error = scale.copy(), np.full(len(scale), np.inf)
    for slab in slabs:
        sample = np.empty_like(slab.value)
        _sample(solution.scene, slab.row, slab.column, sample)
        data = slab.value.astype(np.float64)
        weight = slab.solve_weight.astype(np.float64)
        t_scene = _detrend(slab, sample.astype(np.float64), weight)
        t_data = _detrend(slab, data, weight)
        square = np.sum(weight * t_scene**2, axis=(1, 2))
        cross = np.sum(weight * t_scene * t_data, axis=(1, 2))
        use = square > 0
        s = np.divide(cross, square, where=use, out=scale[slab.subs].copy())
        use &= s > 0
        new[slab.subs[use]] = s[use]
        error[slab.subs[use]] = 1.0 / (np.sqrt(square[use]) * s[use])
    return new, error


def follow_scene(slab: Slab, scale: np.ndarray, scene: np.ndarray, *, terms: str = "all", rounds: int = 8) -> Solution:
    """Sky of images over a scene that is known and stays as it is: the estimator of `solve` with nothing else unknown.

    Parameters
    ----------
    slab : cells of the images; worked on in place, cells that touch unknown scene lose their weight
    scale : (n,) float64             by number of the image, as in `solve`
    scene : (sy, sx) float           NaN = nobody saw it
    terms : {"all", "flat", "constant"}      what a sky may hold; flat: 1, x, y, xy
    """
    hole = np.empty_like(slab.value)
    _sample(np.isnan(scene).astype(np.float64), slab.row, slab.column, hole)
    slab.weight[hole > 0] = 0.0
    slab.solve_weight = slab.weight.copy()
    state = _State([slab], scale, Scene((0.0, 0.0), scene.shape, 1), np.nan_to_num(scene).astype(np.float64))
    state.hold(terms, only_flat=True)
    state.follow()
    for turn in range(rounds):
        before = slab.f.copy()
        state.reweight(cut=(13.5, 9.0)[turn] if turn < 2 else 4.5, detail=True)
        if terms == "all":
            state.learn_prior()
        else:
            state.hold(terms, only_flat=True)
        state.follow()
        if turn >= 3 and np.abs(np.log(slab.f / before)).max(initial=0.0) < 0.02:
            break
    return state.finish(0)


def _detrend(slab: Slab, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Data less their own penalized mode fit."""
    return data - slab.rows.values @ _fit_modes(slab, data, weight) @ slab.columns.values.T


def _fit_modes(slab: Slab, data: np.ndarray, weight: np.ndarray, sweeps: int = 12) -> np.ndarray:
    """Penalized fit of the slab's modes to data, (n, my, mx) float64, by conjugate gradients in mode space."""
    rows, columns = slab.rows.values, slab.columns.values
    total = weight.sum(axis=(1, 2))[:, None, None] + 1e-30
    inverse = 1.0 / (total + slab.penalty)

    def adjoint(field_: np.ndarray) -> np.ndarray:
        return rows.T @ field_ @ columns

    a = np.zeros_like(slab.modes)
    r = adjoint(weight * data)
    z = inverse * r
    p = z.copy()
    rz = np.sum(r * z, axis=(1, 2))
    for _ in range(sweeps):
        q = adjoint(weight * (rows @ p @ columns.T)) + slab.penalty * p
        step = rz / np.maximum(np.sum(p * q, axis=(1, 2)), 1e-300)
        a += step[:, None, None] * p
        r -= step[:, None, None] * q
        z = inverse * r
        new = np.sum(r * z, axis=(1, 2))
        p = z + (new / np.maximum(rz, 1e-300))[:, None, None] * p
        rz = new
    return a


def components(slabs: Sequence[Slab], scene: Scene, *, n_subs: int) -> np.ndarray:
    """Groups of subs that overlap, directly or over others: (n_subs,) int64, 0 = the largest.

    Groups that do not overlap have no common zero; the run must say so.
    """
    seen = np.zeros((n_subs, (-(-scene.shape[0] // 4)) * (-(-scene.shape[1] // 4))), bool)
    wide = -(-scene.shape[1] // 4)
    for slab in slabs:
        for i, k in enumerate(slab.subs):
            good = slab.weight[i] > 0
            seen[k, (slab.row[i][good].astype(int) // 4) * wide + slab.column[i][good].astype(int) // 4] = True
    label = np.full(n_subs, -1)
    found = 0
    for k in range(n_subs):
        if label[k] >= 0:
            continue
        members = np.zeros(n_subs, bool)
        members[k] = True
        area = seen[k].copy()
        while True:
            grown = members | ((seen & area).sum(axis=1) >= 4)
            if (grown == members).all():
                break
            members, area = grown, seen[grown].any(axis=0)
        label[members] = found
        found += 1
    order = np.argsort(-np.bincount(label, minlength=found), kind="stable")
    rank = np.empty(found, np.int64)
    rank[order] = np.arange(found)
    return rank[label]


class _State:
    """Unknowns and work arrays of one solution: reweight, learn the prior, descend."""

    def __init__(self, slabs: Sequence[Slab], scale: np.ndarray, scene: Scene, start: np.ndarray | None) -> None:
        self.slabs = list(slabs)
        self.scales = [np.asarray(scale, np.float64)[slab.subs] for slab in slabs]
        self.scene = np.zeros(scene.shape) if start is None else start.copy()
        self.detail = [np.zeros_like(slab.weight) for slab in slabs]
        self.work = [np.empty_like(slab.value) for slab in slabs]
        self.rows = [np.ascontiguousarray(slab.rows.values, np.float32) for slab in slabs]
        self.columns = [np.ascontiguousarray(slab.columns.values, np.float32) for slab in slabs]
        self.n_valid = max(1, sum(int((slab.weight > 0).sum()) for slab in slabs))

    def hold(self, terms: str, *, only_flat: bool) -> None:
        """Forbid modes by a penalty that nothing overcomes."""
        for slab in self.slabs:
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None] + 1e-30
            free = np.zeros(slab.modes.shape[1:], bool)
            if terms == "constant":
                free[0, 0] = True
            elif terms == "planes":
                free[:2, :2] = True
                free[1, 1] = False
            elif only_flat:
                free[:2, :2] = True
            slab.penalty = np.where(free, 0.0, 1e9 * total)
            slab.modes[:, ~free] = 0.0

    def residuals(self, i: int) -> np.ndarray:
        """Cells less scene and sky of slab i, into its work array."""
        slab, out = self.slabs[i], self.work[i]
        _expand(slab.modes.astype(np.float32), self.rows[i], self.columns[i], out)
        _residual(slab.value, self.scene, slab.row, slab.column, self.scales[i], out)
        return out

    def reweight(self, *, cut: float, detail: bool) -> None:
        """Scale of each sub's residuals, and robust weights."""
        bumps = _laplacian(self.scene)
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            if detail:
                _sample(bumps, slab.row, slab.column, self.detail[i])
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
            edf = np.sum(total / np.maximum(total + slab.penalty, 1e-30), axis=(1, 2))
            _reweight(residual, slab.weight, self.detail[i], self.scales[i], edf, cut, slab.f, slab.solve_weight)

    def learn_prior(self) -> None:
        """Noise-adaptive prior of each sub by evidence."""
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            residual *= slab.solve_weight
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)
            safe = np.where(total > 0, total, 1.0)
            d = slab.modes + _project(residual, self.rows[i], self.columns[i]) / safe[:, None, None]
            rough = _roughness(slab)
            exponent, variance = _evidence(d, rough, safe)
            with np.errstate(divide="ignore"):
                wanted = rough[None] ** exponent[:, None, None] / variance[:, None, None]
            slab.penalty = np.minimum(wanted, 1e9 * safe[:, None, None])
            slab.penalty[total <= 0] = 1.0

    def follow(self) -> None:
        """Skies that fit best over the scene as it stands."""
        for i, slab in enumerate(self.slabs):
            _sample(self.scene, slab.row, slab.column, self.work[i])
            data = slab.value - self.scales[i][:, None, None] * self.work[i]
            slab.modes = _fit_modes(slab, data, slab.solve_weight.astype(np.float64), sweeps=40)

    def descend(self, *, tolerance: float, inner: int) -> int:
        """Joint conjugate gradients from where the solution stands; number of iterations."""
        slabs = self.slabs
        gradient = np.zeros_like(self.scene)
        diagonal = np.zeros_like(self.scene)
        grad_modes, inverse_modes = [], []
        for i, slab in enumerate(slabs):
            residual = self.residuals(i)
            _gather(residual, slab.solve_weight, slab.row, slab.column, self.scales[i], gradient, diagonal)
            grad_modes.append(_project(residual, self.rows[i], self.columns[i]) - slab.penalty * slab.modes)
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None] + 1e-30
            inverse_modes.append(1.0 / (total + slab.penalty))
        seen = diagonal > 0
        ridge = 1e-6 * float(np.median(diagonal[seen])) if seen.any() else 1.0
        inverse = 1.0 / (diagonal + ridge)
        z = inverse * gradient
        z_modes = [m * g for m, g in zip(inverse_modes, grad_modes, strict=True)]
        p, p_modes = z.copy(), [a.copy() for a in z_modes]
        norm = _dot(gradient, z, grad_modes, z_modes)
        limit = tolerance**2 * self.n_valid
        used = 0
        for used in range(1, inner + 1):
            if not norm > limit:
                return used - 1
            q, q_modes = self._apply(p, p_modes, ridge)
            step = norm / _dot(p, q, p_modes, q_modes)
            self.scene += step * p
            gradient -= step * q
            for i, slab in enumerate(slabs):
                slab.modes += step * p_modes[i]
                grad_modes[i] -= step * q_modes[i]
            z = inverse * gradient
            z_modes = [m * g for m, g in zip(inverse_modes, grad_modes, strict=True)]
            new = _dot(gradient, z, grad_modes, z_modes)
            p = z + new / norm * p
            p_modes = [a + new / norm * b for a, b in zip(z_modes, p_modes, strict=True)]
            norm = new
        return used

    def _apply(self, p: np.ndarray, p_modes: list[np.ndarray], ridge: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """The normal equations' matrix times a direction."""
        q = ridge * p
        q_modes = []
        for i, slab in enumerate(self.slabs):
            work = self.work[i]
            _expand(p_modes[i].astype(np.float32), self.rows[i], self.columns[i], work)
            _normal(p, slab.row, slab.column, self.scales[i], slab.solve_weight, work, q)
            q_modes.append(_project(work, self.rows[i], self.columns[i]) + slab.penalty * p_modes[i])
        return q, q_modes

    def finish(self, iterations: int) -> Solution:
        """Bring everything into the form that others use."""
        coverage = np.zeros_like(self.scene)
        splines, errors, rejected = [], [], []
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            _gather(residual, slab.weight, slab.row, slab.column, self.scales[i], np.zeros_like(coverage), coverage)
            modes = slab.modes.copy()
            modes[:, 0, 0] += slab.level / (slab.rows.values[0, 0] * slab.columns.values[0, 0])
            splines.append(slab.rows.to_splines @ modes @ slab.columns.to_splines.T)
            errors.append(_tile_error(slab))
            valid = slab.weight > 0
            kept = slab.solve_weight * slab.f[:, None, None] > 0.3 * slab.weight
            rejected.append((valid & ~kept).sum(axis=(1, 2)) / np.maximum(valid.sum(axis=(1, 2)), 1))
        return Solution(
            self.scene, coverage, splines, errors, [slab.f.copy() for slab in self.slabs], rejected, iterations
        )


def _roughness(slab: Slab) -> np.ndarray:
    """(my, mx): thin-plate-like roughness of each product mode, smallest positive one = 1; 0 = {1, x, y, xy}."""
    e = (np.sqrt(slab.rows.roughness)[:, None] + np.sqrt(slab.columns.roughness)[None, :]) ** 2
    positive = e > 1e-12 * e.max()
    e[~positive] = 0.0
    return e / e[positive].min() if positive.any() else e


def _tile_error(slab: Slab) -> np.ndarray:
    """Posterior sigma at tile centers, larger where cells are missing around."""
    splines = [len(axis.roughness) - 3 for axis in (slab.rows, slab.columns)]
    squares = []
    for axis, n in zip((slab.rows, slab.columns), splines, strict=True):
        # Uniform cubic splines at the middle of an interval: 1/48, 23/48, 23/48, 1/48.
        middle = np.zeros((n, n + 3))
        for a, w in enumerate((1 / 48, 23 / 48, 23 / 48, 1 / 48)):
            middle[np.arange(n), np.arange(n) + a] = w
        squares.append((middle @ axis.to_splines) ** 2)
    total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    variance = squares[0] @ (1.0 / np.maximum(total + slab.penalty, 1e-30)) @ squares[1].T
    local = _tile_means(slab.solve_weight, *splines)
    mean = local.mean(axis=(1, 2), keepdims=True)
    return np.sqrt(variance * np.maximum(1.0, mean / np.maximum(local, 0.02 * mean + 1e-30)))


def _tile_means(field_: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Mean of cells over each tile and half a tile around it."""
    out = np.empty((field_.shape[0], ny, nx))
    cy, cx = field_.shape[1:]
    for i in range(ny):
        y0, y1 = max(0, int((i - 0.5) * cy / ny)), min(cy, max(int((i + 1.5) * cy / ny), 1))
        for j in range(nx):
            x0, x1 = max(0, int((j - 0.5) * cx / nx)), min(cx, max(int((j + 1.5) * cx / nx), 1))
            out[:, i, j] = field_[:, y0:y1, x0:x1].mean(axis=(1, 2), dtype=np.float64)
    return out


def _evidence(d: np.ndarray, rough: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and variance of each sub's prior, by maximum evidence on a grid.

    Modes of similar roughness are taken together: 30 bins in ln e change the optimum by less than a grid step.
    """
    n = len(d)
    curved = rough.ravel() > 0
    e = rough.ravel()[curved]
    if not len(e):
        return np.ones(n), np.ones(n)
    power = d.reshape(n, -1)[:, curved] ** 2 * total[:, None]
    ln_e = np.log(e)
    n_bins = 30
    which = np.minimum((ln_e / (ln_e.max() + 1e-9) * n_bins).astype(int), n_bins - 1)
    used, which = np.unique(which, return_inverse=True)
    counts = np.bincount(which).astype(float)
    centers = np.bincount(which, ln_e) / counts
    sums = np.stack([power[:, which == b].sum(axis=1) for b in range(len(used))], axis=1)
    ln_t = np.arange(-8.0, 30.5, 0.5)
    best = np.full(n, -np.inf)
    exponent, ln_best = np.ones(n), np.full(n, ln_t[0])
    for q in EXPONENTS:
        gain = 1.0 + np.exp(ln_t[:, None] - q * centers[None, :])
        score = -0.5 * (sums @ (1.0 / gain).T + (np.log(gain) @ counts)[None, :])
        top = score.argmax(axis=1)
        value = score[np.arange(n), top]
        better = value > best
        best[better], exponent[better], ln_best[better] = value[better], q, ln_t[top[better]]
    return exponent, np.exp(ln_best) / total


def _dot(a: np.ndarray, b: np.ndarray, a_modes: list[np.ndarray], b_modes: list[np.ndarray]) -> float:
    """Scalar product over scene and all modes."""
    return float(np.vdot(a, b) + sum(np.vdot(x, y) for x, y in zip(a_modes, b_modes, strict=True)))


def _expand(modes: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Surfaces (n, cy, cx) of mode coefficients (n, my, mx)."""
    half = modes.reshape(-1, modes.shape[2]) @ columns.T
    np.matmul(rows, half.reshape(modes.shape[0], modes.shape[1], -1), out=out)


def _project(field_: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Adjoint of `_expand`, (n, my, mx) float64."""
    half = field_.reshape(-1, field_.shape[2]) @ columns
    return np.matmul(rows.T, half.reshape(field_.shape[0], field_.shape[1], -1)).astype(np.float64)


def _laplacian(scene: np.ndarray) -> np.ndarray:
    """Larger of |Laplacian| and the mean of its neighbors': scene detail that bilinear sampling misses."""
    padded = np.pad(scene, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    size = np.abs(around - 4 * scene)
    padded = np.pad(size, 1, mode="edge")
    mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    return KAPPA * np.maximum(size, mean)


@njit(cache=True, nogil=True, error_model="numpy")
def _place(
    inverse: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    x0: float,
    y0: float,
    per_px: float,
    row: np.ndarray,
    column: np.ndarray,
) -> None:
    for k in range(inverse.shape[0]):
        m = inverse[k]
        for i in range(ys.size):
            for j in range(xs.size):
                d = 1.0 / (m[2, 0] * xs[j] + m[2, 1] * ys[i] + m[2, 2])
                column[k, i, j] = ((m[0, 0] * xs[j] + m[0, 1] * ys[i] + m[0, 2]) * d - x0) * per_px
                row[k, i, j] = ((m[1, 0] * xs[j] + m[1, 1] * ys[i] + m[1, 2]) * d - y0) * per_px


@njit(cache=True, nogil=True, error_model="numpy")
def _sample(scene: np.ndarray, row: np.ndarray, column: np.ndarray, out: np.ndarray) -> None:
    """Bilinear value of the scene at each cell."""
    for k in range(row.shape[0]):
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = row[k, i, j] - r, column[k, i, j] - c
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                out[k, i, j] = top + fy * (low - top)


@njit(cache=True, nogil=True, error_model="numpy")
def _residual(
    value: np.ndarray, scene: np.ndarray, row: np.ndarray, column: np.ndarray, scale: np.ndarray, out: np.ndarray
) -> None:
    """Out (the sky) becomes value - scale * scene - sky."""
    for k in range(row.shape[0]):
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = row[k, i, j] - r, column[k, i, j] - c
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                out[k, i, j] = value[k, i, j] - scale[k] * (top + fy * (low - top)) - out[k, i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _normal(
    scene: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    scale: np.ndarray,
    weight: np.ndarray,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Work (a sky) becomes weight * (scale * scene + sky); its scene part is added to out. Fixed order of subs."""
    for k in range(row.shape[0]):
        s = scale[k]
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                w = np.float64(weight[k, i, j])
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = np.float64(row[k, i, j] - r), np.float64(column[k, i, j] - c)
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                v = w * (s * (top + fy * (low - top)) + work[k, i, j])
                work[k, i, j] = v
                g = s * v
                below = fy * g
                above = g - below
                out[r, c + 1] += fx * above
                out[r, c] += above - fx * above
                out[r + 1, c + 1] += fx * below
                out[r + 1, c] += below - fx * below


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(
    residual: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    scale: np.ndarray,
    gradient: np.ndarray,
    diagonal: np.ndarray,
) -> None:
    """Residual becomes weight * residual; gradient and diagonal of the scene are added to."""
    for k in range(row.shape[0]):
        s = scale[k]
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                w = np.float64(weight[k, i, j])
                v = w * residual[k, i, j]
                residual[k, i, j] = v
                if w == 0.0:
                    continue
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = np.float64(row[k, i, j] - r), np.float64(column[k, i, j] - c)
                for a in range(2):
                    for b in range(2):
                        share = (fy if a else 1.0 - fy) * (fx if b else 1.0 - fx)
                        gradient[r + a, c + b] += share * s * v
                        diagonal[r + a, c + b] += share * s * s * w


@njit(cache=True, nogil=True, error_model="numpy")
def _reweight(
    residual: np.ndarray,
    weight: np.ndarray,
    detail: np.ndarray,
    scale: np.ndarray,
    edf: np.ndarray,
    cut: float,
    f: np.ndarray,
    out: np.ndarray,
) -> None:
    """F = measured over formal variance, from the median |z| of a sub (histogram of 1/256 steps); Tukey weights."""
    n_bins = 256 * 64
    histogram = np.zeros(n_bins + 1, np.int64)
    for k in range(residual.shape[0]):
        histogram[:] = 0
        count = 0
        for i in range(residual.shape[1]):
            for j in range(residual.shape[2]):
                w = weight[k, i, j]
                if w > 0:
                    bump = scale[k] * detail[k, i, j]
                    v = w / (1.0 + w * bump * bump)
                    out[k, i, j] = v
                    z = abs(residual[k, i, j]) * np.sqrt(v)
                    histogram[min(int(z * 256.0), n_bins)] += 1
                    count += 1
                else:
                    out[k, i, j] = 0.0
        if count == 0:
            f[k] = 1.0
            continue
        below = 0
        median = 64.0
        for b in range(n_bins):
            if 2 * (below + histogram[b]) >= count:
                median = (b + (0.5 * count - below) / histogram[b]) / 256.0
                break
            below += histogram[b]
        freedom = count / max(count - edf[k], 0.1 * count)
        f[k] = max((MAD * median) ** 2 * freedom, 0.5)
        inverse = 1.0 / f[k]
        limit = 1.0 / (cut * cut * f[k])
        for i in range(residual.shape[1]):
            for j in range(residual.shape[2]):
                v = out[k, i, j]
                if v > 0:
                    t = residual[k, i, j] * residual[k, i, j] * v * limit
                    out[k, i, j] = v * inverse * (1.0 - t) * (1.0 - t) if t < 1.0 else 0.0
