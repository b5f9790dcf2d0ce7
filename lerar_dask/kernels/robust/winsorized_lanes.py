"""What winsorized clipping certainly keeps, proven for many pixels in one vector pass.

In   a block (n, > LANES) float32 of sorted columns, `MISSING` at their ends; numbers of the lanes, one after the other
Out  the lanes in which samples up to a given distance certainly stay

The proof is that of `winsorized`: where the samples clamped at 1.5 s have a sigma of s or more, and the plain deviation is
s or more, sigma never falls below s. It is done in float32, with margins for what float32 may lose.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import PRESENT
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.robust.sorting import LANES
from lerar_dask.kernels.robust.winsorized import WINSOR

__all__ = ["MIDDLE", "NEED", "NUMBERS", "PRESENT_N", "ROUNDING", "describe_lanes", "prove_kept"]

# Numbers of the lanes lie in one flat array at constant offsets: the compiler then sees that they do not overlap.
PRESENT_N, MIDDLE, NEED, _SUM, _SQUARES, _CLAMPED, _CLAMPED_SQUARES = (LANES * k for k in range(7))
NUMBERS = 7 * LANES
"""Length of the array; who needs more numbers puts them behind."""
ROUNDING = np.float32(3e-7)
"""Of the median: what float32 may do to a difference from it."""
_MARGIN = np.float32(1.0002)
"""What float32 may lose in a proof, squared; sums of many samples lose more."""
_FAST = {"contract", "nsz", "arcp"}
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@kernel
def describe_lanes(block, counts, low, high, lanes):
    """Write number of samples, median, and `NEED`: the sigma at which the farthest sample lies at its limit.

    Parameters
    ----------
    block : (n, > LANES) float32
    counts : (LANES,) int32     samples that are there
    low, high : float32         limits in sigma
    lanes : float32             written
    """
    for i in range(LANES):
        m = int(counts[i])
        lanes[PRESENT_N + i], lanes[MIDDLE + i], lanes[NEED + i] = m, _ZERO, _ZERO
        if m > 0:
            middle = _HALF * (block[(m - 1) // 2, i] + block[m // 2, i])
            lanes[MIDDLE + i] = middle
            lanes[NEED + i] = max((middle - block[0, i]) / low, (block[m - 1, i] - middle) / high)


@kernel(fastmath=_FAST)
def prove_kept(block, lanes, proven):
    """Mark the lanes whose samples certainly stay as far out as `NEED` sigma of 1 reach; fewer than three always do."""
    for i in range(LANES):
        lanes[_SUM + i], lanes[_SQUARES + i] = _ZERO, _ZERO
        lanes[_CLAMPED + i], lanes[_CLAMPED_SQUARES + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            bound = np.float32(1.5) * lanes[NEED + i]
            d = row[i] - lanes[MIDDLE + i] if row[i] < PRESENT else _ZERO
            lanes[_SUM + i] += d
            lanes[_SQUARES + i] += d * d
            d = d if d < bound else bound
            d = d if d > -bound else -bound
            lanes[_CLAMPED + i] += d
            lanes[_CLAMPED_SQUARES + i] += d * d
    for i in range(LANES):
        m = lanes[PRESENT_N + i]
        count = max(m, _ONE)
        s = lanes[NEED + i] + ROUNDING * abs(lanes[MIDDLE + i])
        least = s * s * (_MARGIN + np.float32(1.2e-7) * m) * (m - _ONE)
        plain = lanes[_SQUARES + i] - lanes[_SUM + i] * lanes[_SUM + i] / count
        clamped = lanes[_CLAMPED_SQUARES + i] - lanes[_CLAMPED + i] * lanes[_CLAMPED + i] / count
        enough = (plain >= least) & (np.float32(WINSOR * WINSOR) * clamped >= least)
        proven[i] = (m < np.float32(3.0)) | enough
