"""Small nights as people have them, made from a few numbers, and what a master says of their stars.

raw = bias + dark rate * exposure + vignetting * (sky + stars) * exposure; 1 electron per ADU, read noise 4 ADU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy.signal import fftconvolve

from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.summary import Summary

SHAPE = (320, 440)
SKY = 8.0
"""Electrons per second and pixel."""
SIGMA_PX = 1.6
CAMERA = {"INSTRUME": "Testcam 1", "GAIN": 100, "OFFSET": 50, "XBINNING": 1, "YBINNING": 1}


def adu(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


class Night:
    """A plain night, of which each test changes one thing."""

    def __init__(self, folder: Path, seed: int, *, shape: tuple[int, int] = SHAPE) -> None:
        self.folder, self.shape = folder, shape
        self.rng = np.random.default_rng(seed)
        margin, n = 60, 110
        self.stars = np.column_stack(
            [
                self.rng.uniform(-margin, shape[1] + margin, n),
                self.rng.uniform(-margin, shape[0] + margin, n),
                10 ** self.rng.uniform(1.5, 3.6, n),
            ]
        )
        y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
        self.vignetting = 1 - 0.175 * (
            ((x - shape[1] / 2) / (shape[1] / 2)) ** 2 + ((y - shape[0] / 2) / (shape[0] / 2)) ** 2
        )
        self.bias = 500 + self.rng.normal(0, 5, shape[1])[None, :] * np.ones(shape)
        self.rate = 0.05 + 3.0 * np.exp(-np.hypot(x - shape[1], y - shape[0]) / 80)
        hot = self.rng.choice(self.rate.size, 200, replace=False)
        self.rate.flat[hot] += self.rng.uniform(3, 60, 200)

    def image(self, dx: float, dy: float, *, flip: bool = False, bins: int = 1) -> np.ndarray:
        """Electrons per second of stars and sky in (binned) pixels."""
        rows, columns = self.shape[0] // bins, self.shape[1] // bins
        x, y = self.stars[:, 0] + dx, self.stars[:, 1] + dy
        if flip:
            x, y = self.shape[1] - 1 - x, self.shape[0] - 1 - y
        x, y, sigma = (x - (bins - 1) / 2) / bins, (y - (bins - 1) / 2) / bins, SIGMA_PX / bins
        across = np.exp(-((np.arange(columns)[None, :] - x[:, None]) ** 2) / (2 * sigma**2))
        down = np.exp(-((np.arange(rows)[None, :] - y[:, None]) ** 2) / (2 * sigma**2))
        return SKY * bins**2 + (down.T * (self.stars[:, 2] / (2 * np.pi * sigma**2))) @ across

    def expose(self, light: np.ndarray | float, exposure_s: float, *, rate: np.ndarray | None = None) -> np.ndarray:
        """Raw numbers of an exposure; `light` in electrons per second at the sensor."""
        mean = (self.rate if rate is None else rate) * exposure_s + light * exposure_s
        return self.bias + self.rng.poisson(np.maximum(mean, 0)) + self.rng.normal(0, 4.0, self.shape)

    def light(self, exposure_s: float = 60.0, *, shift: tuple[float, float] | None = None, **how: Any) -> np.ndarray:
        dx, dy = self.rng.uniform(-12, 12, 2) if shift is None else shift
        return self.expose(self.vignetting * self.image(dx, dy, **how), exposure_s)

    def dark(self, exposure_s: float = 60.0) -> np.ndarray:
        return self.expose(0.0, exposure_s)

    def flat(self, level: float = 22000.0, exposure_s: float = 2.0) -> np.ndarray:
        return self.expose(self.vignetting * level / exposure_s, exposure_s)

    def put(self, kind: str, name: str, data: np.ndarray, **cards: Any) -> Path:
        """Write a frame; cards of None are left out, `_` stands for `-`."""
        words: dict[str, Any] = {"IMAGETYP": kind.upper(), **CAMERA, "CCD_TEMP": -10.0}
        words |= {"FILTER": "L"} if kind in ("light", "flat") else {}
        words |= {"OBJECT": "Sim 1"} if kind == "light" else {}
        header = fits.Header()
        for word, value in {**words, **cards}.items():
            if value is not None:
                header[word.replace("_", "-")] = value
        path = self.folder / f"{kind}s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.writeto(path, data, header, overwrite=True)
        return path

    def lights(self, n: int = 7, exposure_s: float = 60.0, **cards: Any) -> None:
        for i in range(n):
            words = {"EXPTIME": exposure_s, "DATE_OBS": stamp(i), **cards}
            self.put("light", f"light_{i:03d}.fits", adu(self.light(exposure_s)), **words)

    def darks(self, n: int = 4, exposure_s: float = 60.0, kind: str = "dark", **cards: Any) -> None:
        for i in range(n):
            name = f"{kind}_{exposure_s:g}s_{i:03d}.fits"
            self.put(kind, name, adu(self.dark(exposure_s)), EXPTIME=exposure_s, DATE_OBS=stamp(i, hour=8), **cards)

    def flats(self, n: int = 3, *, pedestal: bool = True, **cards: Any) -> None:
        for i in range(n):
            self.put("flat", f"flat_{i:03d}.fits", adu(self.flat()), EXPTIME=2.0, DATE_OBS=stamp(i, hour=20), **cards)
        if pedestal:
            self.darks(n, 2.0, "darkflat")


def stamp(i: int, *, hour: int = 22, step_s: int = 130) -> str:
    t = hour * 3600 + i * step_s
    return f"2026-03-{10 + t // 86400:02d}T{t % 86400 // 3600:02d}:{t // 60 % 60:02d}:{t % 60:02d}.000"


def run(night: Night, out: Path, **settings: Any) -> Summary:
    """What `lerar stack` tells of a night."""
    return stack([night.folder], out, Settings.of(**settings), bus=Bus())


def stacked(night: Night, out: Path, **settings: Any) -> tuple[Summary, np.ndarray]:
    """Summary of a night, and the picture of the one master that came out of it."""
    summary = run(night, out, **settings)
    assert summary.exit_code == 0
    assert len(summary.groups) == 1
    return summary, plane(master_of(summary))


def master_of(summary: Summary) -> Path:
    path = summary.groups[0].master
    assert path is not None
    return path


def plane(master: Path, name: int | str = 0) -> np.ndarray:
    with fits.open(master) as hdus:
        data = np.asarray(hdus[name].data, float)
    return data[0] if data.ndim == 3 and len(data) == 1 else data


def rates(
    night: Night,
    image: np.ndarray,
    *,
    least: float = 150.0,
    vignetted: bool = False,
    where: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Flux in the master over the true rate, of each lonely star of at least a rate.

    Parameters
    ----------
    vignetted : whether the night has no flats: the truth is dimmed by what the optics do
    """
    x, y, rate = night.stars.T
    shift = shift_of(night, image)
    reach = np.hypot(x[:, None] - x, y[:, None] - y)
    lonely = (reach < 16).sum(axis=1) == 1
    at = np.column_stack([y, x]) + shift
    inside = ((at > 26) & (at < np.array(image.shape) - 27)).all(axis=1)  # where all subs reach
    found = []
    for k in np.flatnonzero(lonely & inside & (rate >= least)):
        i, j = np.rint(at[k]).astype(int)
        part = image[i - 12 : i + 13, j - 12 : j + 13]
        if not np.isfinite(part).all():
            continue
        yy, xx = np.mgrid[i - 12 : i + 13, j - 12 : j + 13]
        r = np.hypot(yy - at[k, 0], xx - at[k, 1])
        light = (part - np.median(part[r > 9]))[r < 8].sum()
        dim = 1.0
        if vignetted:
            a, b = np.clip(np.rint([y[k], x[k]]).astype(int), 0, np.array(night.shape) - 1)
            dim = night.vignetting[a, b]
        found.append(light / rate[k] / dim)
    return np.array(found)


def shift_of(night: Night, image: np.ndarray) -> np.ndarray:
    """(dy, dx) from true positions to the master's pixels, to half a pixel or better."""
    model = np.zeros(image.shape)
    for x, y, rate in night.stars:
        i, j = round(y), round(x)
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
            model[i, j] += np.sqrt(rate)
    data = np.sqrt(np.clip(np.nan_to_num(image - np.nanmedian(image)), 0, None))
    found = fftconvolve(data, model[::-1, ::-1], mode="same")
    peak = np.array(np.unravel_index(found.argmax(), found.shape))
    return peak - (np.array(image.shape) - 1) // 2
