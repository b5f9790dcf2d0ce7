"""What the report tells of a picture: its numbers in words, and small pictures of every step.

They are kept in the store beside the picture, so that a report that is made again later still shows them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lerar_dask.grid import Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.output.binning import area_means
from lerar_dask.kernels.picture.stretch import auto_histogram
from lerar_dask.pipeline.pictures_kept import PICTURES
from lerar_dask.stages.picture.finish import stretched
from lerar_dask.stages.picture.pixels import mixed_window, step_window
from lerar_dask.store.access import Store

if TYPE_CHECKING:
    from lerar_dask.pipeline.picture_work import PictureWork

__all__ = ["keep_parts", "told_of_picture"]

_SIDE_PX = 1100
_BAND_ROWS = 256


def told_of_picture(work: PictureWork) -> dict[str, str]:
    """The numbers of a picture, in words."""
    facts, recipe = work.facts, work.recipe
    assert recipe is not None
    names = ("red", "green", "blue") if len(recipe.colors) == 3 else ("gray",)
    told = {name: mix.text for name, mix in zip(names, recipe.colors, strict=True)}
    if recipe.luminance:
        told["luminance"] = recipe.luminance.text
    told["sky"] = ", ".join(f"{v:.5g}" for v in facts["sky_adu"]) + " ADU taken off"
    ends = [facts[k] for k in ("before", "after")]
    for name, key in (("green fog, sky", "fog_sky"), ("green fog, nebula", "fog_nebula")):
        if key in ends[0] and np.isfinite([end[key] for end in ends]).all():
            told[name] = " -> ".join(f"{end[key]:+.2f}" for end in ends) + " sigma of a pixel"
    if facts.get("slopes_sigma"):
        left = "taken off" if work.balance and work.balance.slopes else "left in (--degree takes it off)"
        told["slope between channels"] = ", ".join(f"{v:.2f}" for v in facts["slopes_sigma"]) + f" sigma, {left}"
    if "white_factors" in facts:
        factors = ", ".join(f"{v:.3f}" for v in facts["white_factors"])
        told["white"] = f"{factors} by {facts['white_stars']} stars ({facts['white_scatter_mag']:.2f} mag apart)"
        if not np.isfinite(facts["white_scatter_mag"]):
            told["white"] = (
                f"not balanced: {facts['white_stars']} stars tell too little (--white-factors gives it by hand)"
            )
    if "psf" in facts:
        found, (low, high) = facts["psf"], facts["psf_range_px"]
        told["PSF"] = (
            f"FWHM {work.psf_fwhm_px:.2f} px ({low:.2f} to {high:.2f} over the field), eccentricity "
            f"{facts['psf_eccentricity']:.2f}, beta {found['beta']:.1f}, {found['stars']} stars"
        )
    if "psf_lnref" in facts:
        best = facts["psf_lnref"]
        width = float(np.sqrt(best["fwhm_x_px"] * best["fwhm_y_px"]))
        told["PSF of the LN reference"] = (
            f"FWHM {width:.2f} px ({100 * (width / work.psf_fwhm_px - 1):+.1f} %), beta {best['beta']:.1f}, "
            f"{best['stars']} stars: what the best subs alone would give"
        )
    if "iterations" in facts:
        told["deconvolution"] = f"{facts['iterations']} iterations at most"
    told["clipped"] = f"{100 * facts['clipped_black']:.2f} % black, {100 * facts['clipped_white']:.2f} % white"
    told["covered"] = f"{100 * facts['covered']:.1f} % of the canvas" + (
        ", gray where a color is missing" if work.balance and work.balance.fill else ""
    )
    told["SCNR"] = facts["green_removal"]
    return told


def keep_parts(store: Store, works: Sequence[PictureWork]) -> None:
    """Keep what the report shows of pictures, as far as it is not kept yet."""
    made = {work.target: work.finished for work in works if not work.problem}
    for work in works:
        if work.problem:
            continue
        path, made_of = (
            f"picture/{work.finished}/report.json",
            digest("picture report", code_of(__name__), dict(work.facts)),
        )
        if store.has_json(path) and store.read_json(path)["made_of"] == made_of:
            continue
        assert work.recipe is not None
        store.write_json(
            path,
            {
                "made_of": made_of,
                "target": work.target,
                "masters": sorted(work.recipe.masters),
                "facts": told_of_picture(work),
                "steps": [[label, _jpeg(image)] for label, image in _steps(store, work)],
            },
        )
    store.keep_json(PICTURES, made)


def _steps(store: Store, work: PictureWork) -> list[tuple[str, np.ndarray]]:
    """Small pictures (channel, y, x) in 0..1 of every step; linear ones through the curve of the finished one."""
    recipe, canvas, tone, balance = work.recipe, work.canvas, work.tone, work.balance
    assert recipe is not None
    assert tone is not None
    assert balance is not None
    n, n_colors = len(recipe.mixes), len(recipe.colors)
    mixed = _reduced(canvas, lambda w: mixed_window(store.url, recipe, w, canvas.shape))
    linear = _reduced(canvas, lambda w: step_window(store.url, work.linear, n, w, canvas.shape))
    final = _reduced(canvas, lambda w: step_window(store.url, work.finished, n_colors, w, canvas.shape))
    raw = mixed[:n_colors]
    level = np.nanmedian(raw)
    sigma = float(np.nanmedian(np.abs(raw - np.nanmedian(raw, axis=(1, 2), keepdims=True)))) or 1.0
    curve = auto_histogram(float(level) / tone.white, sigma / tone.white, target=0.25, lowest=-np.inf)
    neutral = raw - np.array(balance.sky[:n_colors], np.float32)[:, None, None]
    steps = [
        ("channels combined", np.stack([curve.apply(c / np.float32(tone.white)) for c in raw])),
        ("sky neutral", stretched(np.minimum(neutral / np.float32(tone.white), 1), tone)),
        ("white balanced", stretched(np.minimum(linear[:n_colors] / np.float32(tone.white), 1), tone)),
        ("finished", final),
    ]
    if recipe.luminance:
        light = tone.curves[-1].apply(np.minimum(linear[n_colors:] / np.float32(tone.white), 1))
        steps.insert(3, ("luminance", light))
    return steps


def _reduced(canvas: Canvas, read: Callable[[Window], np.ndarray]) -> np.ndarray:
    """Area means of an image, band by band."""
    height, width = canvas.shape
    factor = max(1, -(-max(height, width) // _SIDE_PX))
    step = max(factor, _BAND_ROWS // factor * factor)
    bands = [area_means(read(Window(y0, min(y0 + step, height), 0, width)), factor) for y0 in range(0, height, step)]
    return np.concatenate(bands, axis=1)


def _jpeg(image: np.ndarray) -> str:
    """A small picture as JPEG, in letters."""
    from PIL import Image

    bytes_ = np.moveaxis((np.nan_to_num(np.clip(image, 0, 1)) * 255 + 0.5).astype(np.uint8), 0, -1)
    buffer = io.BytesIO()
    Image.fromarray(bytes_ if bytes_.shape[-1] == 3 else bytes_[..., 0]).save(buffer, format="JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode()
