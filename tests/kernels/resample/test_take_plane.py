"""A lattice of a window, turned, against slices of the whole sub."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.resample.terms import Lattice, Part
from lerar_dask.kernels.resample.window import take_plane


@settings(max_examples=300, deadline=None)
@given(data=st.data(), step=st.sampled_from([1, 2]), turn=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_lattice_is_taken_and_turned(data, step, turn):
    phase_y, phase_x = (data.draw(st.integers(0, step - 1)) for _ in range(2))
    height, width = (data.draw(st.integers(2, 24)) for _ in range(2))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    sub = np.full((height, width), -1, np.float32)
    sub[y0:y1, x0:x1] = np.arange(1, 1 + (y1 - y0) * (x1 - x0)).reshape(y1 - y0, -1)
    plane = sub[phase_y::step, phase_x::step]
    turned = plane[:: -1 if turn[1] else 1, :: -1 if turn[2] else 1]
    turned = turned.T if turn[0] else turned
    # A window of the turned plane that may reach beyond it, of which what the source does not hold is left alone.
    border = 8
    expected = np.full(np.add(turned.shape, 2 * border), -1, np.float32)
    expected[border:-border, border:-border] = turned
    top, left = (data.draw(st.integers(-border, side - 1)) for side in turned.shape)
    rows, columns = (
        data.draw(st.integers(1, side + border - at)) for side, at in zip(turned.shape, (top, left), strict=True)
    )
    out = np.full((rows, columns), -1, np.float32)
    source = Part(np.ascontiguousarray(sub[y0:y1, x0:x1]), y0, x0)
    take_plane(source, Lattice(step, phase_y, phase_x), *plane.shape, turn, Part(out, top, left))
    at = top + border, left + border
    np.testing.assert_array_equal(out, expected[at[0] : at[0] + rows, at[1] : at[1] + columns])
