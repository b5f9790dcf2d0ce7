"""Steps of a picture by hand: lazy images that know whether they are linear, and functions from one to the next.

In: masters, or FITS files of any program. Out: lazy dask arrays (channel, y, x), and FITS that says what was done.

The order is kept: what needs linear light refuses a stretched image, and says the order. Numbers that belong to a whole
image (sky, white, the curve) are measured when a step is called; pixels are computed when they are asked for. Tiles lie at
fixed places and borders are read along, so that nothing depends on chunks.
"""

from lerar_dask.image.files import open_image, save_image
from lerar_dask.image.linear import balance, combine, neutralize
from lerar_dask.image.looks import join_luminance, reduce_chroma_noise, reduce_green, stretch
from lerar_dask.image.sharpen import deconvolve, psf_of
from lerar_dask.image.state import ORDER, Image

__all__ = [
    "ORDER",
    "Image",
    "balance",
    "combine",
    "deconvolve",
    "join_luminance",
    "neutralize",
    "open_image",
    "psf_of",
    "reduce_chroma_noise",
    "reduce_green",
    "save_image",
    "stretch",
]
