"""Numbers and names that kernels, stores and products share; each has this one home."""

from __future__ import annotations

from enum import IntFlag

import numpy as np

__all__ = ["BLOCK_PX", "MAD_TO_SIGMA", "MISSING", "NOISE_CELL_PX", "PLANES", "PRESENT", "SIGMA_TO_FWHM", "StarFlag"]

MISSING = np.float32(1e30)
"""Stands in a cube or window where there is no sample: NaN would slow down the loops, and hide."""
PRESENT = np.float32(1e29)
"""A sample is below this, `MISSING` is not."""
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / Phi^-1(3/4)."""
SIGMA_TO_FWHM = 2.3548
"""Full width at half maximum of a Gaussian over its sigma, 2 sqrt(2 ln 2)."""
BLOCK_PX = 8
"""Side of the blocks of a sub that local normalization, trails and pictures of subs work on."""
NOISE_CELL_PX = 128
"""Side of a cell of the master in which a sub's noise, weight and sky are one number each."""
PLANES = ("image", "noise", "coverage", "rejlow", "rejhigh")
"""Planes of a master, in the store and in its FITS file."""


class StarFlag(IntFlag):
    """What may be wrong with a star; column `flags` of the tables of stars."""

    EDGE = 1
    """Its aperture leaves the frame, or touches a void."""
    SATURATED = 2
    DIVERGED = 4
    """Its moments did not settle."""
    MOVED = 8
    """It was found elsewhere than its light lies."""
    NEIGHBOR = 16
    """Another star's light lies in its aperture."""
