"""Binning: means of square areas of an image, for pictures of it.

In   bands of an image with gaps
Out  one value per area; NaN where less than half of it has data
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel

__all__ = ["area_means"]


def area_means(rows: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor pixels; areas at the end may be smaller.

    Parameters
    ----------
    rows : (channel, y, x) float32; NaN = no data

    Returns
    -------
    means : (channel, ceil(y / factor), ceil(x / factor)) float32

    Examples
    --------
    >>> area_means(np.array([[[1, 3, 5], [1, 3, np.nan]]], np.float32), 2)
    array([[[2., 5.]]], dtype=float32)
    """
    channels, height, width = rows.shape
    out = np.empty((channels, -(-height // factor), -(-width // factor)), np.float32)
    for channel in range(channels):
        _area_means(rows[channel], factor, out[channel])
    return out


@kernel
def _area_means(image, factor, out):
    width = image.shape[1]
    total, count = np.empty(width, np.float32), np.empty(width, np.int32)
    for j in range(out.shape[0]):
        y0, y1 = j * factor, min((j + 1) * factor, image.shape[0])
        total[:] = 0.0
        count[:] = 0
        for y in range(y0, y1):
            for x in range(width):
                v = image[y, x]
                good = abs(v) < np.float32(np.inf)
                total[x] += v if good else np.float32(0.0)
                count[x] += np.int32(good)
        for i in range(out.shape[1]):
            x0, x1 = i * factor, min((i + 1) * factor, width)
            sum_, n = 0.0, 0
            for x in range(x0, x1):
                sum_ += total[x]
                n += count[x]
            out[j, i] = sum_ / n if 2 * n >= (y1 - y0) * (x1 - x0) else np.nan
