"""The stretch, and the steps after it: luminance joined, green and noise of colors reduced."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.errors import UsageError
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.image.blocks import by_chunks, pointwise, tiles_of, tiles_with_sky, with_border
from lerar_dask.image.state import Image, needs, needs_color, same_size, same_state
from lerar_dask.kernels.picture import sky as skies
from lerar_dask.kernels.picture.color import to_lab
from lerar_dask.kernels.picture.green import Protection, remove_green
from lerar_dask.kernels.picture.lrgb import chroma_reach_px, combine_lrgb, linear_lrgb, smooth_chroma
from lerar_dask.kernels.picture.stretch import Histogram, arcsinh_stretch, auto_histogram, hyperbolic_stretch

__all__ = ["join_luminance", "reduce_chroma_noise", "reduce_green", "stretch"]


def stretch(
    image: Image,
    *,
    kind: Literal["histogram", "arcsinh", "hyperbolic"] = "histogram",
    curve: Histogram | None = None,
    strength: float = 100.0,
    linked: bool = True,
    target: float = 0.25,
    white: float | None = None,
) -> Image:
    """HistogramTransformation, or another curve: from linear light to a picture.

    Parameters
    ----------
    curve : shadows, midtones, highlights; None: the automatic ones, for all channels alike or (not `linked`) each
    strength : of arcsinh and hyperbolic
    white : value that is 1; None: the largest of the image

    Raises
    ------
    UsageError
        for an image that is stretched already.
    """
    needs(image, "linear", "HistogramTransformation")
    import dask.array as da

    white = float(white or da.nanmax(image.data).compute())
    unit = image.data / np.float32(white)
    if kind == "arcsinh":
        black = 0.0 if curve is None else curve.shadows
        out = pointwise(lambda block: arcsinh_stretch(block, strength, black=black), unit)
        line = f"Arcsinh stretch: {strength:g}, white {white:.6g}"
    elif kind == "hyperbolic":
        out = pointwise(lambda block: hyperbolic_stretch(block, strength), unit)
        line = f"Generalized hyperbolic stretch: {strength:g}, white {white:.6g}"
    else:
        curves = [curve] * image.shape[0] if curve else _automatic(image, white, linked=linked, target=target)
        out = pointwise(lambda b: np.stack([c.apply(x) for c, x in zip(curves, b, strict=True)]), unit)
        told = "; ".join(f"{c.shadows:.6g} {c.midtones:.6g} {c.highlights:.6g}" for c in curves)
        line = f"HistogramTransformation: white {white:.6g}; {told}"
    return image.then(out, line, state="stretched")


def join_luminance(luminance: Image, color: Image, *, lightness: float = 0.5, saturation: float = 0.5) -> Image:
    """LRGBCombination of stretched images; of linear ones the luminance of the colors is replaced.

    Raises
    ------
    UsageError
        for one linear and one stretched image, or of several sizes.
    """
    import dask.array as da

    needs_color(color, "LRGBCombination")
    if luminance.shape[0] != 1:
        raise UsageError("a luminance has one channel")
    same_size([luminance, color])
    same_state([luminance, color])
    joined = da.concatenate([by_chunks(color.data), by_chunks(luminance.data)]).rechunk((4, *CHUNK_SHAPE))
    if color.state == "linear":
        _, noise = skies.sky_of(*tiles_with_sky(color))
        floor = float(3 * noise.mean())
        out = pointwise(lambda b: linear_lrgb(b[3], b[:3], floor=floor), joined, n_channels=3)
        return color.then(out, f"LRGB, linear: luminance replaced, floor {floor:.5g}")

    def join(block: np.ndarray) -> np.ndarray:
        light = to_lab(np.stack([block[3]] * 3))[0]
        return combine_lrgb(light, block[:3], lightness_transfer=lightness, saturation_transfer=saturation)

    return color.then(pointwise(join, joined, n_channels=3), f"LRGBCombination: {lightness:g} {saturation:g}")


def reduce_green(image: Image, *, protection: Protection = "average", amount: float = 1.0) -> Image:
    """SCNR of a stretched image."""
    needs(image, "stretched", "SCNR")
    needs_color(image, "SCNR")
    out = pointwise(lambda block: remove_green(block, protection=protection, amount=amount), image.data)
    return image.then(out, f"SCNR: {protection} {amount:g}")


def reduce_chroma_noise(image: Image, *, layers: int = 4, protect: float = 0.5) -> Image:
    """Color of a stretched image without its finest layers, where it is dark."""
    needs(image, "stretched", "noise of colors")
    needs_color(image, "noise of colors")
    out = with_border(
        lambda block: smooth_chroma(block, layers, protect=protect).astype(np.float32),
        image.data,
        chroma_reach_px(layers),
    )
    return image.then(out, f"Noise of colors: {layers} layers")


def _automatic(image: Image, white: float, *, linked: bool, target: float) -> list[Histogram]:
    """Curves by median and scatter of each channel."""
    tiles = tiles_of(image)
    if not np.isfinite(tiles[..., 0]).all(axis=-1).any():
        raise UsageError("no tile of 64 px has data in all channels")
    level = np.array([skies.level_of(tiles[:, :, c]) for c in range(image.shape[0])]) / white
    if linked:
        level[:] = level.mean(axis=0)
    return [auto_histogram(m, s / MAD_TO_SIGMA, target=target, lowest=-np.inf) for m, s in level.tolist()]
