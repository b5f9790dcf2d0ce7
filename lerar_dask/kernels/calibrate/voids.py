"""Voids: parts of a frame that no sensor gave, told by the numbers: padding, rows cut off, rows sent twice.

In   pixels of a frame as stored
Out  rectangles without data, and the rectangle around what is left

What counts: four or more rows (columns) in a row that hold one value or repeat the one before; and, from the left and
the right end of each row, what is no number or has the value that fills a corner. Numbers that a sensor gives often
tell nothing: where a third of the rest of the frame has the value too (a sky clipped at 0), it is sky.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["fill_boxes", "find_voids", "near_boxes", "valid_box"]

_FEWEST = 4
"""Dead rows or columns side by side that are a void; fewer are defects of the sensor, which may be repaired."""
_CORNER = 8
"""Pixels of one value, along both edges, from which on a corner is padding."""
_USUAL = 1.0 / 3.0
"""Share of the other pixels from which on a value is one that the sky has."""
_SAMPLED_ROWS = 64


def find_voids(raw: np.ndarray, *, blank: float | None = None) -> np.ndarray:
    """Rectangles of a frame that hold no data.

    Parameters
    ----------
    raw : (y, x) any real dtype     as stored
    blank : float or None           stored value that means no data

    Returns
    -------
    (m, 4) int32
        y0, y1, x0, x1 of each: rows y0..y1-1, columns x0..x1-1. Single pixels without data inside the picture are not
        among them.
    """
    height, width = raw.shape
    missing = np.nan if blank is None or raw.dtype.kind == "f" else float(blank)
    dead_rows = np.zeros(height, np.bool_)
    _dead_rows(raw, dead_rows)
    dead_rows = _blocks(dead_rows, raw, missing)
    dead_columns = _blocks(_dead_columns(raw, dead_rows), raw.T, missing)
    spans = np.zeros((height, 2), np.int64)
    spans[:, 1] = width
    spans[dead_rows] = 0
    left, right = _alive_ends(dead_columns)
    fills = _corner_fills(raw, dead_rows, left, right)
    _spans(raw, missing, fills, left, right, spans)
    inner = np.flatnonzero(np.diff(np.concatenate([[0], dead_columns[left:right].astype(np.int8), [0]]))) + left
    boxes = _boxes(spans, width) + [(0, height, int(a), int(b)) for a, b in inner.reshape(-1, 2)]
    return np.array(boxes, np.int32).reshape(-1, 4)


def valid_box(voids: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Smallest rectangle y0, y1, x0, x1 that holds every pixel outside the voids; empty when there is none.

    Parameters
    ----------
    voids : (m, 4) int     from `find_voids`
    """
    if not len(voids):
        return 0, shape[0], 0, shape[1]
    alive = np.ones(shape, np.bool_)
    for y0, y1, x0, x1 in voids:
        alive[y0:y1, x0:x1] = False
    rows, columns = np.flatnonzero(alive.any(axis=1)), np.flatnonzero(alive.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def near_boxes(xy: np.ndarray, voids: np.ndarray, distance_px: float) -> np.ndarray:
    """Which positions lie inside a void or nearer to it than a distance along both axes.

    Parameters
    ----------
    xy : (n, 2) float64     pixel positions
    voids : (m, 4) int      from `find_voids`
    """
    near = np.zeros(len(xy), np.bool_)
    for y0, y1, x0, x1 in voids:
        across = (xy[:, 0] > x0 - distance_px) & (xy[:, 0] < x1 - 1 + distance_px)
        near |= across & (xy[:, 1] > y0 - distance_px) & (xy[:, 1] < y1 - 1 + distance_px)
    return near


def fill_boxes(image: np.ndarray, voids: np.ndarray, level: np.ndarray, *, cell_px: int) -> None:
    """Give voids the level of their cells, in place, so that nothing is detected there.

    Parameters
    ----------
    image : (y, x) float32
    level : (gy, gx) float32     one value per cell of `cell_px` pixels
    """
    columns = np.arange(image.shape[1]) // cell_px
    for y0, y1, x0, x1 in voids:
        for gy in range(y0 // cell_px, -(-y1 // cell_px)):
            rows = slice(max(y0, gy * cell_px), min(y1, (gy + 1) * cell_px))
            image[rows, x0:x1] = level[gy, columns[x0:x1]]


def _blocks(dead: np.ndarray, raw: np.ndarray, missing: float) -> np.ndarray:
    """Dead lines of which enough lie side by side, unless what they hold is what the others hold too."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dead.astype(np.int8), [0]]))).reshape(-1, 2)
    kept = np.zeros(len(dead), np.bool_)
    for start, end in edges:
        if end - start >= _FEWEST:
            kept[start:end] = True
    if not kept.any() or kept.all():
        return kept
    for start, end in edges:
        value = raw[start, raw.shape[1] // 2]
        if kept[start] and value == value and value != missing and _share(raw, ~kept, value) > _USUAL:
            kept[start:end] = False
    return kept


def _share(raw: np.ndarray, lines: np.ndarray, value: float) -> float:
    """Share of the pixels of some lines that have a value."""
    at = np.flatnonzero(lines)
    return float(np.mean(raw[at[:: max(1, at.size // _SAMPLED_ROWS)]] == value)) if at.size else 0.0


def _alive_ends(dead_columns: np.ndarray) -> tuple[int, int]:
    """First column behind the dead ones at the left, first of those at the right."""
    alive = np.flatnonzero(~dead_columns)
    return (int(alive[0]), int(alive[-1]) + 1) if alive.size else (0, len(dead_columns))


def _corner_fills(raw: np.ndarray, dead_rows: np.ndarray, left: int, right: int) -> np.ndarray:
    """Values that fill corners of what is not dead, and hardly occur in the middle: padding around a turned picture."""
    rows = np.flatnonzero(~dead_rows)
    if rows.size < 2 * _CORNER or right - left < 2 * _CORNER:
        return np.zeros(0)
    part = raw[rows[0] : rows[-1] + 1, left:right]
    corners = [part[::dy, ::dx][:_CORNER, :_CORNER] for dy in (1, -1) for dx in (1, -1)]
    values = [c[0, 0] for c in corners if (c[0] == c[0, 0]).all() and (c[:, 0] == c[0, 0]).all()]
    (y, x), (h, w) = (n // 4 for n in part.shape), (n // 2 for n in part.shape)
    middle = part[y : y + h : max(1, h // _SAMPLED_ROWS), x : x + w]
    return np.array(sorted({float(v) for v in values if np.mean(middle == v) < 0.01}))


def _boxes(spans: np.ndarray, width: int) -> list[tuple[int, int, int, int]]:
    """Rectangles outside the spans; neighboring rows with equal spans share theirs."""
    boxes = []
    edges = np.flatnonzero(np.concatenate([[True], (np.diff(spans, axis=0) != 0).any(axis=1), [True]]))
    for y0, y1 in pairwise(edges):
        x0, x1 = spans[y0]
        if x0 >= x1:
            boxes.append((int(y0), int(y1), 0, width))
            continue
        if x0 > 0:
            boxes.append((int(y0), int(y1), 0, int(x0)))
        if x1 < width:
            boxes.append((int(y0), int(y1), int(x1), width))
    return boxes


@kernel(borrows=True)
def _dead_rows(raw, dead):
    """Rows that hold one value or are equal to the row before; one with another number ends the look at once."""
    for y in range(raw.shape[0]):
        row = raw[y]
        same = True
        for x in range(1, row.size):
            if row[x] != row[0]:
                same = False
                break
        if not same and y > 0:
            same = True
            before = raw[y - 1]
            for x in range(row.size):
                if row[x] != before[x]:
                    same = False
                    break
        dead[y] = same


def _dead_columns(raw: np.ndarray, dead_rows: np.ndarray) -> np.ndarray:
    """Columns that hold one value, or are equal to the one before, in all rows that are not dead."""
    alive = np.flatnonzero(~dead_rows)
    if not alive.size:
        return np.zeros(raw.shape[1], np.bool_)
    constant = np.ones(raw.shape[1], np.bool_)
    repeated = np.ones(raw.shape[1], np.bool_)
    repeated[0] = False
    first = raw[alive[0]]
    for y in alive:
        row = raw[y]
        constant &= row == first
        repeated[1:] &= row[1:] == row[:-1]
        if not (constant.any() or repeated.any()):
            break
    return constant | repeated


@kernel(borrows=True)
def _spans(raw, missing, fills, left, right, spans):
    """Shorten the span of each row by what is no number, or padding, at its ends."""
    for y in range(raw.shape[0]):
        if spans[y, 1] == 0:
            continue
        row = raw[y]
        x0, x1 = left, right
        while x0 < x1 and _is_void(row[x0], missing, fills):
            x0 += 1
        while x1 > x0 and _is_void(row[x1 - 1], missing, fills):
            x1 -= 1
        if x0 >= x1:
            x0, x1 = 0, 0
        spans[y, 0], spans[y, 1] = x0, x1


@part(inline="always")
def _is_void(value, missing, fills):
    """Whether a pixel holds no number, the blank one, or the one that fills a corner."""
    number = np.float64(value)
    void = not np.isfinite(number) or number == missing
    for k in range(fills.size):
        void = void or number == fills[k]
    return void
