"""What is known of a picture on its way: each stage returns it with what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.grid import Canvas
from lerar_dask.stages.picture.numbers import Balance, Tone
from lerar_dask.stages.picture.recipe import Recipe

__all__ = ["PictureSummary", "PictureWork"]


@dataclass(frozen=True, kw_only=True)
class PictureWork:
    """A picture of one target."""

    target: str
    canvas: Canvas
    taken: tuple[str, ...] = ()
    """Names that masters have: files of the picture have others."""
    recipe: Recipe | None = None
    fwhm_px: float = 3.0
    saturation: tuple[float, ...] = ()
    """Of colors and luminance, ADU; infinite: unknown."""
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Header words."""
    bottom_up: bool = False
    lnref: tuple[str, Path] | None = None
    """Key and file of the LN reference of what gives the luminance; None: it was not written."""
    measured: str = ""
    """Key, as those below."""
    balance: Balance | None = None
    linear: str = ""
    psf: str = ""
    sharp: str = ""
    """Empty: nothing was deconvolved."""
    tone: Tone | None = None
    finished: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    """Products by kind."""
    problem: str = ""

    @property
    def psf_fwhm_px(self) -> float:
        """Of the usual PSF."""
        psf = self.facts["psf"]
        return float(np.sqrt(psf["fwhm_x_px"] * psf["fwhm_y_px"]))


@dataclass(frozen=True, kw_only=True)
class PictureSummary:
    """What `lerar picture` did."""

    out: Path
    pictures: Sequence[PictureWork]
    did_nothing: bool
    seconds: float
    peak_bytes: int

    @property
    def exit_code(self) -> int:
        """0 when every target has its picture."""
        return int(any(p.problem for p in self.pictures) or not self.pictures)
