"""Names, dimensions, units and meaning of everything in a store: the twin of stores/format-1.md."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ARRAYS", "FORMAT", "FORMAT_VERSION", "PLANES", "ArraySpec"]

FORMAT = "lerar"
FORMAT_VERSION = 1
PLANES = ("image", "noise", "coverage", "rejlow", "rejhigh")


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store."""

    path: str
    """With <names> in angle brackets."""
    dims: tuple[str, ...]
    dtype: str
    unit: str
    meaning: str


ARRAYS = (
    ArraySpec(
        "raw/<geometry>/pixels",
        ("slot", "y", "x"),
        "as stored",
        "adu",
        "raw pixels of each sub, as its file holds them",
    ),
    ArraySpec(
        "measures/<geometry>/<key>/blocks",
        ("slot", "channel", "by", "bx", "field"),
        "float32",
        "adu",
        "8 px blocks: mean, count, clipped-high sum",
    ),
    ArraySpec(
        "measures/<geometry>/<key>/grid",
        ("slot", "channel", "gy", "gx", "field"),
        "float32",
        "adu",
        "background level and pixel noise in cells",
    ),
    ArraySpec(
        "measures/<geometry>/<key>/stars",
        ("slot", "rank", "column"),
        "float64",
        "",
        "stars by brightness, padded with NaN",
    ),
    ArraySpec(
        "measures/<geometry>/<key>/spikes",
        ("slot", "rank", "column"),
        "float64",
        "",
        "sharp detections that are no stars: x, y, value",
    ),
    ArraySpec("calibration/<key>/image", ("y", "x"), "float32", "adu", "a master bias, dark, flat-dark or flat"),
    ArraySpec("calibration/<key>/pedestal", ("y", "x"), "float32", "adu", "taken off the raw values"),
    ArraySpec("calibration/<key>/gain", ("y", "x"), "float32", "1", "multiplied after the pedestal: 1 / flat"),
    ArraySpec("calibration/<key>/defects", ("defect",), "int32", "", "flat indices of bad pixels, sorted"),
    ArraySpec("registration/<key>/transforms", ("sub", "row", "column"), "float64", "px", "reference plane to sub"),
    ArraySpec(
        "normalization/<key>/scale", ("sub", "channel"), "float64", "1", "brightness of each sub relative to the scene"
    ),
    ArraySpec(
        "normalization/<key>/coefficients",
        ("sub", "channel", "py", "px"),
        "float32",
        "adu",
        "sky surface of each sub, B-splines",
    ),
    ArraySpec("stack/<key>/*", ("sub", "..."), "any", "", "table of the subs of a group, as integration reads it"),
    ArraySpec(
        "master/<key>/image",
        ("channel", "plane", "y", "x"),
        "float32",
        "adu",
        "planes image, noise, coverage, rejlow, rejhigh",
    ),
)
