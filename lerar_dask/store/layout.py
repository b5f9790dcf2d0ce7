"""Names, dimensions, units and meaning of every array in a store: the twin of stores/format-1.md (a test compares them).

Dimension names are chosen so that all arrays of one group fit into one xarray dataset: two arrays share a name only
where they share the axis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lerar_dask.constants import PLANES

__all__ = ["ARRAYS", "FORMAT", "FORMAT_VERSION", "ArraySpec", "packing_of", "spec_of"]

FORMAT = "lerar"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store."""

    path: str
    """With <names> in angle brackets."""
    dims: tuple[str, ...]
    dtype: str
    unit: str
    """`1`: a ratio or count; empty: columns of different units, told in the meaning."""
    meaning: str
    packed: str = ""
    """How its chunks are packed, `store.chunk.blosc_of`."""

    @property
    def fill(self) -> str:
        """What a reader sees where nothing was written."""
        return "NaN" if self.dtype.startswith("float") else "0"


_SUB, _BY_CHANNEL = ("sub",), ("sub", "channel")
_M, _C, _N, _S = "measures/<geometry>/<key>/", "calibration/<key>/", "normalization/<key>/", "stack/<key>/"
_P = "picture/<key>/"

ARRAYS = (
    ArraySpec(
        "raw/<geometry>/pixels",
        ("slot", "y", "x"),
        "as stored",
        "adu",
        "raw pixels of each sub, as its file holds them",
    ),
    ArraySpec(
        f"{_M}blocks",
        ("slot", "channel", "by", "bx", "block_field"),
        "float32",
        "adu",
        "8 px blocks: mean of unclipped pixels, their count, sum clipped high",
        packed="rows",
    ),
    ArraySpec(
        f"{_M}grid",
        ("slot", "channel", "gy", "gx", "grid_field"),
        "float32",
        "adu",
        "background level and pixel noise in cells",
        packed="rows",
    ),
    ArraySpec(
        f"{_M}stars",
        ("slot", "star", "star_column"),
        "float64",
        "",
        "stars by flux, padded with NaN: x, y, flux, flux_error, peak, fwhm, e1, e2, snr, flags",
        packed="rows",
    ),
    ArraySpec(
        f"{_M}spikes",
        ("slot", "spike", "spike_column"),
        "float64",
        "",
        "sharp detections that are no stars, padded with NaN: x, y, value",
        packed="rows",
    ),
    ArraySpec(
        f"{_C}image", ("y", "x"), "float32", "adu", "a master bias, dark, flat-dark or flat (flat: mean 1)", "values"
    ),
    ArraySpec(f"{_C}pedestal", ("y", "x"), "float32", "adu", "taken off the raw values", "values"),
    ArraySpec(f"{_C}gain", ("y", "x"), "float32", "1", "multiplied after the pedestal: 1 / flat", "values"),
    ArraySpec(f"{_C}defects", ("defect",), "int32", "1", "flat indices of bad pixels, sorted"),
    ArraySpec(
        "registration/<key>/transforms",
        ("sub", "row", "column"),
        "float64",
        "px",
        "reference plane (x, y, 1) to sub pixel (x, y, 1); NaN: not registered",
    ),
    ArraySpec("registration/<key>/accepted", _SUB, "uint8", "1", "1: registered"),
    ArraySpec("registration/<key>/rms_px", _SUB, "float64", "px", "scatter of the stars about the transform"),
    ArraySpec("registration/<key>/n_pairs", _SUB, "int64", "1", "stars in the match"),
    ArraySpec("registration/<key>/log_odds", _SUB, "float64", "1", "how certain the match is"),
    ArraySpec(f"{_N}scale", _BY_CHANNEL, "float64", "1", "brightness of each sub relative to the scene"),
    ArraySpec(f"{_N}scale_error", _BY_CHANNEL, "float64", "1", "relative error of the scale"),
    ArraySpec(
        f"{_N}coefficients",
        ("sub", "channel", "py", "px"),
        "float32",
        "adu",
        "sky surface of each sub: B-spline coefficients",
    ),
    ArraySpec(f"{_N}error", ("sub", "channel", "ty", "tx"), "float32", "adu", "error of the sky surface on its tiles"),
    ArraySpec(f"{_N}f", _BY_CHANNEL, "float64", "1", "measured over formal variance of the cells"),
    ArraySpec(f"{_N}rejected", _BY_CHANNEL, "float64", "1", "share of cells left out of the solution"),
    ArraySpec(f"{_N}sky_level", ("channel",), "float64", "adu", "constant level added to the master"),
    ArraySpec(f"{_N}level", ("channel",), "float64", "adu", "what the sky is in normalized samples"),
    ArraySpec(f"{_N}scene", ("channel", "sy", "sx"), "float32", "adu", "the common scene on cells"),
    ArraySpec(f"{_N}common", ("channel", "term"), "float64", "adu", "gradient common to all subs"),
    ArraySpec(f"{_N}common_error", ("channel", "term"), "float64", "adu", "error of the common gradient"),
    ArraySpec(
        f"{_N}mask",
        ("mask_star", "mask_column"),
        "float64",
        "px",
        "stars hidden in all subs: x, y, radius in the reference plane",
    ),
    ArraySpec(
        f"{_N}block_scene",
        ("channel", "scene_by", "scene_bx"),
        "float32",
        "adu",
        "the scene on blocks, that trails are looked for against",
    ),
    ArraySpec(f"{_N}local_scale", _BY_CHANNEL, "float64", "1", "scale of each sub for the search of trails"),
    ArraySpec(
        f"{_N}local_coefficients",
        ("sub", "channel", "local_py", "local_px"),
        "float32",
        "adu",
        "sky surface of each sub for the search of trails",
    ),
    ArraySpec(
        f"{_N}trails/<batch>",
        ("trail_<batch>", "trail_column"),
        "float64",
        "",
        "lines left out: sub, y0, x0, y1, x1, half width, SNR; px of the sub",
    ),
    ArraySpec(f"{_S}geometry", _SUB, "int32", "1", "index into the names of raw arrays"),
    ArraySpec(f"{_S}slot", _SUB, "int32", "1", "slot in the raw array"),
    ArraySpec(f"{_S}shape", ("sub", "row_column"), "int32", "px", "rows and columns"),
    ArraySpec(f"{_S}scale", _SUB, "float64", "adu", "ADU per stored unit"),
    ArraySpec(f"{_S}zero", _SUB, "float64", "adu", "ADU of stored 0"),
    ArraySpec(f"{_S}blank", _SUB, "float64", "1", "stored value that means no data; NaN: none"),
    ArraySpec(f"{_S}saturation", _SUB, "float64", "adu", "from here on a sample is a lower bound; infinite: none is"),
    ArraySpec(f"{_S}voids", ("void", "void_column"), "int32", "px", "parts without data: sub, y0, y1, x0, x1"),
    ArraySpec(f"{_S}calibration", _SUB, "int32", "1", "index into the keys of calibration sets; -1: none"),
    ArraySpec(
        f"{_S}transform", ("sub", "row", "column"), "float64", "px", "reference plane (x, y, 1) to sub pixel (x, y, 1)"
    ),
    ArraySpec(f"{_S}ln_scale", _BY_CHANNEL, "float64", "1", "normalized = (value - sky) / ln_scale"),
    ArraySpec(
        f"{_S}ln_coefficients",
        ("sub", "channel", "py", "px"),
        "float32",
        "adu",
        "sky surface of each sub: B-spline coefficients",
    ),
    ArraySpec(f"{_S}noise", ("sub", "channel", "gy", "gx"), "float32", "adu", "sigma of the pixels in cells"),
    ArraySpec(f"{_S}sky", _BY_CHANNEL, "float32", "adu", "median background"),
    ArraySpec(f"{_S}weight_factor", _SUB, "float64", "1", "weight beyond the inverse variance"),
    ArraySpec(
        f"{_S}trails",
        ("trail", "trail_column"),
        "float64",
        "px",
        "y0, x0, y1, x1, half width of the lines left out, sub after sub",
    ),
    ArraySpec(f"{_S}trail_start", ("sub_edge",), "int64", "1", "trails of sub i: trail_start[i] to trail_start[i + 1]"),
    ArraySpec(f"{_S}e_per_adu", _SUB, "float64", "electron / adu", "gain; 0: unknown"),
    ArraySpec(f"{_S}fwhm", _SUB, "float64", "px", "median FWHM of the stars"),
    ArraySpec(f"{_S}registration_px", _SUB, "float64", "px", "error of registration; NaN: unknown"),
    ArraySpec(f"{_S}sky_level", ("channel",), "float64", "adu", "constant level added to the master"),
    ArraySpec(f"{_S}level", ("channel",), "float64", "adu", "what the sky is in normalized samples"),
    ArraySpec(
        "master/<key>/image",
        ("channel", "plane", "y", "x"),
        "float32",
        "adu",
        f"planes {', '.join(PLANES)}; coverage and rejected: number of samples",
        packed="values",
    ),
    ArraySpec(
        "master/<key>/rejected/<chunk>",
        ("rejected_<chunk>",),
        "int64",
        "1",
        "samples rejected in a chunk: (channel * subs + sub) * 131072 + row * 512 + column, sorted",
        packed="values",
    ),
    ArraySpec(
        f"{_P}tiles",
        ("tile_y", "tile_x", "picture_channel", "statistic"),
        "float32",
        "adu",
        "64 px tiles: median, sigma of a pixel, largest value; channels: colors, luminance, G - (R + B) / 2",
        packed="rows",
    ),
    ArraySpec(
        f"{_P}stars",
        ("chunk_y", "chunk_x", "star", "color_column"),
        "float64",
        "",
        "stars of each chunk, padded with NaN: x, y, flux and largest value in each channel",
        packed="rows",
    ),
    ArraySpec(
        f"{_P}psf",
        ("star", "psf_column"),
        "float64",
        "",
        "profiles of stars: x, y, FWHM along both axes, direction, 1 / beta (0: Gaussian)",
    ),
    ArraySpec(
        f"{_P}image",
        ("channel", "y", "x"),
        "float32",
        "",
        "a step of a picture: colors, and luminance",
        packed="values",
    ),
)
"""Every array of format 1."""

_PATTERNS = [(re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", spec.path)), spec) for spec in ARRAYS]


def spec_of(path: str) -> ArraySpec | None:
    """The entry of the table for an array, its dimension names made out; None for a path that it does not know.

    >>> spec_of("calibration/3fa9/gain").unit
    '1'
    """
    for pattern, spec in _PATTERNS:
        if match := pattern.fullmatch(path):
            names = match.groupdict()
            dims = tuple(_filled(dim, names) for dim in spec.dims)
            return replace(spec, path=path, dims=dims)
    return None


def packing_of(path: str) -> str:
    """How the chunks of an array are packed; the empty word: not at all.

    >>> packing_of("calibration/3fa9/gain")
    'values'
    """
    spec = spec_of(path)
    return spec.packed if spec else ""


def _filled(dim: str, names: dict[str, str]) -> str:
    """A dimension's name with its placeholders made out."""
    return re.sub(r"<(\w+)>", lambda found: names[found[1]], dim)
