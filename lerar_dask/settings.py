"""The only home of defaults: one frozen dataclass per stage (as TOML: `settings_toml`).

The text under each field is its help on the command line, its comment in `lerar.toml` and its documentation. Field
names are unique over all classes, so that `--reject` or `LERAR_REJECT` need no prefix. `Run` says where and how; it
never enters a digest. All others are science: a changed value redoes what depends on it, and nothing else.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lerar_dask.errors import UsageError
from lerar_dask.setting_values import check_store, checked_value, nearest, shortened

__all__ = [
    "Drizzle",
    "Ingest",
    "Integrate",
    "Link",
    "Masters",
    "Normalize",
    "Picture",
    "Products",
    "Register",
    "Run",
    "Settings",
    "Slurm",
    "field_texts",
    "from_tables",
]

_RANGES: dict[str, tuple[float, float]] = {
    "exposure_tolerance_s": (0, 1e6),
    "temperature_tolerance_c": (0, 100),
    "gain_tolerance": (0, 1e6),
    "offset_tolerance": (0, 1e6),
    "rotator_tolerance_deg": (0, 180),
    "session_gap_h": (0, 1e5),
    "master_sigma_low": (0.1, 1000),
    "master_sigma_high": (0.1, 1000),
    "background_cell_px": (16, 4096),
    "detection_sigma": (1, 1e4),
    "max_stars": (10, 100_000),
    "hot_sigma": (0.1, 1e6),
    "cold_sigma": (0.1, 1e6),
    "accept_log_odds": (0, 1e4),
    "tile_px": (32, 65_536),
    "sigma_low": (0.1, 1000),
    "sigma_high": (0.1, 1000),
    "reject_low_count": (0, 1_000_000),
    "reject_high_count": (0, 1_000_000),
    "percentile_low": (0, 1000),
    "percentile_high": (0, 1000),
    "clamping": (0, 1),
    "drizzle": (0, 4),
    "drop": (0.1, 1),
    "degree": (0, 4),
    "iterations": (1, 500),
    "deringing": (0, 1),
    "sky_shade": (0.01, 0.9),
    "shadows": (-1e6, 1),
    "midtones": (1e-6, 1),
    "highlights": (1e-6, 1e6),
    "lightness": (1e-3, 0.999),
    "saturation": (1e-3, 0.999),
    "chroma_layers": (0, 7),
    "green_amount": (0, 1),
    "threads": (0, 4096),
    "jobs": (1, 10_000),
    "job_cores": (1, 1024),
}
"""Least and largest value of every setting that is a number."""
_COSMETIC = {"only": {"cosmetic": (True,)}}
_IN_SIGMA = {"only": {"reject": ("auto", "sigma", "winsorized", "mad")}}
"""Values of other settings beside which a setting has an effect: only then does it enter a digest (identity.py)."""
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
    """Plots of the report begin a new session after a pause longer than this."""
    scale_darks: bool = True
    """Scale a dark of another exposure when a bias allows it."""
    pins: Path | None = None
    """TOML table that pins or forbids links."""
    default_kind: Literal["ask", "light"] = "ask"
    """What a frame is when neither header nor folder says: `ask` takes it for a light only if it tells its exposure."""


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
    max_stars: int = 3000
    """The brightest stars kept per sub."""
    cosmetic: bool = True
    """Find hot and cold pixels and bad columns, and leave them out where other subs know better."""
    hot_sigma: float = field(default=8.0, metadata=_COSMETIC)
    """Pixels of the master dark this far above their neighbors are hot."""
    cold_sigma: float = field(default=8.0, metadata=_COSMETIC)
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
    """FITS image (a calibrated sub, a master) whose scale and background all subs get; without it, those of the night."""


@dataclass(frozen=True, kw_only=True)
class Integrate:
    """How the subs become one image."""

    reject: Rejection = "auto"
    """Rejection; `auto` tests each sample against its measured noise."""
    sigma_low: float = field(default=3.0, metadata=_IN_SIGMA)
    """Low limit, in sigma."""
    sigma_high: float = field(default=3.0, metadata=_IN_SIGMA)
    """High limit, in sigma."""
    reject_low_count: int = field(default=1, metadata={"only": {"reject": ("minmax",)}})
    """Samples that `minmax` drops at the low end."""
    reject_high_count: int = field(default=1, metadata={"only": {"reject": ("minmax",)}})
    """Samples that `minmax` drops at the high end."""
    percentile_low: float = field(default=0.2, metadata={"only": {"reject": ("percentile",)}})
    """Low limit of `percentile`, as a fraction of the median."""
    percentile_high: float = field(default=0.1, metadata={"only": {"reject": ("percentile",)}})
    """High limit of `percentile`, as a fraction of the median."""
    interpolation: Literal["lanczos3", "bilinear"] = "lanczos3"
    """How subs are sampled onto the grid."""
    clamping: float = field(default=0.3, metadata={"only": {"interpolation": ("lanczos3",)}})
    """Negative lobes of Lanczos that make a ring are held below this share of the positive part (1 = no clamping)."""
    weights: Literal["inverse-variance", "noise", "psf", "none"] = "inverse-variance"
    """inverse-variance: per tile, after scaling; noise: one number per sub; psf: favors sharp subs as well."""
    trails: bool = True
    """Find lines of satellites and planes in each sub and leave them out."""

    @property
    def limits(self) -> tuple[float, float]:
        """Low and high limit of the rejection in force."""
        if self.reject == "minmax":
            return self.reject_low_count, self.reject_high_count
        if self.reject == "percentile":
            return self.percentile_low, self.percentile_high
        return self.sigma_low, self.sigma_high


_DRIZZLED = {"only": {"drizzle": (1, 2, 3, 4)}}


@dataclass(frozen=True, kw_only=True)
class Drizzle:
    """A second master on finer pixels, for dithered subs that sample their stars coarsely."""

    drizzle: int = 0
    """Pixels of the drizzled master along one of the grid's, 1 to 4; 0: none is made. Colors of a color camera are
    poured each by itself, without interpolation."""
    drop: float = field(default=0.9, metadata=_DRIZZLED)
    """Side of a drop along that of its pixel; the smaller, the sharper, and the more subs it takes."""
    drizzle_kernel: Literal["square", "gaussian", "point"] = field(default="square", metadata=_DRIZZLED)
    """Shape of a drop."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What is written for people."""

    preview: bool = True
    """Write an auto-stretched PNG."""
    report: bool = True
    """Write report.html."""
    lnref: bool = False
    """Write the LN reference of each group: the mean of its best subs on the sky that all have in common."""
    solve: str = ""
    """Plate solution of the masters: a table of stars of yours (CSV, FITS, VOTable with right ascension and declination), or
    `solve-field`, astrometry.net's program with your index files; empty: as the headers of the subs say."""


_SHARPENED = {"only": {"deconvolution": ("richardson-lucy",)}}
_CURVE = {"only": {"stretch": ("manual",)}}
_COLORED = {"only": {"stretch": ("auto", "unlinked", "arcsinh", "hyperbolic")}}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """From masters to a picture: `lerar picture`."""

    palette: Literal["auto", "rgb", "sho", "hoo", "gray"] = "auto"
    """Which filters become red, green and blue; `auto` takes what there is."""
    red: str = ""
    """Mix of filters for red in place of the palette's, as "0.8*Ha + 0.2*SII"."""
    green: str = ""
    """Mix of filters for green."""
    blue: str = ""
    """Mix of filters for blue."""
    luminance: str = ""
    """Mix of filters for luminance; empty: L where there is one; `none`: that of the colors."""
    uncovered: Literal["blank", "gray"] = "blank"
    """Where some color has no data: no picture (`blank`), or the others' light without color (`gray`)."""
    background_region: str = ""
    """Rectangle of the canvas that is sky, as "x0,y0,x1,y1"; empty: the darkest object-free tiles."""
    degree: int = 0
    """Degree of the slope between channels that is taken off: 0 none, 1 a plane, 2 a bowl."""
    white: Literal["stars", "g2v", "spiral", "none"] = "stars"
    """What is white: the usual star of the field, the Sun, an average spiral galaxy, or nothing is changed."""
    catalog: Path | None = None
    """CSV of stars with columns ra_deg, dec_deg and b_v, by which the white is balanced where the WCS is known."""
    white_factors: str = ""
    """Factors of red, green and blue in place of those by the stars, as "1.2,1,1.4"."""
    deconvolution: Literal["none", "richardson-lucy"] = "none"
    """Take the blur of the stars' profile out of the luminance, while it is linear."""
    psf_model: Literal["moffat", "gaussian"] = field(default="moffat", metadata=_SHARPENED)
    """Profile that is fitted to the stars."""
    iterations: int = field(default=30, metadata=_SHARPENED)
    """Most iterations of a deconvolution; it ends before when nothing above the noise is left."""
    deringing: float = field(default=1.0, metadata=_SHARPENED)
    """How far dark rings about stars are lifted: 0 not at all, 1 to what lay there before."""
    stretch: Literal["auto", "linked", "unlinked", "arcsinh", "hyperbolic", "manual"] = "auto"
    """Curve: midtones by sky and noise (`linked` for all channels alike, `unlinked` for each; `auto` chooses by palette),
    or another, or that of --shadows, --midtones, --highlights."""
    sky_shade: float = field(default=0.2, metadata=_COLORED)
    """Brightness of the sky in the picture."""
    shadows: float = field(default=0.0, metadata=_CURVE)
    """Linear value that becomes black, where white is 1."""
    midtones: float = field(default=0.5, metadata=_CURVE)
    """Linear value between shadows (0) and highlights (1) that becomes half."""
    highlights: float = field(default=1.0, metadata=_CURVE)
    """Linear value that becomes white."""
    lrgb: Literal["stretched", "linear"] = "stretched"
    """Where luminance joins color: lightness after the stretch, or luminance before it."""
    lightness: float = 0.5
    """Midtones of the lightness of LRGB; less is brighter."""
    saturation: float = 0.4
    """Midtones of the saturation; less is more colorful, 0.5 as it is."""
    chroma_layers: int = 3
    """Layers of fine detail that are taken out of the color of dark parts."""
    green_removal: Literal["auto", "none", "average", "maximum", "minimum", "maximum-mask", "additive-mask"] = "auto"
    """SCNR: what is neutral; `auto` takes the average where fog is left, and nothing else."""
    green_amount: float = 1.0
    """Share of the surplus of green that SCNR takes off."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how: never part of a result's identity."""

    memory: str = ""
    """Memory for the whole run, as `4GiB`; default half of what is available."""
    threads: int = 0
    """Threads; 0 takes all cores this process may use."""
    scheduler: str = "threads"
    """threads, processes, slurm, srun, or the address of a dask scheduler (tcp://host:port, tls://host:port)."""
    store: str = ""
    """Where the store lies, a folder or s3://bucket/folder; default OUT/store.zarr."""
    codec: Literal["none", "lz4"] = "none"
    """How raw pixels are packed in the store."""
    dashboard: bool = False
    """Tell the address of the cluster's dashboard (on this machine alone; any scheduler but threads)."""
    performance_report: Path | None = None
    """HTML page that dask writes at the end: what each worker did when (any scheduler but threads)."""
    resolve: bool = False
    """Choose reference, grid origin and links afresh, although subs were measured before."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Jobs of `--scheduler slurm`: where the tasks run, never part of a result's identity."""

    queue: str = ""
    """Partition; empty: the site's default."""
    account: str = ""
    """Account that is charged; empty: your default."""
    jobs: int = 4
    """Jobs that run at the same time; one that is lost is replaced."""
    job_cores: int = 8
    """Cores of a job: it runs one worker of as many threads."""
    job_memory: str = "16GiB"
    """Memory of a job."""
    walltime: str = "08:00:00"
    """How long a job may take, as Slurm writes it; its worker leaves some minutes before."""
    interface: str = ""
    """Network interface by which jobs reach this machine, as ib0; empty: that of its host name."""
    prologue: str = ""
    """Shell commands at the start of each job, as `module load python`; several with ;."""
    sbatch_options: str = ""
    """More options of sbatch, as `--constraint=fast --exclusive`."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    link: Link = field(default_factory=Link)
    masters: Masters = field(default_factory=Masters)
    ingest: Ingest = field(default_factory=Ingest)
    register: Register = field(default_factory=Register)
    normalize: Normalize = field(default_factory=Normalize)
    integrate: Integrate = field(default_factory=Integrate)
    drizzle: Drizzle = field(default_factory=Drizzle)
    products: Products = field(default_factory=Products)
    picture: Picture = field(default_factory=Picture)
    run: Run = field(default_factory=Run)
    slurm: Slurm = field(default_factory=Slurm)

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Settings from flat field names, as `Settings.of(reject="sigma", memory="2GiB")`.

        Raises
        ------
        UsageError
            for a name that no stage knows, with the nearest one, or a value that does not fit.
        """
        tables: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            tables.setdefault(_table_of(name), {})[name] = value
        return from_tables(tables)


def field_texts(stage: type) -> dict[str, str]:
    """Text under each field of a stage's class: the one help, comment and documentation of that setting."""
    return _texts_of(stage.__module__)[stage.__name__]


@cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    """Texts under the fields of all classes of a module, which is parsed once."""
    import ast
    import inspect

    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = found.setdefault(node.name, {})
        for statement, follower in zip(node.body, node.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(follower, ast.Expr):
                assert isinstance(statement.target, ast.Name)
                assert isinstance(follower.value, ast.Constant)
                texts[statement.target.id] = inspect.cleandoc(str(follower.value.value))
    return found


def from_tables(tables: dict[str, Any], *, where: str = "", base: Path | None = None) -> Settings:
    """Checked settings from tables of plain values.

    Parameters
    ----------
    where : what the values come from, for messages
    base : folder that relative paths are taken from

    Raises
    ------
    UsageError
        for an unknown table or setting (with the nearest one), or a value that does not fit.
    """
    homes = {t.name: t.default_factory for t in fields(Settings)}
    stages = {}
    prefix = f"{where}: " if where else ""
    for table, values in tables.items():
        if not isinstance(values, dict):
            home = {n: h for h, stage in homes.items() for n in _names(stage)}.get(table)
            hint = f"put it under [{home}]" if home else nearest(table, homes)
            raise UsageError(f"{prefix}{table!r} stands outside of a table", hint)
        if table not in homes:
            raise UsageError(f"{prefix}no table is called [{table}]", nearest(table, homes))
        stage = homes[table]
        hints = get_type_hints(stage)
        checked = {}
        for name, value in values.items():
            if table == "run" and name in {"nights", "out"}:
                continue
            if name not in hints:
                raise UsageError(f"{prefix}no setting is called {name!r} in [{table}]", _elsewhere(name, table, homes))
            checked[name] = checked_value(value, hints[name], f"{prefix}{name}", base)
            if name in _RANGES:
                least, most = _RANGES[name]
                if not least <= checked[name] <= most:
                    raise UsageError(f"{prefix}{name} must be between {least:g} and {most:g}, not {shortened(value)}")
        check_store(checked.get("store", ""), prefix)
        stages[table] = stage(**checked)  # type: ignore[operator]
    return Settings(**stages)


def _names(stage: Any) -> list[str]:
    return [f.name for f in fields(stage)]


def _elsewhere(name: str, table: str, homes: dict[str, Any]) -> str:
    """Hint for a name that `table` does not have."""
    home = {n: h for h, stage in homes.items() for n in _names(stage)}.get(name)
    return f"it belongs into [{home}]" if home else nearest(name, [n for s in homes.values() for n in _names(s)])


def _table_of(name: str) -> str:
    """Name of the table that holds field `name`."""
    homes = {f.name: t.name for t in fields(Settings) for f in fields(t.default_factory)}  # type: ignore[arg-type]
    if name in homes:
        return homes[name]
    raise UsageError(f"no setting is called {name!r}", nearest(name, homes))
