"""Simulate: a night of raw frames with known truth.

In: kind of night, number of subs, size, seed. Out: a folder with lights, darks, flats and bias as a capture program
writes them, and `truth.json` / `truth.npz`: transforms, transparency, seeing, sky, trails, stars, nebula. The same seed
gives the same bytes, whatever the number of threads.

Units: electrons at the sensor; gain 1 e-/ADU, offset 500 ADU. The reference plane is the pixel plane of sub 0 before its
dither; a transform takes it to the sub.
"""

from lerar_dask.simulate.colors import simulate_colors
from lerar_dask.simulate.night import simulate
from lerar_dask.simulate.sky import KINDS, Truth

__all__ = ["KINDS", "Truth", "simulate", "simulate_colors"]
