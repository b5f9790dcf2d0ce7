"""Header: what a frame says of itself, in one language whatever program wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from lerar_dask.frames.wcs import Solution

__all__ = ["MAX_BINNING", "MAX_TEXT", "RANGES", "Header", "Kind"]

Kind = Literal["light", "dark", "flat", "bias", "flat-dark", "unknown"]
RANGES: Mapping[str, tuple[float, float]] = {
    "exposure_s": (0.0, 864_000.0),
    "gain": (0.0, 1e7),
    "offset": (0.0, 1e7),
    "set_temp_c": (-150.0, 80.0),
    "sensor_temp_c": (-150.0, 80.0),
    "start_unix": (-2_208_988_800.0, 7_258_118_400.0),  # 1900 to 2200
    "rotator_deg": (-720.0, 720.0),
    "ra_deg": (0.0, 360.0),
    "dec_deg": (-90.0, 90.0),
    "pixel_um": (0.1, 1000.0),
    "focal_mm": (1.0, 1e6),
    "scale_arcsec_px": (1e-3, 36_000.0),
    "e_per_adu": (1e-6, 1e6),
    "read_noise_e": (0.0, 1e6),
    "pedestal_adu": (0.0, 1e7),
    "saturation_adu": (1.0, 1e12),
    "n_subs": (0, 1e7),
    "site_lat_deg": (-90.0, 90.0),
    "site_lon_deg": (-360.0, 360.0),
    "airmass": (0.99, 100.0),
}
"""Least and most of every number; what lies outside is not known."""
MAX_BINNING = 64
MAX_TEXT = 200
"""Characters of a text."""


_TYPES = {
    "bool": bool,
    "float": int | float,
    "int": int,
    "str": str,
    "Kind": str,
    "tuple": list | tuple,
    "Solution": Mapping,
    "Mapping": Mapping,
}
"""What JSON gives for the annotation of a field."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Normalized header. None means that the file does not say: unknown is not different."""

    kind: Kind = "unknown"
    is_master: bool = False
    """A combined calibration frame."""
    is_stack: bool = False
    """A result of a stacking program: no sub."""
    named_kind: Kind | None = None
    """What folder or file name call it, where that is not what the header says."""
    strange_kind: str = ""
    """What the header calls it, where that is no kind we know."""
    is_named_result: bool = False
    """Its header says light, its name that it is a result of stacking."""
    exposure_s: float | None = None
    gain: float | None = None
    """Driver setting."""
    offset: float | None = None
    """Driver setting."""
    set_temp_c: float | None = None
    sensor_temp_c: float | None = None
    binning: tuple[int, int] | None = None
    """y, x."""
    filter: str | None = None
    camera: str | None = None
    readout_mode: str | None = None
    telescope: str | None = None
    object: str | None = None
    start: str | None = None
    """Start of the exposure, UTC, ISO 8601."""
    start_unix: float | None = None
    night: str | None = None
    """Date of the evening: noon to noon, local by longitude where known."""
    pier_side: str | None = None
    """east, west."""
    rotator_deg: float | None = None
    ra_deg: float | None = None
    dec_deg: float | None = None
    pixel_um: float | None = None
    """With binning."""
    focal_mm: float | None = None
    scale_arcsec_px: float | None = None
    wcs: Solution | None = None
    """Plate solution."""
    cfa: str | None = None
    """2x2 color pattern as it lies on the array as read, row by row."""
    row_order: str | None = None
    e_per_adu: float | None = None
    read_noise_e: float | None = None
    pedestal_adu: float | None = None
    """Constant that a program says it has added while it calibrated (positive)."""
    saturation_adu: float | None = None
    n_subs: int | None = None
    site_lat_deg: float | None = None
    site_lon_deg: float | None = None
    """East positive."""
    airmass: float | None = None
    program: str | None = None
    calibrated: str = ""
    """Marks of calibration already done, as BDF."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Keyword (or name, folder) that each field came from."""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Header:
        """The header that `to_dict` wrote.

        Raises
        ------
        TypeError, KeyError, ValueError
            when it is not what `to_dict` writes.
        """
        values = dict(plain)
        for name, kind in _kinds().items():
            value = values.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)):
                raise TypeError(f"{name} is {value!r}")
            if value is not None and name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
                raise ValueError(f"{name} is {value!r}")
        for name in ("binning", "warnings"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        if isinstance(values.get("wcs"), Mapping):
            told = dict(values["wcs"])
            pairs = {name: tuple(told[name]) for name in ("sky_deg", "pixel", "matrix")}
            values["wcs"] = Solution(**{**told, **pairs})
        return cls(**values)


@lru_cache(maxsize=1)
def _kinds() -> dict[str, Any]:
    """What JSON gives for each field."""
    fields_ = dataclasses.fields(Header)
    return {f.name: next(kind for word, kind in _TYPES.items() if str(f.type).startswith(word)) for f in fields_}
