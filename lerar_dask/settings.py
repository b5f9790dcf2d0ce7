"""The only home of defaults: one frozen dataclass per stage, TOML in and out, digests.

The text under each field is its help on the command line, its comment in `lerar.toml` and its documentation. Field names
are unique over all classes, so that `--reject` or `LERAR_REJECT` need no prefix. `Run` says where and how; it never
enters a digest. All others are science: a changed value redoes what depends on it, and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lerar_dask.errors import UsageError

__all__ = [
    "Ingest",
    "Integrate",
    "Link",
    "Masters",
    "Normalize",
    "Products",
    "Register",
    "Run",
    "Settings",
    "digest",
]

Rejection = Literal["auto", "none", "minmax", "percentile", "sigma", "winsorized", "mad"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """Which dark, flat, flat-dark and bias belong to which light."""

    exposure_tolerance_s: float = 0.5
    """Darks this close to a light's exposure count as equal (or within 1 %, whichever is larger)."""
    temperature_tolerance_c: float = 2.0
    """Sensor temperatures this close count as equal."""
    gain_tolerance: float = 0.5
    """Gain settings this close count as equal."""
    offset_tolerance: float = 0.5
    """Offset settings this close count as equal."""
    rotator_tolerance_deg: float = 5.0
    """Flats taken at a rotator angle this close count as equal."""
    session_gap_h: float = 6.0
    """Frames with a pause shorter than this belong to one session."""
    scale_darks: bool = True
    """Scale a dark of another exposure when a bias allows it."""
    pins: Path | None = None
    """TOML table that pins or forbids links."""
    default_kind: Literal["ask", "light"] = "ask"
    """What a frame is when neither header nor folder says; `ask` sets it aside with that reason."""


@dataclass(frozen=True, kw_only=True)
class Masters:
    """Master bias, darks, flats and flat-darks."""

    master_sigma_low: float = 3.0
    """Winsorized rejection of calibration frames, low side, in sigma."""
    master_sigma_high: float = 3.0
    """Winsorized rejection of calibration frames, high side, in sigma."""


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """What is measured on each sub when it is first touched."""

    background_cell_px: int = 64
    """Cell of the background and noise grid."""
    detection_sigma: float = 5.0
    """Stars brighter than this, in sigma of the filtered sub, are measured."""
    max_stars: int = 600
    """The brightest stars kept per sub."""
    cosmetic: bool = True
    """Find hot and cold pixels and bad columns, and leave them out where other subs know better."""
    hot_sigma: float = 8.0
    """Pixels of the master dark this far above their neighbors are hot."""
    cold_sigma: float = 8.0
    """Pixels of the master flat this far from their neighbors are bad."""


@dataclass(frozen=True, kw_only=True)
class Register:
    """Where each sub lies on the common grid."""

    align_to: Path | None = None
    """FITS image that sets the grid; without it the best sub does."""
    model: Literal["auto", "shift", "similarity", "affine", "homography"] = "auto"
    """Kind of transform; `auto` lets AICc choose once per group."""
    accept_log_odds: float = 20.7
    """A match is believed from this log-odds on (ln 1e9)."""
    canvas: Literal["union", "reference"] = "union"
    """Extent of the master: everything that any sub covers, or the reference sub alone."""


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """How the subs are brought to one scale and one sky."""

    normalization: Literal["local", "global", "linear-fit", "none"] = "local"
    """`local` solves scale and a smooth sky per sub for all subs together; `linear-fit` is the legacy way."""
    tile_px: int = 128
    """Distance of the sky surface's nodes; each window overlaps its neighbors by three quarters."""
    ln_reference: Path | None = None
    """FITS image whose sky all subs are brought to, in place of the joint solution's own."""


@dataclass(frozen=True, kw_only=True)
class Integrate:
    """How the subs become one image."""

    reject: Rejection = "auto"
    """Rejection; `auto` tests each sample against its measured noise."""
    sigma_low: float = 3.0
    """Low limit, in sigma."""
    sigma_high: float = 3.0
    """High limit, in sigma."""
    reject_low_count: int = 1
    """Samples that `minmax` drops at the low end."""
    reject_high_count: int = 1
    """Samples that `minmax` drops at the high end."""
    percentile_low: float = 0.2
    """Low limit of `percentile`, as a fraction of the median."""
    percentile_high: float = 0.1
    """High limit of `percentile`, as a fraction of the median."""
    interpolation: Literal["lanczos3", "bilinear"] = "lanczos3"
    """How subs are sampled onto the grid."""
    clamping: float = 0.3
    """Negative lobes of Lanczos are held below this share of the positive part (1 = no clamping)."""
    weights: Literal["inverse-variance", "noise", "psf", "none"] = "inverse-variance"
    """inverse-variance: per tile, after scaling; noise: one number per sub; psf: favors sharp subs as well."""
    trails: bool = True
    """Find lines of satellites and planes in each sub and leave them out."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What is written for people."""

    preview: bool = True
    """Write an auto-stretched PNG."""
    report: bool = True
    """Write report.html."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how: never part of a result's identity."""

    memory: str = ""
    """Memory for the whole run, as `4GiB`; default half of what is available."""
    threads: int = 0
    """Threads; 0 takes all cores this process may use."""
    scheduler: str = "threads"
    """threads, processes, or the address of a dask scheduler (tcp://host:port, tls://host:port)."""
    store: str = ""
    """Where the store lies; default OUT/store.zarr."""
    codec: Literal["auto", "none", "lz4"] = "none"
    """How raw pixels are packed in the store."""
    resolve: bool = False
    """Choose reference, grid origin and links afresh, although subs were measured before."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    link: Link = field(default_factory=Link)
    masters: Masters = field(default_factory=Masters)
    ingest: Ingest = field(default_factory=Ingest)
    register: Register = field(default_factory=Register)
    normalize: Normalize = field(default_factory=Normalize)
    integrate: Integrate = field(default_factory=Integrate)
    products: Products = field(default_factory=Products)
    run: Run = field(default_factory=Run)

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Settings from flat field names, as `Settings.of(reject="sigma", memory="2GiB")`.

        Raises
        ------
        UsageError
            for a name that no stage knows, with the nearest one.
        """
        tables: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            tables.setdefault(_table_of(name), {})[name] = value
        return cls(**{t.name: t.default_factory(**tables.get(t.name, {})) for t in fields(cls)})  # type: ignore[misc]


def digest(*parts: Any) -> str:
    """Hash of settings objects and plain values, the same in every process: 32 hex digits."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) else p for p in parts]  # type: ignore[arg-type]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _table_of(name: str) -> str:
    """Name of the table that holds field `name`."""
    import difflib

    homes = {f.name: t.name for t in fields(Settings) for f in fields(t.default_factory)}  # type: ignore[arg-type]
    if name in homes:
        return homes[name]
    near = difflib.get_close_matches(name, homes, n=1)
    raise UsageError(f"no setting is called {name!r}", f"did you mean {near[0]!r}?" if near else "")
