"""Calibrate: raw numbers become light, (raw * scale + zero - pedestal) * gain, in one pass.

In   raw pixels as a file or the store holds them; maps of pedestal and gain of the whole sensor, each may be missing
Out  float32 ADU above the pedestal, may be negative; NaN where the file says that a pixel is blank
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["calibrate", "calibrate_window", "into_stack", "swap_words", "unpack_and_calibrate"]

_NO_MAP = np.zeros((1, 1), np.float32)


def calibrate(
    raw: np.ndarray,
    pedestal: np.ndarray | None,
    gain: np.ndarray | None,
    *,
    scale: float = 1.0,
    zero: float = 0.0,
    blank: float | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Calibrate a whole sub.

    Parameters
    ----------
    raw : (y, x) uint16, int16, uint8, int32, uint32, float32 or float64     native byte order, C-contiguous
    pedestal, gain : (y, x) float32 or None                            ADU; factor
    scale, zero : float                                                from raw numbers to ADU
    blank : float or None                                              raw number that means no data
    out : (y, x) float32 or None                                       written when given

    Returns
    -------
    calibrated : (y, x) float32

    Examples
    --------
    >>> raw = np.array([[110, 120]], np.uint16)
    >>> calibrate(raw, np.full((1, 2), 100, np.float32), np.full((1, 2), 2, np.float32))
    array([[20., 40.]], dtype=float32)
    """
    if out is None:
        out = np.empty(raw.shape, np.float32)
    calibrate_window(raw, pedestal, gain, y0=0, x0=0, scale=scale, zero=zero, blank=blank, out=out)
    return out


def calibrate_window(
    raw: np.ndarray,
    pedestal: np.ndarray | None,
    gain: np.ndarray | None,
    *,
    y0: int,
    x0: int,
    scale: float,
    zero: float,
    blank: float | None,
    out: np.ndarray,
) -> None:
    """Calibrate the window of a sub whose first pixel is (y0, x0), with maps of the whole sensor.

    Parameters
    ----------
    raw : (h, w)                          as for `calibrate`
    pedestal, gain : (y, x) float32       of the whole sensor, C-contiguous, or None
    out : (h, w) float32                  written
    """
    first, a = _map(pedestal)
    second, b = _map(gain)
    if raw.dtype.itemsize <= 2 or raw.dtype == np.float32:
        _calibrate(raw, first, a, second, b, y0, x0, np.float32(scale), np.float32(zero), out)
    else:
        _calibrate_wide(raw, first, a, second, b, y0, x0, float(scale), float(zero), out)
    if blank is not None and raw.dtype.kind in "iu":
        out[raw == blank] = np.nan


def swap_words(words: np.ndarray, *, flip: int) -> np.ndarray:
    """Big-endian 16 bit pixels of a file as numbers of this machine, in one pass.

    Parameters
    ----------
    words : (y, x) uint16     the file's words as this machine reads them
    flip : int                0x8000 for unsigned numbers in a FITS file with BZERO = 32768, else 0

    Returns
    -------
    (y, x) uint16
    """
    out = np.empty(words.shape, np.uint16)
    _swap(words, np.uint16(flip), out)
    return out


@kernel(borrows=True)
def into_stack(words, flip, pedestal, factor, stack, i):
    """Big-endian 16 bit pixels of a file as frame `i` of a stack: (number - pedestal) * factor.

    Parameters
    ----------
    words : (y, x) uint16              the file's words as this machine reads them
    flip : uint16                      as in `swap_words`
    pedestal : (y, x) float32          or (0, 0): none
    factor : float32
    stack : (y, frames, x) float32     written
    """
    for y in range(words.shape[0]):
        source, out = words[y], stack[y, i]
        for x in range(source.size):
            word = source[x]
            out[x] = np.float32(np.uint16((word >> np.uint16(8)) | (word << np.uint16(8))) ^ flip)
        if pedestal.size > 0:
            below = pedestal[y]
            for x in range(source.size):
                out[x] = (out[x] - below[x]) * factor
        elif factor != np.float32(1.0):
            for x in range(source.size):
                out[x] = out[x] * factor


def unpack_and_calibrate(
    words: np.ndarray,
    pedestal: np.ndarray | None,
    gain: np.ndarray | None,
    *,
    flip: int,
    scale: float,
    zero: float,
    stored: np.ndarray,
    out: np.ndarray,
) -> None:
    """Big-endian 16 bit pixels straight from a file: swap the bytes, keep the numbers, calibrate, row by row.

    Parameters
    ----------
    words : (y, x) uint16                   the file's words as this machine reads them, bytes not yet swapped
    flip : int                              0x8000 for unsigned numbers in a FITS file with BZERO = 32768, else 0
    stored : (y, x) uint16 or int16         written: the numbers
    out : (y, x) float32                    written: calibrated
    """
    first, a = _map(pedestal)
    second, b = _map(gain)
    _unpack(words, np.uint16(flip), first, a, second, b, np.float32(scale), np.float32(zero), stored, out)


@kernel(borrows=True)
def _swap(words, flip, out):  # pragma: no cover
    for y in range(words.shape[0]):
        source, target = words[y], out[y]
        for x in range(source.size):
            word = source[x]
            target[x] = np.uint16((word >> np.uint16(8)) | (word << np.uint16(8))) ^ flip


def _map(array: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """A map for a kernel, and whether there is one."""
    return (_NO_MAP, False) if array is None else (array, True)


@part(inline="always")
def _correct(value, pedestal, gain, has_pedestal, has_gain):  # pragma: no cover
    if has_pedestal and has_gain:
        for x in range(value.size):
            value[x] = (value[x] - pedestal[x]) * gain[x]
    elif has_pedestal:
        for x in range(value.size):
            value[x] = value[x] - pedestal[x]
    elif has_gain:
        for x in range(value.size):
            value[x] = value[x] * gain[x]


@kernel(borrows=True)
def _calibrate(raw, pedestal, has_pedestal, gain, has_gain, y0, x0, scale, zero, out):
    width = raw.shape[1]
    for y in range(raw.shape[0]):
        source, value = raw[y], out[y]
        for x in range(width):
            value[x] = np.float32(source[x]) * scale + zero
        below = pedestal[y0 + y, x0 : x0 + width] if has_pedestal else pedestal[0]
        factor = gain[y0 + y, x0 : x0 + width] if has_gain else gain[0]
        _correct(value, below, factor, has_pedestal, has_gain)


@kernel(borrows=True)
def _calibrate_wide(raw, pedestal, has_pedestal, gain, has_gain, y0, x0, scale, zero, out):
    """As `_calibrate`, for numbers that float32 cannot hold: the pedestal comes off in float64."""
    width = raw.shape[1]
    for y in range(raw.shape[0]):
        source, value = raw[y], out[y]
        for x in range(width):
            number = np.float64(source[x]) * scale + zero
            if has_pedestal:
                number -= pedestal[y0 + y, x0 + x]
            if has_gain:
                number *= gain[y0 + y, x0 + x]
            value[x] = np.float32(number)


@kernel
def _unpack(words, flip, pedestal, has_pedestal, gain, has_gain, scale, zero, stored, out):
    # `stored` may be `words`: a row apart from both keeps the loops free of what the compiler must take for overlaps
    row = np.empty(words.shape[1], np.uint16)
    for y in range(words.shape[0]):
        source, target, value = words[y], stored[y], out[y]
        for x in range(row.size):
            word = source[x]
            row[x] = np.uint16((word >> np.uint16(8)) | (word << np.uint16(8))) ^ flip
        for x in range(row.size):
            target[x] = row[x]
        below = pedestal[y] if has_pedestal else pedestal[0]
        factor = gain[y] if has_gain else gain[0]
        if has_pedestal and has_gain:
            for x in range(row.size):
                value[x] = (np.float32(row[x]) * scale + zero - below[x]) * factor[x]
        else:
            for x in range(row.size):
                value[x] = np.float32(row[x]) * scale + zero
            _correct(value, below, factor, has_pedestal, has_gain)
