"""Files of a picture: linear and finished FITS, PNG, TIFF, JPEG; nothing is made again that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.grid import Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.pipeline.session import Session
from lerar_dask.products import picture_files
from lerar_dask.stages.picture.pixels import step_window
from lerar_dask.tasks import Step, Task

if TYPE_CHECKING:
    from lerar_dask.pipeline.picture_work import PictureWork

__all__ = ["plan_files", "write_picture_file"]

_WRITERS: dict[str, Callable[[Path, picture_files.PictureImage], object]] = {
    "fits": picture_files.write_fits,
    "png": picture_files.write_png,
    "tif": picture_files.write_tiff,
    "jpg": picture_files.write_jpeg,
}
_COPIES = 6
"""Of a band of rows, on its way into a file."""


def plan_files(session: Session, work: PictureWork) -> tuple[Step, dict[str, Path]]:
    """One task per file, and the files by kind."""
    assert work.recipe is not None
    kind = {"gray": "gray"}.get(work.recipe.palette, work.recipe.palette.upper())
    base = _free(f"{work.target}_{kind}", work)
    final = _free(f"{work.target}_L{kind}", work) if work.recipe.luminance else base
    finished_name = f"{final}.fits" if work.recipe.luminance else f"{base}_stretched.fits"
    before, after = _history(work)
    n_linear = len(work.recipe.colors)
    chosen = {
        "linear": (session.out / f"{base}.fits", "fits", work.linear, "linear", len(work.recipe.mixes)),
        "finished": (session.out / finished_name, "fits", work.finished, "stretched", n_linear),
        "png": (session.out / f"{final}.png", "png", work.finished, "stretched", n_linear),
        "tiff": (session.out / f"{final}.tif", "tif", work.finished, "stretched", n_linear),
        "jpeg": (session.out / f"{final}.jpg", "jpg", work.finished, "stretched", n_linear),
    }
    tasks = []
    for name, (path, ending, key, state, n_stored) in chosen.items():
        steps = [*before, *after] if state == "stretched" else before
        arguments = {
            "store_url": session.store.url,
            "key": key,
            "n_channels": n_linear,
            "n_stored": n_stored,
            "canvas": work.canvas,
            "path": str(path),
            "ending": ending,
            "state": state,
            "bottom_up": work.bottom_up,
            "cards": dict(work.cards),
            "history": steps,
        }
        made_of = {k: v for k, v in arguments.items() if k != "store_url"}
        tasks.append(
            Task(
                key=f"color file/{work.target}/{name}",
                digest=digest("picture file", code_of(__name__), made_of),
                function=write_picture_file,
                arguments=arguments,
            )
        )
    rows = 4 * len(work.recipe.mixes) * picture_files.BAND_ROWS * work.canvas.shape[1]
    jpeg = 4 * min(picture_files.JPEG_PX, work.canvas.shape[0] * work.canvas.shape[1])
    step = Step(name="picture: files", tasks=tasks, task_bytes=_COPIES * rows + jpeg)
    return step, {k: v[0] for k, v in chosen.items()}


def write_picture_file(
    *,
    store_url: str,
    key: str,
    n_channels: int,
    n_stored: int,
    canvas: Canvas,
    path: str,
    ending: str,
    state: str,
    bottom_up: bool,
    cards: Mapping[str, Any],
    history: Sequence[str],
) -> dict[str, Any]:
    """Write one file."""
    height, width = canvas.shape

    def read_rows(y0: int, y1: int) -> np.ndarray:
        return step_window(store_url, key, n_stored, Window(y0, y1, 0, width), canvas.shape)[:n_channels]

    image = picture_files.PictureImage(
        read_rows=read_rows,
        shape=(n_channels, height, width),
        state="linear" if state == "linear" else "stretched",
        bottom_up=bottom_up,
        cards={word: tuple(item) if isinstance(item, list) else item for word, item in cards.items()},
        history=history,
    )
    _WRITERS[ending](Path(path), image)
    return {"written_bytes": Path(path).stat().st_size}


def _history(work: PictureWork) -> tuple[list[str], list[str]]:
    """What was done, in its order: to the linear image that is written, and after it."""
    assert work.recipe is not None
    assert work.balance is not None
    assert work.tone is not None
    names = ("red", "green", "blue") if len(work.recipe.colors) == 3 else ("gray",)
    mixed = ", ".join(f"{name} = {mix.text}" for name, mix in zip(names, work.recipe.colors, strict=True))
    if work.recipe.luminance:
        mixed += f", luminance = {work.recipe.luminance.text}"
    sky = ", ".join(f"{v:.6g}" for v in work.balance.sky)
    factors = ", ".join(f"{v:.5g}" for v in work.balance.factors)
    slopes = f"; slope of degree {work.balance.slopes[0].degree} taken off" if work.balance.slopes else ""
    curves = "; ".join(f"{c.shadows:.6g} {c.midtones:.6g} {c.highlights:.6g}" for c in work.tone.curves)
    filled = "; gray where a color is missing" if work.balance.fill else ""
    before = [
        f"ChannelCombination: {mixed}",
        f"BackgroundNeutralization: sky {sky} ADU taken off{slopes}",
        f"White balance: factors {factors} ({work.facts.get('white', '')}){filled}",
    ]
    after = [
        f"HistogramTransformation: white {work.tone.white:.6g} ADU; {work.tone.kind}; {curves}",
        f"SCNR: {work.tone.green or 'none'}; LRGB: {'yes' if work.recipe.luminance else 'no'}",
    ]
    if work.sharp:
        told = f"{work.facts['iterations']} iterations at most, PSF of {work.psf_fwhm_px:.2f} px"
        after.insert(0, f"Deconvolution of the luminance: Richardson-Lucy, {told}")
    return before, after


def _free(name: str, work: PictureWork) -> str:
    """A name that no master of the run has."""
    return f"{name}_picture" if name in work.taken else name
