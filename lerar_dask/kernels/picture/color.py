"""Color spaces: what an RGB image is in HSV, HSI, CIE XYZ, L*a*b* and L*c*h*, and back.

In   (3, ...) float: R, G, B with white at 1
Out  the components of another space, (3, ...), brought to 0..1 as ChannelCombination takes them

RGB is sRGB [1]_; its white is D65. XYZ is relative to that white, so that white is (1, 1, 1) and Lab of a gray has no
color. Lab of the field's programs is scaled: L* / 100, and a*, b* from -100..100 to 0..1; hues are turns.

References
----------
.. [1] IEC 61966-2-1:1999
.. [2] CIE 15:2004, colorimetry
.. [3] Smith, Color gamut transform pairs, SIGGRAPH 78 (HSV); "HSI" of the field's programs is Joblove and Greenberg's HSL
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["LUMINANCE", "SPACES", "from_lab", "linear_of", "luminance_of", "srgb_of", "to_lab"]

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(axis=1)
_RELATIVE = (_TO_XYZ / _WHITE[:, None]).astype(np.float32)
"""RGB to XYZ over the white's."""
_BACK = np.linalg.inv(_TO_XYZ / _WHITE[:, None]).astype(np.float32)
LUMINANCE = tuple(float(v) for v in _TO_XYZ[1])
"""Shares of R, G, B in the luminance Y."""
_KNEE, _SLOPE = 216 / 24389, 24389 / 27 / 116
"""Of the CIE's cube root, which is a line below its knee."""


def luminance_of(rgb: np.ndarray) -> np.ndarray:
    """Y of linear RGB (3, ...): the weighted sum of its channels."""
    r, g, b = (np.float32(v) for v in LUMINANCE)
    return r * rgb[0] + g * rgb[1] + b * rgb[2]


def linear_of(rgb: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values; below 0 odd."""
    size = np.abs(rgb)
    with np.errstate(invalid="ignore"):
        bright = ((size + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.copysign(np.where(size <= np.float32(0.04045), size / np.float32(12.92), bright), rgb)


def srgb_of(linear: np.ndarray) -> np.ndarray:
    """SRGB values of linear light; below 0 odd."""
    size = np.abs(linear)
    with np.errstate(invalid="ignore"):
        bright = np.float32(1.055) * size ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.copysign(np.where(size <= np.float32(0.0031308), size * np.float32(12.92), bright), linear)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """L*, a*, b* of sRGB values (3, ...), over 100: L* of white is 1.

    Examples
    --------
    >>> np.round(to_lab(np.array([1, 1, 1], np.float32)), 3).tolist()
    [1.0, 0.0, 0.0]
    """
    x, y, z = (_root(np.tensordot(row, linear_of(rgb), axes=1)) for row in _RELATIVE)
    return np.stack([np.float32(1.16) * y - np.float32(0.16), np.float32(5) * (x - y), np.float32(2) * (y - z)])


def from_lab(lab: np.ndarray) -> np.ndarray:
    """SRGB values of L*, a*, b* over 100; values outside of 0..1 are colors that sRGB does not have."""
    y = (lab[0] + np.float32(0.16)) / np.float32(1.16)
    xyz = np.stack([_cube(y + lab[1] / np.float32(5)), _cube(y), _cube(y - lab[2] / np.float32(2))])
    return srgb_of(np.tensordot(_BACK, xyz, axes=1))


def _root(t: np.ndarray) -> np.ndarray:
    return np.where(t > np.float32(_KNEE), np.cbrt(t), np.float32(_SLOPE) * t + np.float32(16 / 116))


def _cube(f: np.ndarray) -> np.ndarray:
    return np.where(f > np.float32(_KNEE ** (1 / 3)), f * f * f, (f - np.float32(16 / 116)) / np.float32(_SLOPE))


# ------------------------------------------------------------------------------------ components that are all in 0..1


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _to_xyz(rgb: np.ndarray) -> np.ndarray:
    return np.tensordot(_RELATIVE, linear_of(rgb), axes=1)


def _from_xyz(xyz: np.ndarray) -> np.ndarray:
    return srgb_of(np.tensordot(_BACK, xyz, axes=1))


def _to_lab_unit(rgb: np.ndarray) -> np.ndarray:
    lab = to_lab(rgb)
    lab[1:] = (lab[1:] + np.float32(1)) / np.float32(2)
    return lab


def _from_lab_unit(unit: np.ndarray) -> np.ndarray:
    return from_lab(np.concatenate([unit[:1], unit[1:] * np.float32(2) - np.float32(1)]))


def _to_lch_unit(rgb: np.ndarray) -> np.ndarray:
    lab = to_lab(rgb)
    turns = np.arctan2(lab[2], lab[1]) / np.float32(2 * np.pi)
    return np.stack([lab[0], np.hypot(lab[1], lab[2]), np.where(turns < 0, turns + np.float32(1), turns)])


def _from_lch_unit(unit: np.ndarray) -> np.ndarray:
    angle = unit[2] * np.float32(2 * np.pi)
    return from_lab(np.stack([unit[0], unit[1] * np.cos(angle), unit[1] * np.sin(angle)]))


def _hue(rgb: np.ndarray, top: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Hue in turns, 0 for grays."""
    r, g, b = rgb
    safe = np.where(span > 0, span, np.float32(1))
    sextant = np.where(top == r, (g - b) / safe, np.where(top == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    return np.where(span > 0, (sextant / np.float32(6)) % np.float32(1), np.float32(0)).astype(np.float32)


def _to_hsv(rgb: np.ndarray) -> np.ndarray:
    top, span = rgb.max(axis=0), np.ptp(rgb, axis=0)
    share = np.where(top > 0, span / np.where(top > 0, top, np.float32(1)), np.float32(0))
    return np.stack([_hue(rgb, top, span), share, top])


def _from_hsv(hsv: np.ndarray) -> np.ndarray:
    hue, share, top = hsv
    return _from_hue(hue, top - share * top, top)


def _to_hsi(rgb: np.ndarray) -> np.ndarray:
    top, span = rgb.max(axis=0), np.ptp(rgb, axis=0)
    total = np.float32(2) * top - span
    room = np.where(total <= 1, total, np.float32(2) - total)
    share = np.where(room > 0, span / np.where(room > 0, room, np.float32(1)), np.float32(0))
    return np.stack([_hue(rgb, top, span), share, total / np.float32(2)])


def _from_hsi(hsi: np.ndarray) -> np.ndarray:
    hue, share, middle = hsi
    half = share * np.where(middle <= np.float32(0.5), middle, np.float32(1) - middle)
    return _from_hue(hue, middle - half, middle + half)


def _from_hue(hue: np.ndarray, bottom: np.ndarray, top: np.ndarray) -> np.ndarray:
    """R, G, B with a hue between two values."""
    offsets = np.array([0, 2, 4], np.float32).reshape(3, *[1] * np.ndim(hue))
    place = (hue * np.float32(6) - offsets + np.float32(3)) % np.float32(6) - np.float32(3)
    share = np.clip(np.float32(2) - np.abs(place), 0, 1)
    return bottom + share * (top - bottom)


SPACES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "rgb": (_same, _same),
    "hsv": (_to_hsv, _from_hsv),
    "hsi": (_to_hsi, _from_hsi),
    "xyz": (_to_xyz, _from_xyz),
    "lab": (_to_lab_unit, _from_lab_unit),
    "lch": (_to_lch_unit, _from_lch_unit),
}
"""(from RGB, to RGB) by name."""
