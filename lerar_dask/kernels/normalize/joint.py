"""The joint solution: one scene and one smooth sky per sub, for all subs together.

Model of cell u of sub k: `y_k(u) = s_k C(T_k u) + b_k(u) + noise`, with the scene C on a canvas of cells in the reference
plane and the sky b_k a spline surface in the sub's own pixels. Everything is solved at once by preconditioned conjugate
gradients; there is no reference sub, hence no reference noise and no reference gradient. In: cells of all subs in slabs
of one frame shape. Out: scene, mode coefficients, their variances. The gradient common to all subs is left as the data
leave it; `kernels/normalize/common_gradient.py` fixes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerar_dask.kernels.normalize.cell_loops import (
    apply_normal,
    gather_gradient,
    reweight_cells,
    sample_scene,
    subtract_model,
)
from lerar_dask.kernels.normalize.sky_prior import evidence, roughness, tile_error
from lerar_dask.kernels.normalize.slab import Scene, Slab

__all__ = ["Solution", "follow_scene", "regress_scales", "solve"]

KAPPA = 0.03
"""Share of the scene's Laplacian that bilinear sampling of the scene may be wrong by (calibrated: z = 1)."""


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
    variance_ratio: list[np.ndarray]
    """Per slab (n,) float64: measured over formal variance of a sub's cells."""
    rejected: list[np.ndarray]
    """Per slab (n,) float64: share of cells that count less than half for being outliers."""
    iterations: int


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

    What overlaps say of frames at both ends of a mosaic passes from frame to frame: the condition of the problem grows as
    the square of the frames across, and with it the iterations and the error that a given gradient leaves.
    """
    state = _State(slabs, scale, scene, start)
    across = _frames_across(slabs, scene)
    tolerance, inner = tolerance / across**2, inner * across**2
    iterations = 0
    if start is None:
        state.hold(terms, only_flat=True)
        iterations += state.descend(tolerance=tolerance, inner=40 * across**2)
        state.reweight(cut=13.5, detail=False)
        iterations += state.descend(tolerance=tolerance, inner=inner)
    for turn in range(rounds):
        before = np.concatenate([slab.variance_ratio for slab in slabs])
        state.reweight(cut=4.5 if turn or start is not None else 9.0, detail=True)
        if terms == "all":
            state.learn_prior()
        else:
            state.hold(terms, only_flat=True)
        iterations += state.descend(tolerance=tolerance, inner=inner)
        after = np.concatenate([slab.variance_ratio for slab in slabs])
        if turn >= 2 and np.abs(np.log(after / before)).max(initial=0.0) < 0.02:
            break
    return state.finish(iterations)


def _frames_across(slabs: Sequence[Slab], scene: Scene) -> int:
    """Frames that lie beside one another along the scene, at least 1."""
    side = max((sum(slab.value.shape[1:]) / 2 for slab in slabs), default=1.0)
    return max(1, int(max(scene.shape) / max(side, 1.0)))


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
        sample_scene(solution.scene, slab.row, slab.column, sample)
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
    sample_scene(np.isnan(scene).astype(np.float64), slab.row, slab.column, hole)
    slab.weight[hole > 0] = 0.0
    slab.solve_weight = slab.weight.copy()
    state = _State([slab], scale, Scene((0.0, 0.0), scene.shape, 1), np.nan_to_num(scene).astype(np.float64))
    state.hold(terms, only_flat=True)
    state.follow()
    for turn in range(rounds):
        before = slab.variance_ratio.copy()
        state.reweight(cut=(13.5, 9.0)[turn] if turn < 2 else 4.5, detail=True)
        if terms == "all":
            state.learn_prior()
        else:
            state.hold(terms, only_flat=True)
        state.follow()
        if turn >= 3 and np.abs(np.log(slab.variance_ratio / before)).max(initial=0.0) < 0.02:
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
        subtract_model(slab.value, self.scene, slab.row, slab.column, self.scales[i], out)
        return out

    def reweight(self, *, cut: float, detail: bool) -> None:
        """Scale of each sub's residuals, and robust weights."""
        bumps = _laplacian(self.scene)
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            if detail:
                sample_scene(bumps, slab.row, slab.column, self.detail[i])
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
            edf = np.sum(total / np.maximum(total + slab.penalty, 1e-30), axis=(1, 2))
            reweight_cells(
                residual, slab.weight, self.detail[i], self.scales[i], edf, cut, slab.variance_ratio, slab.solve_weight
            )

    def learn_prior(self) -> None:
        """Noise-adaptive prior of each sub by evidence."""
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            residual *= slab.solve_weight
            total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)
            safe = np.where(total > 0, total, 1.0)
            d = slab.modes + _project(residual, self.rows[i], self.columns[i]) / safe[:, None, None]
            rough = roughness(slab)
            exponent, variance = evidence(d, rough, safe)
            with np.errstate(divide="ignore"):
                wanted = rough[None] ** exponent[:, None, None] / variance[:, None, None]
            slab.penalty = np.minimum(wanted, 1e9 * safe[:, None, None])
            slab.penalty[total <= 0] = 1.0

    def follow(self) -> None:
        """Skies that fit best over the scene as it stands."""
        for i, slab in enumerate(self.slabs):
            sample_scene(self.scene, slab.row, slab.column, self.work[i])
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
            gather_gradient(residual, slab.solve_weight, slab.row, slab.column, self.scales[i], gradient, diagonal)
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
            apply_normal(p, slab.row, slab.column, self.scales[i], slab.solve_weight, work, q)
            q_modes.append(_project(work, self.rows[i], self.columns[i]) + slab.penalty * p_modes[i])
        return q, q_modes

    def finish(self, iterations: int) -> Solution:
        """Bring everything into the form that others use."""
        coverage = np.zeros_like(self.scene)
        splines, errors, rejected = [], [], []
        for i, slab in enumerate(self.slabs):
            residual = self.residuals(i)
            gather_gradient(
                residual, slab.weight, slab.row, slab.column, self.scales[i], np.zeros_like(coverage), coverage
            )
            modes = slab.modes.copy()
            modes[:, 0, 0] += slab.level / (slab.rows.values[0, 0] * slab.columns.values[0, 0])
            splines.append(slab.rows.to_splines @ modes @ slab.columns.to_splines.T)
            errors.append(tile_error(slab))
            valid = slab.weight > 0
            kept = slab.solve_weight * slab.variance_ratio[:, None, None] > 0.3 * slab.weight
            rejected.append((valid & ~kept).sum(axis=(1, 2)) / np.maximum(valid.sum(axis=(1, 2)), 1))
        return Solution(
            self.scene,
            coverage,
            splines,
            errors,
            [slab.variance_ratio.copy() for slab in self.slabs],
            rejected,
            iterations,
        )


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
