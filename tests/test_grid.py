"""Canvas, chunks and windows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window, source_window


def shifted(dx: float, dy: float) -> np.ndarray:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], float)


def test_window():
    a, b = Window(0, 10, 5, 20), Window(4, 30, 0, 8)
    assert a & b == Window(4, 10, 5, 8)
    assert (a & b).shape == (6, 3)
    assert not a.empty
    assert (a & Window(10, 20, 5, 20)).empty


@given(st.integers(1, 1200), st.integers(1, 2200))
def test_chunks_tile_the_canvas(ny, nx):
    canvas = Canvas((0, 0), (ny, nx))
    windows = [canvas.chunk(*c) for c in canvas.chunks()]
    assert sum(w.shape[0] * w.shape[1] for w in windows) == ny * nx
    assert len({(w.y0, w.x0) for w in windows}) == len(windows)
    assert not any(w.empty for w in windows)
    assert all(w.shape[0] <= CHUNK_SHAPE[0] and w.shape[1] <= CHUNK_SHAPE[1] for w in windows)
    assert max(w.y1 for w in windows) == ny


def test_union_of_shifted_subs():
    canvas = Canvas.union(np.stack([shifted(0, 0), shifted(3, -2)]), np.array([[0, 50, 0, 80], [0, 50, 0, 80]]))
    assert canvas == Canvas((0, -3), (52, 83))


def test_union_of_one_sub_is_the_sub():
    assert Canvas.union(shifted(0, 0)[None], np.array([[0, 50, 0, 80]])) == Canvas((0, 0), (50, 80))


@given(st.floats(-3.2, 3.2), st.floats(-40, 40), st.floats(-40, 40))
def test_source_window_holds_every_pixel_that_is_needed(angle, dx, dy):
    c, s = np.cos(angle), np.sin(angle)
    transform = np.array([[c, -s, dx], [s, c, dy], [0, 0, 1]])
    canvas, shape, halo = Canvas((-5, 7), (90, 110)), (60, 70), 3
    window = Window(10, 40, 20, 60)
    found = source_window(transform, canvas, window, shape, halo=halo)
    ys, xs = np.mgrid[window.y0 : window.y1, window.x0 : window.x1]
    x, y, _ = transform @ np.stack([xs.ravel() + 7.0, ys.ravel() - 5.0, np.ones(xs.size)])
    for at, low, high, size in ((y, found.y0, found.y1, shape[0]), (x, found.x0, found.x1, shape[1])):
        inside = np.clip([np.floor(at.min()) - halo + 1, np.ceil(at.max()) + halo], 0, size)
        assert low <= inside[0] or found.empty
        assert high >= inside[1] or found.empty
