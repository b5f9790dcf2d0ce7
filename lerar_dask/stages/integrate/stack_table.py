"""Stack table: all that integration must know of the subs of a group, as plain arrays.

The driver writes it once under stack/<key>/; every process reads it once. Subs are in their order (start, then id); all
reductions run in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lerar_dask.kernels.combine.noise import fill_gaps, growth_of_variance
from lerar_dask.kernels.resample.warp import choose_turn, stride_of
from lerar_dask.store.access import Store, open_store

__all__ = ["LATTICES", "Plane", "StackTable", "load_table", "save_table"]

LATTICES = {
    "": ((0, 1, 0, 0),),
    **{
        pattern: tuple(sorted(("RGB".index(color), 2, i // 2, i % 2) for i, color in enumerate(pattern)))
        for pattern in ("RGGB", "BGGR", "GRBG", "GBRG")
    },
}
"""(channel, step, phase_y, phase_x) of the lattices of a sub, by CFA pattern, in the order of the channels."""


@dataclass(frozen=True)
class Plane:
    """One lattice of one sub: what is sampled."""

    channel: int
    step: int
    phase_y: int
    phase_x: int
    shape: tuple[int, int]
    """Rows and columns before it is turned."""
    turn: tuple[bool, bool, bool]
    """transpose, flip_y, flip_x."""
    matrix: np.ndarray
    """(3, 3) canvas pixel to turned plane."""
    stride: int
    """How it is resampled (`stride_of`)."""

    @property
    def turned_shape(self) -> tuple[int, int]:
        """Rows and columns after it is turned."""
        return self.shape[::-1] if self.turn[0] else self.shape


@dataclass(frozen=True, kw_only=True)
class StackTable:
    """The subs of a group; n of them, in order."""

    geometries: Sequence[str]
    """Names of the arrays that hold the raw pixels."""
    calibrations: Sequence[str]
    """Keys of the calibration sets."""
    patterns: Sequence[str]
    """CFA pattern of each sub, empty for mono."""
    geometry: np.ndarray
    """(n,) int32 index into geometries."""
    slot: np.ndarray
    """(n,) int32."""
    shape: np.ndarray
    """(n, 2) int32 rows and columns."""
    scale: np.ndarray
    """(n,) float64 ADU per stored unit."""
    zero: np.ndarray
    """(n,) float64 ADU of stored 0."""
    blank: np.ndarray
    """(n,) float64 stored value without data; NaN: none."""
    saturation: np.ndarray
    """(n,) float64 ADU from which on a sample is a lower bound only; infinite: the sub has none."""
    calibration: np.ndarray
    """(n,) int32 index into calibrations; -1: none."""
    transform: np.ndarray
    """(n, 3, 3) float64 reference plane to sub."""
    ln_scale: np.ndarray
    """(n, channel) float64: normalized = (value - sky) / scale."""
    ln_coefficients: np.ndarray
    """(n, channel, py, px) float32 sky surfaces; (n, channel, 0, 0): no sky is taken off."""
    tile_px: int
    """Distance of the surfaces' nodes."""
    noise: np.ndarray
    """(n, channel, gy, gx) float32 sigma of the pixels in cells, ADU; NaN where unknown."""
    noise_cell_px: int
    sky: np.ndarray
    """(n, channel) float32 median background, ADU."""
    weight_factor: np.ndarray
    """(n,) float64."""
    trails: np.ndarray
    """(m, 5) float64 y0, x0, y1, x1, half width, sub after sub."""
    trail_start: np.ndarray
    """(n + 1,) int64: trails of sub i are trail_start[i]:trail_start[i + 1]."""
    e_per_adu: np.ndarray
    """(n,) float64; 0: unknown."""
    fwhm: np.ndarray
    """(n,) float64 px; NaN: unknown."""
    registration_px: np.ndarray
    """(n,) float64 error of registration; NaN: unknown."""
    sky_level: np.ndarray
    """(channel,) float64 constant added to the master."""
    level: np.ndarray
    """(channel,) float64 what the sky is in normalized samples: 0 after sky surfaces are taken off."""
    voids: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int32))
    """(m, 5) int32 rectangles without data, sub after sub: sub, y0, y1, x0, x1."""
    _planes: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray, tuple[Plane, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, which: Sequence[int]) -> StackTable:
        """The table of some of the subs, in the order given."""
        lines = [self.trails[self.trail_start[i] : self.trail_start[i + 1]] for i in which]
        voids = [np.insert(self.voids_of(i), 0, k, axis=1).astype(np.int32) for k, i in enumerate(which)]
        changed: dict[str, Any] = {
            "patterns": [self.patterns[i] for i in which],
            "trails": np.concatenate([np.zeros((0, 5)), *lines]),
            "trail_start": np.cumsum([0, *(len(own) for own in lines)]),
            "voids": np.concatenate([np.zeros((0, 5), np.int32), *voids]),
            "_planes": {},
        }
        changed |= {name: getattr(self, name)[list(which)] for name in _BY_SUB}
        return replace(self, **changed)

    @property
    def sky_over_noise(self) -> float:
        """Level of the sky in normalized samples over their noise, in the channel where it is least; NaN: unknown."""
        sigma = np.nanmedian(self.noise / self.ln_scale[:, :, None, None], axis=(0, 2, 3))
        return float(np.min(np.abs(self.level) / sigma))

    @property
    def n_channels(self) -> int:
        """1, or 3 for color."""
        return self.ln_scale.shape[1]

    @cached_property
    def typical_variance(self) -> np.ndarray:
        """(n, channel) variance at the sky, output units."""
        return np.median(self.variance, axis=(2, 3)) / self.ln_scale**2

    @cached_property
    def variance(self) -> np.ndarray:
        """(n, channel, gy, gx) float64 variance of the pixels in cells, ADU^2, without gaps."""
        return np.array([[fill_gaps(grid) for grid in sub] for sub in self.noise])

    @cached_property
    def growth(self) -> np.ndarray:
        """(n, channel) growth of variance per ADU of signal, output units."""
        sigma = np.sqrt(self.typical_variance) * self.ln_scale
        columns = [
            growth_of_variance(self.sky[:, c], sigma[:, c], self.e_per_adu, self.ln_scale[:, c])
            for c in range(self.n_channels)
        ]
        return np.stack(columns, axis=1)

    @cached_property
    def n_lattices(self) -> np.ndarray:
        """(n, channel) lattices whose mean is a sub's sample: 2 for green, else 1."""
        channels = [[lattice[0] for lattice in LATTICES[pattern]] for pattern in self.patterns]
        return np.array([[own.count(c) for c in range(self.n_channels)] for own in channels])

    @cached_property
    def offset(self) -> np.ndarray:
        """(n, channel) float32 that lifts a sub's sky to 12 sigma, so that clamping leaves noise alone."""
        sigma = np.sqrt(self.typical_variance) * self.ln_scale
        return (12.0 * sigma - np.nan_to_num(self.sky)).astype(np.float32)

    @cached_property
    def inverse_scale(self) -> np.ndarray:
        """(n, channel) float32."""
        return (1.0 / self.ln_scale).astype(np.float32)

    @cached_property
    def mean_sky(self) -> np.ndarray:
        """(n,) float32 mean of the channels' skies, ADU."""
        return np.nan_to_num(self.sky).mean(axis=1).astype(np.float32)

    @cached_property
    def saturated_raw(self) -> np.ndarray:
        """(n,) float64 stored value from which on a sample is a lower bound only."""
        return (self.saturation - self.zero) / self.scale

    def voids_of(self, i: int) -> np.ndarray:
        """(m, 4) int32 rectangles of sub `i` without data."""
        first, last = np.searchsorted(self.voids[:, 0], (i, i + 1))
        return np.ascontiguousarray(self.voids[first:last, 1:])

    def planes(self, i: int, origin_yx: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, tuple[Plane, ...]]:
        """Canvas to sub, sub to canvas, and the lattices of sub `i` on a canvas with this origin."""
        key = (i, *origin_yx)
        if key not in self._planes:
            shift = np.array([[1.0, 0, origin_yx[1]], [0, 1.0, origin_yx[0]], [0, 0, 1.0]])
            matrix = self.transform[i] @ shift
            matrix = matrix / matrix[2, 2]
            lattices = tuple(self._plane(i, matrix, lattice) for lattice in LATTICES[self.patterns[i]])
            self._planes[key] = matrix, np.linalg.inv(matrix), lattices
        return self._planes[key]

    def _plane(self, i: int, matrix: np.ndarray, lattice: tuple[int, int, int, int]) -> Plane:
        """A lattice of sub `i`, turned so that its transform is near the unit matrix."""
        channel, step, phase_y, phase_x = lattice
        to_plane = np.array([[1 / step, 0, -phase_x / step], [0, 1 / step, -phase_y / step], [0, 0, 1.0]])
        shape = (-(-(int(self.shape[i, 0]) - phase_y) // step), -(-(int(self.shape[i, 1]) - phase_x) // step))
        turn, turned = choose_turn(to_plane @ matrix, shape)
        turned_shape = shape[::-1] if turn[0] else shape
        stride = stride_of(turned, turned_shape)
        return Plane(channel, step, phase_y, phase_x, shape, turn, np.ascontiguousarray(turned), stride)

    def touching(self, window: tuple[int, int, int, int], origin_yx: tuple[int, int]) -> np.ndarray:
        """Indices of the subs whose frame may reach into canvas rows y0..y1-1, columns x0..x1-1 (one pixel more)."""
        y0, y1, x0, x1 = window
        ys = np.array([y0 - 1, y0 - 1, y1, y1], float) + origin_yx[0]
        xs = np.array([x0 - 1, x1, x0 - 1, x1], float) + origin_yx[1]
        points = np.stack([xs, ys, np.ones(4)])
        mapped = self.transform @ points
        mapped = mapped[:, :2] / mapped[:, 2:]
        low, high = mapped.min(axis=2), mapped.max(axis=2)
        inside = (high >= 0).all(axis=1) & (low[:, 0] <= self.shape[:, 1] - 1) & (low[:, 1] <= self.shape[:, 0] - 1)
        return np.nonzero(inside)[0]


_BY_SUB = (
    "geometry", "slot", "shape", "scale", "zero", "blank", "saturation", "calibration", "transform", "ln_scale",
    "ln_coefficients", "noise", "sky", "weight_factor", "e_per_adu", "fwhm", "registration_px",
)  # fmt: skip
"""Arrays with one entry per sub."""
_NAMES = ("geometries", "calibrations", "patterns")
_NUMBERS = ("tile_px", "noise_cell_px")


def save_table(store: Store, key: str, table: StackTable) -> None:
    """Write a table under stack/<key>/ (driver only); the names last, so that a table with names is whole."""
    if store.has(f"stack/{key}/slot") and store.has_json(f"stack/{key}/names.json"):
        return
    for f in fields(table):
        value = getattr(table, f.name)
        if isinstance(value, np.ndarray):
            dims = ("sub", *(f"axis_{i}" for i in range(1, value.ndim)))
            store.write_array(f"stack/{key}/{f.name}", value, dims=dims, meaning=f"stack table: {f.name}")
    store.write_json(f"stack/{key}/names.json", {name: _plain(getattr(table, name)) for name in (*_NAMES, *_NUMBERS)})


@lru_cache(maxsize=4)
def load_table(store_url: str, key: str) -> StackTable:
    """The table that `save_table` wrote; read once per process."""
    store = open_store(store_url)
    values = dict(store.read_json(f"stack/{key}/names.json"))
    for f in fields(StackTable):
        optional = f.name == "voids" and not store.has(f"stack/{key}/voids")  # of an older store
        if f.name not in values and not f.name.startswith("_") and not optional:
            values[f.name] = store.read_array(f"stack/{key}/{f.name}")
    return StackTable(**values)


def _plain(value: int | Sequence[str]) -> int | list[str]:
    """JSON of a number or of names."""
    return int(value) if isinstance(value, int | np.integer) else list(value)
