"""Masters as FITS files that other programs open and that we take back.

In: a `MasterImage` (pixels by bands of rows, facts for the header) or a `CalibrationMaster`.
Out: `OUT/M31_L.fits`: PRIMARY = image (y, x) or (3, y, x), then NOISE, COVERAGE, REJLOW, REJHIGH with an axis of
length 1 in front (why: see `write_master`), the FRAMES table and PROVENANCE;
`OUT/calibration/*.fits`: one image with the header words by which this and other programs match masters.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.products.hdus import FitsWriter, ascii_text, atomic_path, image_header
from lerar_dask.products.provenance import program

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = [
    "CalibrationMaster",
    "MasterImage",
    "put_cards",
    "put_history",
    "rows_of",
    "write_calibration",
    "write_master",
]

ReadRows = Callable[[int, int], np.ndarray]
_BAND_ROWS = 256
_PLANE_UNITS = {"noise": "adu", "coverage": "1", "rejlow": "1", "rejhigh": "1"}
_PLANE_TEXTS = {
    "noise": "1 sigma, white-equivalent (see NOISPIX)",
    "coverage": "samples combined",
    "rejlow": "samples rejected low",
    "rejhigh": "samples rejected high",
}
_INTEGERS = {"n_stars", "n_trails"}
_NUMBER_UNITS = {"_s": "s", "_adu": "adu", "_px": "pix", "_deg": "deg"}
_TEXTS = {"path", "id", "group", "kind", "fate", "reason", "date_obs", "filter", "dark", "flat", "bias"}
_IMAGETYP = {"bias": "Master Bias", "dark": "Master Dark", "flat": "Master Flat", "flat-dark": "Master DarkFlat"}


@dataclass(frozen=True, kw_only=True)
class MasterImage:
    """A master: its pixels and what its header says."""

    read_rows: ReadRows
    """(y0, y1) -> (channel, plane, y1 - y0, x) float32, planes in the order of PLANES; NaN = no data."""
    shape: tuple[int, int, int]
    """Channels (1 or 3), rows, columns."""
    group: str
    object: str = ""
    filter: str = ""
    telescope: str = ""
    camera: str = ""
    gain: float | None = None
    exposure_total_s: float = 0.0
    """Sum over the subs used."""
    n_combined: int = 0
    date_beg: str = ""
    """UTC, ISO 8601: start of the first sub."""
    date_avg: str = ""
    """UTC: mean time of the light that was gathered."""
    date_end: str = ""
    """UTC: end of the last sub."""
    sky_level_adu: float = 0.0
    """Constant sky level that is still in the image."""
    noise_kernel: str = ""
    """Interpolation, as LANCZOS3."""
    noise_pixel_factor: float | None = None
    """Single-pixel scatter in units of NOISE, which is white-equivalent."""
    noise_correlation: Sequence[float] = ()
    """Correlation of the noise of pixels 1, 2, ... apart along an axis."""
    wcs: Mapping[str, Any] | None = None
    """WCS cards of the reference sub as they are; CRPIX is moved to the canvas here."""
    shares: bool = False
    """Whether coverage is a sum of shares (drizzled), not a number of samples."""
    origin_yx: tuple[float, float] = (0, 0)
    """Reference-plane (y, x) of the master's first pixel."""
    row_order: str = ""
    """TOP-DOWN or BOTTOM-UP where the reference sub says so."""
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Other header words to carry (pixel size, focal length, pointing), value or (value, comment)."""
    history: Sequence[str] = ()
    """A line or two per stage."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Settings, versions, machine, links: JSON values by name."""


@dataclass(frozen=True, kw_only=True)
class CalibrationMaster:
    """A master bias, dark, flat or flat-dark."""

    kind: str
    """bias, dark, flat, flat-dark."""
    image: np.ndarray
    """(y, x) float32: ADU, or around 1 for a flat."""
    n_combined: int
    exposure_s: float | None = None
    gain: float | None = None
    offset: float | None = None
    sensor_temp_c: float | None = None
    set_temp_c: float | None = None
    binning: tuple[int, int] | None = None
    """y, x."""
    camera: str = ""
    telescope: str = ""
    filter: str = ""
    cfa: str | None = None
    """2x2 color pattern of the array as written, row by row."""
    row_order: str = ""
    date_beg: str = ""
    date_end: str = ""
    bias_subtracted: bool = False
    """Whether a bias (or, from a flat, its flat-dark) was taken off."""
    flat_mean: float | None = None
    """Mean level of the flat, in ADU, before it was brought to 1."""
    cards: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[str] = ()


def rows_of(planes: np.ndarray) -> ReadRows:
    """`read_rows` of a master that is in memory, (channel, plane, y, x)."""
    return lambda y0, y1: planes[:, :, y0:y1]


def write_master(path: Path, master: MasterImage, frames: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write a master with its planes, the table of frames and its provenance, with checksums, at once or not at all.

    Parameters
    ----------
    frames : rows of the FRAMES table, in the order to be written
    """
    channels, height, width = master.shape
    shape = master.shape if channels > 1 else (height, width)
    with atomic_path(path) as partial, FitsWriter(partial) as file:
        for plane in PLANES:
            # Siril (1.0.6) takes a file whose images have all the same axes for a sequence of subs and refuses to load
            # it; an axis of length 1 in front of the planes tells them apart, for every program.
            axes = shape if plane == "image" else (1, *shape)
            file.add_image(_master_header(master, axes, plane), axes)
        for y0 in range(0, height, _BAND_ROWS):
            rows = master.read_rows(y0, min(y0 + _BAND_ROWS, height))
            for channel in range(channels):
                for index in range(len(PLANES)):
                    file.write_rows(index, channel * height + y0, rows[channel, index])
        file.add_table(_frames_table(frames))
        file.add_table(_provenance_table(master.provenance))


def write_calibration(path: Path, master: CalibrationMaster) -> None:
    """Write a calibration master, with checksum, at once or not at all."""
    header = image_header(master.image.shape, primary=True, name=master.kind.upper().replace("-", ""))
    _put(header, "IMAGETYP", _IMAGETYP[master.kind], "kind of frame")
    _put(header, "BUNIT", "adu" if master.kind != "flat" else "", "unit of the pixels")
    _put(header, "NCOMBINE", master.n_combined, "frames combined")
    _put(header, "EXPTIME", master.exposure_s, "[s] exposure of one frame")
    _put(header, "GAIN", master.gain, "gain setting")
    _put(header, "OFFSET", master.offset, "offset setting")
    _put(header, "CCD-TEMP", master.sensor_temp_c, "[deg C] sensor")
    _put(header, "SET-TEMP", master.set_temp_c, "[deg C] cooler's aim")
    if master.binning:
        _put(header, "XBINNING", master.binning[1], "binning along x")
        _put(header, "YBINNING", master.binning[0], "binning along y")
    _put(header, "INSTRUME", master.camera, "camera")
    _put(header, "TELESCOP", master.telescope, "telescope")
    _put(header, "FILTER", master.filter, "filter")
    _put(header, "BAYERPAT", _pattern_from_top(master), "color pattern, from the top")
    _put(header, "ROWORDER", master.row_order, "order of the rows")
    _put(header, "DATE-OBS", master.date_beg, "UTC, start of the first frame")
    _put(header, "DATE-BEG", master.date_beg, "UTC, start of the first frame")
    _put(header, "DATE-END", master.date_end, "UTC, end of the last frame")
    _put(header, "BIASSUB", master.bias_subtracted, "bias or flat-dark was subtracted")
    if master.kind == "flat":
        _put(header, "FLATNORM", True, "brought to mean 1")
        _put(header, "FLATMEAN", master.flat_mean, "[adu] mean level before")
    put_cards(header, master.cards)
    _put(header, "PROGRAM", program(), "")
    put_history(header, master.history)
    with atomic_path(path) as partial, FitsWriter(partial) as file:
        file.add_image(header, master.image.shape)
        file.write_rows(0, 0, master.image)


def _pattern_from_top(master: CalibrationMaster) -> str | None:
    """The pattern as other programs read it: from the top, where rows that run upwards end."""
    if master.cfa and master.row_order == "BOTTOM-UP" and master.image.shape[0] % 2 == 0:
        return master.cfa[2:] + master.cfa[:2]
    return master.cfa


def _master_header(master: MasterImage, shape: tuple[int, ...], plane: str) -> fits.Header:
    primary = plane == "image"
    header = image_header(shape, primary=primary, name="SCI" if primary else plane.upper(), bits=_bits(master, plane))
    if primary:
        _put_facts(header, master)
    else:
        header.comments["EXTNAME"] = _PLANE_TEXTS[plane]
        _put(header, "BUNIT", _PLANE_UNITS[plane].replace("1", ""), "")
    _put_wcs(header, master)
    if primary:
        _put(header, "PROGRAM", program(), "")
        put_history(header, master.history)
    return header


def _bits(master: MasterImage, plane: str) -> int:
    """Pixel type of a plane: samples are counted in whole numbers."""
    if plane in ("image", "noise") or (plane == "coverage" and master.shares):
        return -32
    return 16 if master.n_combined <= np.iinfo(np.int16).max else 32


def _put_facts(header: fits.Header, master: MasterImage) -> None:
    _put(header, "IMAGETYP", "Master Light", "kind of frame")
    _put(header, "BUNIT", "adu", "linear; one scale for all subs, constant sky")
    _put(header, "OBJECT", master.object, "target")
    _put(header, "FILTER", master.filter, "filter")
    _put(header, "EXPTIME", master.exposure_total_s, "[s] sum over the subs")
    _put(header, "NCOMBINE", master.n_combined, "subs combined")
    _put(header, "DATE-OBS", master.date_beg, "UTC, start of the first sub")
    _put(header, "DATE-BEG", master.date_beg, "UTC, start of the first sub")
    _put(header, "DATE-AVG", master.date_avg, "UTC, mean of the light gathered")
    _put(header, "DATE-END", master.date_end, "UTC, end of the last sub")
    _put(header, "TELESCOP", master.telescope, "telescope")
    _put(header, "INSTRUME", master.camera, "camera")
    _put(header, "GAIN", master.gain, "gain setting")
    _put(header, "ROWORDER", master.row_order, "order of the rows")
    _put(header, "SKYLEVEL", master.sky_level_adu, "[adu] constant sky in the image")
    _put(header, "NOISKERN", master.noise_kernel.upper(), "interpolation of the subs")
    _put(header, "NOISPIX", master.noise_pixel_factor, "single-pixel scatter / NOISE")
    for lag, value in enumerate(master.noise_correlation, start=1):
        _put(header, f"NOISRHO{lag}", value, f"correlation of noise {lag} px apart")
    _put(header, "ORIGINX", master.origin_yx[1], "[pix] column of the reference sub at pixel 1")
    _put(header, "ORIGINY", master.origin_yx[0], "[pix] row of the reference sub at pixel 1")
    put_cards(header, master.cards)


def _put_wcs(header: fits.Header, master: MasterImage) -> None:
    """WCS of the reference sub, moved to the canvas; SIP is relative to CRPIX and stays."""
    moved = dict(master.wcs or {})
    for word, origin in (("CRPIX1", master.origin_yx[1]), ("CRPIX2", master.origin_yx[0])):
        if isinstance(moved.get(word), int | float):
            moved[word] = float(moved[word]) - origin
    put_cards(header, moved)


def put_cards(header: fits.Header, cards: Mapping[str, Any]) -> None:
    """Carry foreign cards: values that cannot stand in a card are left out, the words set before stay."""
    for word, item in cards.items():
        value, comment = item if isinstance(item, tuple) else (item, "")
        if word not in header and len(word) <= 8:
            _put(header, word, value, comment)


def _put(header: fits.Header, word: str, value: Any, comment: str) -> None:
    """Set a card unless the value is unknown."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
        return
    if not isinstance(value, bool | int | float):
        value = ascii_text(value)
    header[word] = (value, ascii_text(comment))


def put_history(header: fits.Header, lines: Sequence[str]) -> None:
    """HISTORY cards, long lines broken between words."""
    for line in lines:
        for part in textwrap.wrap(ascii_text(line), 72, subsequent_indent="  "):
            header["HISTORY"] = part


def _frames_table(frames: Sequence[Mapping[str, Any]]) -> fits.BinTableHDU:
    """FRAMES: numbers as float64 with NaN for unknown, counts as int32 with -1, texts as ASCII."""
    from astropy.io import fits

    names = list(frames[0]) if frames else ["path", "fate", "reason"]
    columns = []
    for name in names:
        values = [frame.get(name) for frame in frames]
        if name in _INTEGERS:
            array = np.array([-1 if v is None else int(v) for v in values], np.int32)
            columns.append(fits.Column(name, "J", null=-1, array=array))
        elif name not in _TEXTS:
            unit = next((u for end, u in _NUMBER_UNITS.items() if name.endswith(end)), None)
            array = np.array([np.nan if v is None else float(v) for v in values], float)
            columns.append(fits.Column(name, "D", unit=unit, array=array))
        else:
            columns.append(_text_column(name, ["" if v is None else str(v) for v in values]))
    return fits.BinTableHDU.from_columns(columns, name="FRAMES")


def _provenance_table(provenance: Mapping[str, Any]) -> fits.BinTableHDU:
    """PROVENANCE: one row per subject, its value as JSON."""
    from astropy.io import fits

    texts = [json.dumps(value, sort_keys=True, default=str) for value in provenance.values()]
    columns = [_text_column("name", list(provenance)), _text_column("json", texts)]
    return fits.BinTableHDU.from_columns(columns, name="PROVENANCE")


def _text_column(name: str, texts: Sequence[str]) -> fits.Column:
    """Fixed-width ASCII; other characters as backslash escapes, so that paths stay exact."""
    from astropy.io import fits

    plain = [t.encode("ascii", "backslashreplace") for t in texts]
    width = max([1, *map(len, plain)])
    return fits.Column(name, f"{width}A", array=np.array(plain, dtype=f"S{width}"))
