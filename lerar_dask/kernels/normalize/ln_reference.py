"""Scale and sky of an image that the user gave: what all subs of a group are brought to in place of their own mean.

The joint solution leaves open one scale and one smooth field for all subs together. An image R of the same field fixes
both: over the scene I, R is `s_R I + b_R` as any sub is, with s_R from the stars (else from the nebula) and b_R from R's
cells; what was normalized to I becomes `s_R I + b_R`, which is R without its noise. Which part of the sky the scene still
held does not matter: b_R holds it with the other sign.

In: skies of a group and cells of R. Out: the same skies in R's scale, R's median sky as their common constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lerar_dask.kernels.normalize.channel import Cells, Skies
from lerar_dask.kernels.normalize.joint import follow_scene, regress_scales
from lerar_dask.kernels.normalize.slab import Slab, make_slab
from lerar_dask.kernels.normalize.surface import evaluate_surface, fit_surface, surface_shape

__all__ = ["Adopted", "adopt_reference"]

GRID = 16
"""Points per axis, at least, at which the field is carried over to a sub's own surface."""
MIN_CELLS = 12
"""A smaller overlap of R and the scene says nothing of R's sky."""
DETAIL_ROUNDS = 5
"""Of sky and scale in turn, where no star tells the scale."""
DETAIL_ERROR = 0.03
"""A scale from the scene's detail that is known worse than this is none."""


@dataclass(frozen=True)
class Adopted:
    """A group in the scale of the reference image."""

    skies: Skies
    scale: float
    """s_R: R's scale in units of the skies as they were; NaN where neither stars nor nebula tell it."""
    covered: float
    """Share of the scene that R covers; beyond it, R's sky is continued smoothly."""
    variance_ratio: float
    """Measured over formal variance of R's cells over the scene."""


@dataclass(frozen=True)
class _Field:
    """R's sky as a field over the reference plane."""

    scale: float
    coefficients: np.ndarray
    """(py, px) float64: b_R in R's own pixels."""
    frame: tuple[int, int]
    reference_to_sub: np.ndarray
    """(3, 3) reference plane to R."""
    tile_px: int
    variance_ratio: float

    def at(self, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        """B_R at reference-plane positions, float64, in R's ADU."""
        x, y = _apply(self.reference_to_sub, xs, ys)
        return evaluate_surface(self.coefficients, self.frame, self.tile_px, y, x).astype(np.float64)

    def median(self) -> float:
        """Median of b_R over R."""
        ys, xs = (np.linspace(0, length - 1, 64) for length in self.frame)
        x, y = np.meshgrid(xs, ys)
        return float(np.median(evaluate_surface(self.coefficients, self.frame, self.tile_px, y, x)))


def adopt_reference(
    skies: Skies,
    image: Cells,
    reference_to_sub: np.ndarray,
    *,
    transforms: np.ndarray,
    shapes: Sequence[tuple[int, int]],
    ln_scale: np.ndarray,
    tile_px: int,
    constant_only: bool = False,
) -> Adopted:
    """Bring a group to the scale and the sky of an image.

    Parameters
    ----------
    image : cells of R alone, under the group's star mask
    reference_to_sub : (3, 3) float64               reference plane to R
    transforms : (n, 3, 3) float64      reference plane to sub
    shapes : (n) height and width of each sub
    ln_scale : (n + 1,) float64         joint solution of the stars of all subs and, last, of R; NaN where stars failed
    tile_px : int                       wanted length of a spline interval
    constant_only : bool                one constant in place of a surface (`global`)

    Notes
    -----
    Subs without overlap with others (`skies.component`) have a zero of their own: each component is fitted to R alone.
    A component that R does not touch takes R's sky as the largest component found it.
    """
    scales, splines = skies.scale.copy(), [c.copy() for c in skies.coefficients]
    before = skies.scene.astype(np.float64)
    after = before.copy()
    x, y = _cell_positions(skies)
    fields: list[_Field] = []
    level = 0.0
    for group in range(int(skies.component.max(initial=0)) + 1):
        members = np.flatnonzero(skies.component == group)
        part = before if len(members) == len(scales) else _part(before, x, y, transforms, shapes, members)
        slab = _slab_of(image, reference_to_sub, skies, tile_px)
        scale = _scale_by_stars(ln_scale, skies.scale, members, reference_to_sub)
        if not np.isfinite(scale):
            scale = _scale_by_detail(slab, part)
        found = _fit(slab, reference_to_sub, scale, part, tile_px, constant_only) if np.isfinite(scale) else None
        if found is None and not fields:
            return Adopted(skies, scale, 0.0, 1.0)
        fields.append(found or fields[0])
        level = fields[0].median()
        _carry(fields[-1], level, members, scales, splines, transforms, shapes, tile_px)
        own = np.isfinite(part)
        after[own] = fields[-1].scale * part[own] + fields[-1].at(x[own], y[own]) - level
    adopted = replace(
        skies,
        scale=scales,
        coefficients=splines,
        sky_level=level,
        common=np.zeros_like(skies.common),
        common_error=np.zeros_like(skies.common_error),
        model="reference",
        scene=after.astype(np.float32),
    )
    return Adopted(
        adopted,
        fields[0].scale,
        _covered(np.isfinite(skies.scene), x, y, image, reference_to_sub),
        fields[0].variance_ratio,
    )


def _scale_by_stars(
    ln_scale: np.ndarray, scale: np.ndarray, members: np.ndarray, reference_to_sub: np.ndarray
) -> float:
    """R's surface brightness over that of the scene, by the stars of some subs."""
    offset = ln_scale[members] - np.log(scale[members])
    known = offset[np.isfinite(offset)]
    if not len(known) or not np.isfinite(ln_scale[-1]):
        return float("nan")
    # Stars keep their light where R's pixels are smaller; each pixel of the sky then has less of it.
    area = abs(float(np.linalg.det(reference_to_sub[:2, :2])))
    return float(np.exp(ln_scale[-1] - np.median(known))) / area


def _slab_of(image: Cells, reference_to_sub: np.ndarray, skies: Skies, tile_px: int) -> Slab:
    """R's cells on the scene, as those of a sub."""
    return make_slab(
        np.zeros(1, np.int64),
        image.value,
        image.weight,
        transforms=reference_to_sub[None],
        frame=image.frame,
        scene=skies.scene_grid,
        tile_px=tile_px,
    )


def _scale_by_detail(slab: Slab, scene: np.ndarray) -> float:
    """R's scale by the scene's own detail, to a percent or, under a steep sky, some; NaN where it says nothing."""
    scale, error = _contrast(slab, scene), np.full(1, np.inf)
    for _ in range(DETAIL_ROUNDS):
        found = follow_scene(slab, scale, scene, rounds=3)
        scale, error = regress_scales([slab], scale, found)
    return float(scale[0]) if error[0] < DETAIL_ERROR else float("nan")


def _contrast(slab: Slab, scene: np.ndarray) -> np.ndarray:
    """First guess of a scale, (1,): R over the scene, both without their planes."""
    found = follow_scene(slab, np.zeros(1), scene, terms="flat", rounds=0)
    return regress_scales([slab], np.ones(1), found)[0]


def _fit(
    slab: Slab, reference_to_sub: np.ndarray, scale: float, scene: np.ndarray, tile_px: int, constant_only: bool
) -> _Field | None:
    """R's sky over the scene; None where they hardly overlap."""
    found = follow_scene(slab, np.array([scale]), scene, terms="constant" if constant_only else "all")
    if (slab.weight > 0).sum() < MIN_CELLS:
        return None
    return _Field(scale, found.splines[0][0], slab.frame, reference_to_sub, tile_px, float(found.variance_ratio[0][0]))


def _carry(
    field: _Field,
    level: float,
    members: np.ndarray,
    scales: np.ndarray,
    splines: list[np.ndarray],
    transforms: np.ndarray,
    shapes: Sequence[tuple[int, int]],
    tile_px: int,
) -> None:
    """Scales and skies of some subs in terms of R (in place): what is normalized becomes R less `level`."""
    for k in members:
        pieces = surface_shape(shapes[k], tile_px)
        rows, columns = (
            np.linspace(0, length - 1, max(GRID, 2 * (n + 3))) for length, n in zip(shapes[k], pieces, strict=True)
        )
        x, y = _apply(np.linalg.inv(transforms[k]), *np.meshgrid(columns, rows))
        scales[k] /= field.scale
        splines[k] -= scales[k] * fit_surface(field.at(x, y) - level, shapes[k], tile_px, rows, columns)


def _part(
    scene: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    transforms: np.ndarray,
    shapes: Sequence[tuple[int, int]],
    members: np.ndarray,
) -> np.ndarray:
    """Scene under some subs, NaN elsewhere."""
    under = np.zeros(scene.shape, bool)
    for k in members:
        under |= _inside(*_apply(transforms[k], x, y), shapes[k])
    return np.where(under, scene, np.nan)


def _covered(seen: np.ndarray, x: np.ndarray, y: np.ndarray, image: Cells, reference_to_sub: np.ndarray) -> float:
    """Share of the scene's cells that lie within R."""
    return float(_inside(*_apply(reference_to_sub, x[seen], y[seen]), image.frame).mean()) if seen.any() else 0.0


def _inside(x: np.ndarray, y: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    return (x > -0.5) & (y > -0.5) & (x < frame[1] - 0.5) & (y < frame[0] - 0.5)


def _cell_positions(skies: Skies) -> tuple[np.ndarray, np.ndarray]:
    """Reference-plane x and y of the scene's cells, (sy, sx) each."""
    grid = skies.scene_grid
    rows, columns = np.indices(grid.shape)
    return grid.origin_xy[0] + columns * grid.cell_px, grid.origin_xy[1] + rows * grid.cell_px


def _apply(transform: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions through a 3x3 transform."""
    d = transform[2, 0] * x + transform[2, 1] * y + transform[2, 2]
    return (
        (transform[0, 0] * x + transform[0, 1] * y + transform[0, 2]) / d,
        (transform[1, 0] * x + transform[1, 1] * y + transform[1, 2]) / d,
    )
