"""Cells of a group: the stars that its subs have in common, and what is left of their blocks beside those stars.

Reads   blocks, noise grids and star lists of the subs
One star mask for all subs, in the reference plane: means of masked cells are then in proportion to the subs' scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import StarFlag
from lerar_dask.kernels.normalize.cells import bin_cells, mask_blocks, mask_radius
from lerar_dask.kernels.normalize.channel import Cells
from lerar_dask.kernels.normalize.scales import match_stars, solve_scales
from lerar_dask.kernels.register import transform as tf
from lerar_dask.stages.side_by_side import side_by_side
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["GroupCells", "masked_blocks", "star_scales"]

_LIGHT = [2, 3, 9]
"""Columns of a star table: flux, its error, flags."""
_KEEP_SHARE = 0.45
"""At least this share of the pixels stays outside the star mask."""


@dataclass(frozen=True)
class GroupCells:
    """Subs of a group with the stars they have in common."""

    store: Store
    members: Sequence[Sub]
    transforms: np.ndarray
    ln_scale: np.ndarray
    scale_error: np.ndarray
    mask: np.ndarray
    """(m, 3) float64: x, y in the reference plane, radius in px: masked in all subs."""
    fwhm: float
    """Width of the stars that the mask is made for, px."""
    levels: np.ndarray
    """(n, channel) median background."""

    @classmethod
    def of(cls, store: Store, members: Sequence[Sub], transforms: np.ndarray) -> GroupCells:
        """Common stars and star mask of some subs."""
        noise, levels, sizes = [], [], []

        def look(m: Sub) -> tuple[float, np.ndarray, np.ndarray]:
            reader = store.measures(m.geometry, m.measure)
            grid = reader.read_grid(m.slot)
            return np.nanmedian(grid[..., 1]), np.nanmedian(grid[..., 0], axis=(1, 2)), reader.read_stars(m.slot)

        def stars() -> Iterator[np.ndarray]:
            for spread, level, table in side_by_side(look, members):
                noise.append(spread)
                levels.append(level)
                if len(table) >= 5:
                    sizes.append(float(np.median(table[:, 5])))
                yield table

        ln_scale, error, catalogue = star_scales(stars(), transforms, len(members))
        # A sub with a failed focus must not mask the whole field.
        fwhm = min(max(sizes), 2.0 * float(np.median(sizes))) if sizes else 3.0
        mask = _common_mask(catalogue, fwhm, float(np.nanmedian(noise)), members[0].shape)
        return cls(store, members, transforms, ln_scale, error, mask, fwhm, np.array(levels))

    def cells(self, cell_px: int, *, channels: Sequence[int] | None = None, masked: bool = True) -> list[list[Cells]]:
        """Cells by channel and frame shape, under one star mask; blocks are read sub by sub."""
        parts: list[list[Cells]] = []
        mask = self.mask if masked else self.mask[:0]
        for shape in sorted({m.shape for m in self.members}):
            own = [k for k, m in enumerate(self.members) if m.shape == shape]

            def cells_of(k: int) -> list[tuple[np.ndarray, np.ndarray]]:
                return self._cells_of(self.members[k], self.transforms[k], mask, cell_px, channels)

            found = list(side_by_side(cells_of, own))
            for i in range(len(found[0])):
                value, weight = (np.stack([f[i][j] for f in found]) for j in (0, 1))
                if i == len(parts):
                    parts.append([])
                parts[i].append(Cells(np.array(own, np.int64), shape, value, weight))
        return parts

    def cells_of_image(self, image: Sub, reference_to_sub: np.ndarray, cell_px: int) -> list[Cells]:
        """Cells by channel of an image that is no sub of the group; where its stars are wider, so is the mask."""
        stars = self.store.measures(image.geometry, image.measure).read_stars(image.slot)
        width = float(np.median(stars[:, 5])) / _size(reference_to_sub) if len(stars) >= 5 else self.fwhm
        mask = self.mask * np.array([1.0, 1.0, max(1.0, width / self.fwhm)])
        found = self._cells_of(image, reference_to_sub, mask, cell_px, None)
        return [Cells(np.zeros(1, np.int64), image.shape, value[None], weight[None]) for value, weight in found]

    def ln_scale_with(self, image: Sub, reference_to_sub: np.ndarray) -> np.ndarray:
        """Ln scale of all subs and, last, of an image that is no sub of the group, (n + 1,): one joint solution."""
        everyone = [*self.members, image]
        stars = (self.store.measures(m.geometry, m.measure).read_stars(m.slot) for m in everyone)
        return star_scales(stars, np.concatenate([self.transforms, reference_to_sub[None]]), len(everyone))[0]

    def _cells_of(
        self, member: Sub, reference_to_sub: np.ndarray, mask: np.ndarray, cell_px: int, channels: Sequence[int] | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        reader = self.store.measures(member.geometry, member.measure)
        blocks, grid = reader.read_blocks(member.slot), reader.read_grid(member.slot)
        hidden = masked_blocks(mask, reference_to_sub, member.shape)
        return [
            bin_cells(
                blocks[c],
                hidden,
                grid[c, ..., 1],
                shape=member.shape,
                cell_px=cell_px,
                noise_cell_px=member.noise_cell_px,
            )
            for c in (channels if channels is not None else range(len(blocks)))
        ]


def star_scales(
    stars: Iterable[np.ndarray], transforms: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ln scale and its error of each sub; common stars (m, 3): x, y in the reference plane, flux.

    Of each sub's table, which is used once, no more is kept than the solution needs: thousands of subs have millions of stars.
    """
    places, light, counts = [], [], []
    for k, table in enumerate(stars):
        places.append(tf.apply(tf.invert(transforms[k]), table[:, :2]))
        light.append(table[:, _LIGHT])
        counts.append(len(table))
    xy = np.concatenate(places)
    del places
    rows = np.concatenate(light)
    del light
    sub = np.repeat(np.arange(len(counts)), counts)
    if len(xy) < 3:
        return np.full(n, np.nan), np.full(n, np.inf), np.zeros((0, 3))
    found = match_stars(xy, sub, tolerance_px=2.0)
    picked = rows[found.row]
    if not len(picked):
        return np.full(n, np.nan), np.full(n, np.inf), np.zeros((0, 3))
    flags = picked[:, 2].astype(int)
    clean = (flags & (StarFlag.EDGE | StarFlag.SATURATED | StarFlag.DIVERGED | StarFlag.NEIGHBOR)) == 0
    ln, error, _ = solve_scales(found.sub[clean], found.star[clean], picked[clean, 0], picked[clean, 1], n_subs=n)
    total = np.bincount(found.star, picked[:, 0] * np.exp(-np.nan_to_num(ln)[found.sub]), len(found.xy))
    count = np.bincount(found.star, minlength=len(found.xy))
    return ln, error, np.column_stack([found.xy, total / np.maximum(count, 1)])


def _common_mask(catalogue: np.ndarray, fwhm: float, noise: float, shape: tuple[int, int]) -> np.ndarray:
    """Stars to be masked in all subs: x, y, radius; as faint as the field allows."""
    faintest = 5.0 * noise * fwhm * 1.5
    while True:
        chosen = catalogue[catalogue[:, 2] > faintest]
        radius = mask_radius(chosen[:, 2], fwhm_px=fwhm, faintest=0.05 * noise)
        if np.pi * np.sum((radius + 3) ** 2) < (1 - _KEEP_SHARE) * shape[0] * shape[1] or not len(chosen):
            return np.column_stack([chosen[:, :2], radius])
        faintest *= 2.0


def masked_blocks(mask: np.ndarray, reference_to_sub: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Blocks of a sub that lie under the common stars."""
    places = tf.apply(reference_to_sub, mask[:, :2]) if len(mask) else np.zeros((0, 2))
    return mask_blocks(places[:, 0], places[:, 1], mask[:, 2] * _size(reference_to_sub), shape=shape)


def _size(reference_to_sub: np.ndarray) -> float:
    """Pixels of a sub along one of the reference plane."""
    return float(np.sqrt(abs(np.linalg.det(reference_to_sub[:2, :2]))))
