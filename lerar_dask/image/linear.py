"""Steps that need linear light: channels combined, the sky at one level, white balanced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.image.blocks import by_chunks, pointwise, stars_of, tiles_of
from lerar_dask.image.state import Image, needs, needs_color, same_size, same_state
from lerar_dask.kernels.picture import sky as skies
from lerar_dask.kernels.picture.balance import LEAST_STARS, White, star_factors
from lerar_dask.kernels.picture.color import SPACES
from lerar_dask.kernels.picture.star_colors import below_saturation

__all__ = ["balance", "combine", "neutralize"]


def combine(channels: Sequence[Image], *, space: str = "rgb", onto: Image | None = None) -> Image:
    """ChannelCombination: three images of one channel as the components of a color space.

    Parameters
    ----------
    channels : components in their order, in 0..1 where the space is not rgb; with `onto`, None keeps that image's own
    space : rgb, hsv, hsi, xyz, lab, lch
    onto : an RGB image, some of whose components are replaced

    Raises
    ------
    UsageError
        for images of several sizes, of more channels, or some linear and some stretched.
    """
    import dask.array as da

    if space not in SPACES:
        raise UsageError(f"no color space is called {space!r}", ", ".join(SPACES))
    given = [c for c in channels if c is not None]
    known = [*given, *([onto] if onto else [])]
    if len(channels) != 3 or not given or (onto is None and len(given) < 3):
        raise UsageError("a combination needs three channels", "or an image whose other components stay")
    if any(c.shape[0] != 1 for c in given):
        raise UsageError("a channel of a combination has one channel itself")
    same_size(known)
    same_state(known)
    to, back = SPACES[space]
    own = pointwise(to, onto.data) if onto else None
    parts = [c.data if c is not None else own[k : k + 1] for k, c in enumerate(channels)]  # type: ignore[index]
    joined = da.concatenate([by_chunks(part) for part in parts]).rechunk((3, *CHUNK_SHAPE))
    first = given[0]
    return first.then(pointwise(back, joined), f"ChannelCombination: {space}", state=first.state)


def neutralize(
    image: Image, *, mode: skies.Mode = "zero", target: float = 0.001, region: tuple[int, int, int, int] | None = None
) -> Image:
    """BackgroundNeutralization: the sky of all channels at one level.

    Parameters
    ----------
    mode : see `kernels.picture.sky.neutralize`
    region : x0, y0, x1, y1 of what is sky; None: the darkest object-free tiles

    Raises
    ------
    UsageError
        for a stretched image, or where no sky is found.
    """
    import dask.array as da

    needs(image, "linear", "BackgroundNeutralization")
    tiles = tiles_of(image)
    where = skies.sky_tiles(tiles) if region is None else skies.tiles_inside(tiles, region)
    if not where.any():
        raise UsageError("no tile of 64 px has data in all channels and could be sky", "give a region")
    level, _ = skies.sky_of(tiles, where)
    extremes = None
    if mode in ("rescale", "rescale-as-needed"):
        neutral = pointwise(lambda block: skies.neutralize(block, level), image.data)
        extremes = da.compute(da.nanmin(neutral), da.nanmax(neutral))
    shifted = pointwise(
        lambda block: skies.neutralize(block, level, mode=mode, target=target, extremes=extremes), image.data
    )
    return image.then(
        shifted, f"BackgroundNeutralization: sky {', '.join(f'{v:.6g}' for v in level)} taken off, {mode}"
    )


def balance(
    image: Image, *, white: White = "stars", factors: Sequence[float] | None = None, fwhm_px: float = 3.0
) -> Image:
    """White balance of an image with its sky at 0, by its stars or by given factors.

    Raises
    ------
    UsageError
        for a stretched image, or one without three channels.
    """
    needs(image, "linear", "white balance")
    needs_color(image, "white balance")
    how = "given"
    if factors is None:
        stars = stars_of(image, fwhm_px)
        whole = below_saturation(stars, 3, (np.inf,) * 3)
        found, _, used = star_factors(stars[whole][:, 2:5], white=white)
        if used < LEAST_STARS:
            raise UsageError(f"{used} stars tell too little of the white", "give --factors, or the stars' --fwhm-px")
        factors, how = found.tolist(), f"{white}, {used} stars"
    k = np.array(factors, np.float32)[:, None, None]
    line = f"White balance: factors {', '.join(f'{v:.5g}' for v in factors)} ({how})"
    return image.then(image.data * k, line)
