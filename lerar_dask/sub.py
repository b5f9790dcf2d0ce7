"""Sub: all that stages know of a light in the store, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["Sub"]


@dataclass(frozen=True, kw_only=True)
class Sub:
    """A light in the store; also an image of the user's that stands beside the subs, measured as they are."""

    id: str = ""
    """Hash of its pixels."""
    path: str
    group: str
    """Subs of one group make one master, and share a model of registration."""
    geometry: str
    slot: int
    measure: str
    """Key of its measurements."""
    shape: tuple[int, int]
    calibration: str | None = None
    """Key of its calibration set."""
    start: float = 0.0
    """Start of the exposure, unix seconds; 0: unknown."""
    exposure_s: float = 0.0
    cfa: str | None = None
    has_dark: bool = False
    """Whether a dark tells its hot pixels."""
    scale_arcsec_px: float | None = None
    """As its header tells it."""
    binning: int = 1
    noise_cell_px: int = 64
    """Side of the cells in which its sky and noise were measured."""
    stars_at: str = ""
    """Array in the store that holds the star list, in place of the measurements."""

    @property
    def name(self) -> str:
        """Name of its file."""
        return PurePath(self.path).name
