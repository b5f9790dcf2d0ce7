"""SCNR: a color cast of one channel taken back to what the other two say is neutral.

In   (3, ...) RGB in 0..1
Out  the same, with less green

Formulas as in PixInsight's documentation of SubtractiveChromaticNoiseReduction.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lerar_dask.kernels.picture.color import from_lab, to_lab

__all__ = ["Protection", "remove_green"]

Protection = Literal["average", "maximum", "minimum", "maximum-mask", "additive-mask"]


def remove_green(
    rgb: np.ndarray, *, protection: Protection = "average", amount: float = 1.0, keep_lightness: bool = True
) -> np.ndarray:
    """Less green where there is more of it than is neutral.

    Parameters
    ----------
    rgb : (3, ...) float32
    protection : what is neutral: at most the mean, the larger or the smaller of R and B; or a mask by R and B
    amount : 0 nothing, 1 all
    keep_lightness : put the L* back that the image had
    """
    r, g, b = rgb
    a, one = np.float32(amount), np.float32(1)
    if protection in ("maximum-mask", "additive-mask"):
        mask = np.maximum(r, b) if protection == "maximum-mask" else np.minimum(one, r + b)
        green = g * (one - a) * (one - mask) + mask * g
    else:
        of = {"average": (r + b) / np.float32(2), "maximum": np.maximum(r, b), "minimum": np.minimum(r, b)}
        green = (one - a) * g + a * np.minimum(g, of[protection])
    out = np.stack([r, green, b])
    if not keep_lightness:
        return out
    lab = to_lab(out)
    lab[0] = to_lab(rgb)[0]
    return np.clip(from_lab(lab), 0, 1)
