"""Images from FITS files of any program, and to files that say what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.picture import open_picture
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.image.blocks import by_chunks
from lerar_dask.image.state import Image, needs
from lerar_dask.products import picture_files as files
from lerar_dask.products.carried import is_carried
from lerar_dask.products.picture_files import STATE_CARD

__all__ = ["open_image", "save_image"]


def open_image(path: str | Path) -> Image:
    """A FITS image, (y, x) or (channel, y, x), lazily; one that does not tell its state is taken as linear.

    Raises
    ------
    UsageError
        when it cannot be read as an image.
    """
    import dask.array as da
    from astropy.io import fits

    try:
        open_picture(Path(path))  # says of a file that is cut or no image what is wrong with it
        with fits.open(path, memmap=True) as file:
            hdu = next((h for h in file if h.header.get("NAXIS", 0) >= 2 and h.is_image), None)
            if hdu is None:
                raise UsageError(f"{path} holds no image")
            header, data = hdu.header, np.asanyarray(hdu.data)
    except FrameError as error:
        raise UsageError(f"{path}: {error.message}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read as FITS ({error})") from error
    data = data.reshape(-1, *data.shape[-2:])
    if data.shape[0] not in (1, 3):
        raise UsageError(f"{path} has {data.shape[0]} channels", "images of one or three channels are taken")
    lazy = da.from_array(data, chunks=(data.shape[0], *CHUNK_SHAPE)).astype(np.float32)
    state = str(header.get(STATE_CARD, "linear"))
    if state not in ("linear", "stretched"):
        raise UsageError(f"{path}: {STATE_CARD} is {state!r}", "it says linear or stretched")
    cards = {word: header[word] for word in header if is_carried(word)}
    history = tuple(str(line) for line in header["HISTORY"]) if "HISTORY" in header else ()
    return Image(data=lazy, state=state, history=history, cards=cards)  # type: ignore[arg-type]


def save_image(image: Image, path: str | Path) -> None:
    """Write as FITS (with its state), or by the name's ending as PNG or TIFF of 16 bits, or JPEG; row by row of chunks.

    Raises
    ------
    UsageError
        for another ending, or a linear image in a picture's format.
    """
    path = Path(path)
    writers: dict[str, Callable[[Path, files.PictureImage], object]] = {
        **dict.fromkeys((".fits", ".fit", ".fts"), files.write_fits),
        ".png": files.write_png,
        **dict.fromkeys((".tif", ".tiff"), files.write_tiff),
        **dict.fromkeys((".jpg", ".jpeg"), files.write_jpeg),
    }
    write = writers.get(path.suffix.lower())
    if write is None:
        raise UsageError(
            f"{path}: no picture is written as {path.suffix or 'a file without an ending'}", ", ".join(writers)
        )
    if write is not files.write_fits:
        needs(image, "stretched", f"a picture as {path.suffix}")
    data = by_chunks(image.data)
    write(
        path,
        files.PictureImage(
            read_rows=lambda y0, y1: np.asarray(data[:, y0:y1].compute()),
            shape=image.shape,
            state=image.state,
            bottom_up=image.cards.get("ROWORDER") == "BOTTOM-UP",
            cards=image.cards,
            history=image.history,
        ),
    )
