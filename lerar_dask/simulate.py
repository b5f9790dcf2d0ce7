"""Simulate: a night of raw frames with known truth.

In: kind of night, number of subs, size, seed. Out: a folder with lights, darks, flats and bias as a capture program
writes them, and `truth.json` / `truth.npz`: transforms, transparency, seeing, sky, trails, stars, nebula. The same seed
gives the same bytes, whatever the number of threads.

Units: electrons at the sensor; gain 1 e-/ADU, offset 500 ADU. The reference plane is the pixel plane of sub 0 before its
dither; a transform takes it to the sub.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit

from lerar_dask.errors import UsageError

__all__ = ["KINDS", "Truth", "simulate"]

Kind = Literal["plain", "moon", "cirrus", "narrowband", "partial", "steady"]
KINDS: tuple[str, ...] = ("plain", "moon", "cirrus", "narrowband", "partial", "steady")

OFFSET_ADU = 500.0
READ_NOISE_E = 3.0
GAIN_E_ADU = 1.0
BETA = 3.0
"""Moffat exponent of the stars."""
LATITUDE_DEG, LONGITUDE_DEG = 48.0, 11.0
RA_DEG, DEC_DEG = 202.47, 47.2
SCALE_ARCSEC = 206.264806 * 3.76 / 500.0
_START = datetime(2026, 3, 14, 21, 0, 0, tzinfo=UTC)
_TRAIL_SIGMA_PX = 1.5


@dataclass(frozen=True, kw_only=True)
class _Sub:
    """Truth of one light."""

    transform: np.ndarray
    """(3, 3) reference plane to sub."""
    transparency: float
    fwhm_px: float
    sky: tuple[float, ...]
    """Level (e-), plane x, plane y, curvature xx, xy, yy relative to the level, on (-1, 1) of the half diagonal."""
    veil: tuple[float, ...]
    """Cirrus: amplitude, direction, wavelength (px), phase."""
    trails: tuple[tuple[float, float, float, float], ...]
    """Point x, y; direction (rad); peak in sigma of the sub's pixel noise."""
    start_s: float
    """Seconds after the night's first sub."""
    flipped: bool


class Truth:
    """What was put into a night.

    Parameters
    ----------
    facts : what `truth.json` holds
    arrays : what `truth.npz` holds: stars (n, 3) x, y, flux; nebula (m, 5) x, y, sigma_x, sigma_y, peak; dark; flat
    """

    def __init__(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.facts = facts
        self.arrays = arrays
        self.subs = [_sub_from(s) for s in facts["subs"]]
        self.shape: tuple[int, int] = tuple(facts["shape"])

    @classmethod
    def load(cls, folder: str | Path) -> Truth:
        """Truth of a simulated night."""
        folder = Path(folder)
        with np.load(folder / "truth.npz") as arrays:
            return cls(json.loads((folder / "truth.json").read_text()), dict(arrays))

    def scene(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Nebula at reference-plane positions, e- per pixel at full transparency; stars are in `arrays['stars']`."""
        total = np.zeros(np.broadcast(ys, xs).shape)
        for x, y, sx, sy, peak in self.arrays["nebula"]:
            total += peak * np.exp(-0.5 * (((xs - x) / sx) ** 2 + ((ys - y) / sy) ** 2))
        return total

    def sky(self, k: int, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Sky of sub `k` at its own pixels, e-."""
        return _sky(self.subs[k].sky, ys, xs, self.shape)

    def transparency(self, k: int, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Transparency of sub `k` at its own pixels."""
        return self.subs[k].transparency * _veil(self.subs[k].veil, ys, xs)


def simulate(
    out: str | Path,
    *,
    kind: str = "plain",
    n: int = 18,
    shape: tuple[int, int] = (900, 1200),
    seed: int = 11,
    cfa: str | None = None,
    n_darks: int = 10,
    n_flats: int = 10,
    n_bias: int = 10,
    filter_name: str = "L",
    target: str = "Sim",
    exposure_s: float = 120.0,
) -> Path:
    """Write a simulated night.

    Parameters
    ----------
    out : folder, made if missing; must be empty
    kind : plain, moon, cirrus, narrowband, partial or steady
    shape : rows and columns
    cfa : 2x2 color pattern as "RGGB", or None for mono

    Returns
    -------
    out : Path
    """
    out = Path(out)
    if kind not in KINDS:
        raise UsageError(f"no night is called {kind!r}", f"one of {', '.join(KINDS)}")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} holds something already", "give a new folder for the simulated night")
    if n < 1 or min(shape) < 64:
        raise UsageError("a night needs a light at least, of 64 pixels at least")
    root = np.random.SeedSequence([seed, KINDS.index(kind)])
    sky_seed, camera_seed, *frame_seeds = root.spawn(2 + n + n_darks + n_flats + n_bias)
    camera = _camera(np.random.default_rng(camera_seed), shape)
    rng = np.random.default_rng(sky_seed)
    stars, nebula = _scene(rng, kind, shape)
    subs = _subs(rng, kind, n, shape)
    facts = {
        "kind": kind, "seed": seed, "shape": list(shape), "cfa": cfa, "gain_e_adu": GAIN_E_ADU,
        "read_noise_e": READ_NOISE_E, "offset_adu": OFFSET_ADU, "beta": BETA, "trail_sigma_px": _TRAIL_SIGMA_PX,
        "subs": [_plain(s) for s in subs],
    }  # fmt: skip
    arrays = {"stars": stars, "nebula": nebula, "dark": camera["dark"], "flat": camera["flat"]}
    out.mkdir(parents=True, exist_ok=True)
    header = {"FILTER": filter_name, "OBJECT": target, "BAYERPAT": cfa, "shape": shape}
    jobs: list[Any] = []
    truth = Truth(facts, arrays)
    for k in range(n):
        jobs.append((_write_light, out, k, truth, camera, exposure_s, frame_seeds[k], header))
    for i in range(n_darks):
        jobs.append((_write_calibration, out, "darks", "DARK", i, camera, exposure_s, frame_seeds[n + i], header))
    for i in range(n_flats):
        jobs.append((_write_calibration, out, "flats", "FLAT", i, camera, 1.0, frame_seeds[n + n_darks + i], header))
    for i in range(n_bias):
        at = n + n_darks + n_flats + i
        jobs.append((_write_calibration, out, "bias", "BIAS", i, camera, 0.0001, frame_seeds[at], header))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda job: job[0](*job[1:]), jobs))
    np.savez(out / "truth.npz", **arrays)  # type: ignore[arg-type]
    (out / "truth.json").write_text(json.dumps(facts))
    return out


# ------------------------------------------------------------------------------------------------------- what there is


def _camera(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Dark current with hot pixels and amplifier glow (e- per exposure); flat with vignetting and dust."""
    height, width = shape
    ys, xs = _axes(shape)
    dark = 15.0 + 60.0 * np.exp(-(((xs - width) / (0.12 * width)) ** 2 + (ys / (0.12 * width)) ** 2))
    dark = dark.astype(np.float32)
    hot = rng.random(shape, np.float32) < 5e-4
    dark[hot] += rng.uniform(200, 8000, int(hot.sum())).astype(np.float32)
    half = np.hypot(height, width) / 2
    flat = 1.0 - 0.25 * (((xs - width / 2) ** 2 + (ys - height / 2) ** 2) / half**2)
    for _ in range(6):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(12, 40)
        d = np.hypot(xs - x, ys - y) / r
        flat = flat * (1.0 - 0.06 * np.exp(-(((d - 0.8) / 0.25) ** 2)))
    flat = flat * (1.0 + 0.005 * rng.standard_normal(shape, np.float32))
    return {"dark": dark, "flat": (flat / flat.mean()).astype(np.float32)}


def _scene(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Stars (n, 3) by falling flux, and nebula (m, 5), in and around the frame."""
    height, width = shape
    margin = 0.4 * max(shape) if kind == "partial" else 80
    area = (height + 2 * margin) * (width + 2 * margin) / 1e6
    count = rng.poisson((8 if kind == "narrowband" else 1500) * area)
    flux = np.minimum(400.0 * rng.random(count) ** (-1 / 0.75), 4e6)
    xy = np.stack([rng.uniform(-margin, width + margin, count), rng.uniform(-margin, height + margin, count)], axis=1)
    order = np.argsort(-flux, kind="stable")
    blobs = 14
    size = rng.uniform(0.04, 0.2, (blobs, 2)) * max(shape)
    peak = rng.uniform(0.02, 0.12, blobs) * (9 * 5 if kind == "narrowband" else 800)
    place = np.stack([rng.uniform(0.1, 0.9, blobs) * width, rng.uniform(0.1, 0.9, blobs) * height], axis=1)
    return np.column_stack([xy, flux])[order], np.column_stack([place, size, peak])


def _subs(rng: np.random.Generator, kind: str, n: int, shape: tuple[int, int]) -> list[_Sub]:
    """Truth of each light."""
    height, width = shape
    hours = 5.0 if kind == "steady" else 0.04 * n
    base = {"moon": 800.0, "narrowband": 9.0}.get(kind, 800.0)
    direction = rng.uniform(0, 2 * np.pi)
    bend = rng.uniform(0, 2 * np.pi)
    subs = []
    for k in range(n):
        t = k / max(n - 1, 1)
        flipped = t > 0.5
        far = 0.3 * np.array([width, height]) if kind == "partial" else np.array([15.0, 15.0])
        dither = rng.uniform(-1, 1, 2) * far if k else np.zeros(2)
        turn = np.deg2rad(rng.uniform(-1, 1) * (10.0 if kind == "partial" else 0.1)) if k else 0.0
        transform = _placed(dither, turn, flipped, shape)
        if kind == "steady":
            level, plane = base * (1.0 - 0.1 * t + 0.02 * rng.standard_normal()), 0.05
            q = _parallactic(hours * (t - 0.5)) - _parallactic(0.0)
            angle, curve = direction + q, 0.004
        elif kind == "moon":
            level, plane = base * (1.0 + 2.0 * t), 0.22
            angle, curve = direction + np.deg2rad(75) * t, 0.08
        else:
            level, plane = base * rng.uniform(0.9, 1.1) * (1.0 + 0.15 * t), 0.11
            angle, curve = direction + np.deg2rad(75) * t, 0.012
        plane *= rng.uniform(0.95, 1.05)
        curve *= rng.uniform(0.8, 1.2)
        c = bend + 0.5 * t
        sky = np.array(
            [
                plane * np.cos(angle),
                plane * np.sin(angle),
                curve * np.cos(c),
                curve * np.sin(c),
                -curve * np.cos(c) * 0.5,
            ]
        )
        if flipped:
            sky[:2] *= -1
        veiled = kind == "cirrus" and k % 2 == 1
        veil = (
            (rng.uniform(0.05, 0.2), rng.uniform(0, np.pi), rng.uniform(0.6, 1.5) * width, rng.uniform(0, 2 * np.pi))
            if veiled
            else (0.0, 0.0, 1e9, 0.0)
        )
        subs.append(
            _Sub(
                transform=transform,
                transparency=float(rng.uniform(0.7, 1.0)),
                fwhm_px=float(rng.uniform(2.6, 3.8)),
                sky=(float(level), *(float(v) for v in sky)),
                veil=tuple(float(v) for v in veil),
                trails=_trails(rng, shape, k),
                start_s=3600.0 * hours * t,
                flipped=bool(flipped),
            )
        )
    return subs


def _trails(rng: np.random.Generator, shape: tuple[int, int], k: int) -> tuple[tuple[float, float, float, float], ...]:
    """Satellites: a third of the subs have one, bright or faint."""
    lines = []
    for _ in range(int(rng.random() < 0.35) + int(rng.random() < 0.08)):
        peak = rng.uniform(1.5, 5.0) if rng.random() < 0.5 else rng.uniform(5.0, 20.0)
        x, y = rng.uniform(0.2, 0.8) * shape[1], rng.uniform(0.2, 0.8) * shape[0]
        lines.append((float(x), float(y), float(rng.uniform(0, np.pi)), float(peak)))
    return tuple(lines)


def _placed(dither: np.ndarray, turn: float, flipped: bool, shape: tuple[int, int]) -> np.ndarray:
    """Reference plane to sub: rotation about the center, shift, and 180 degrees after the meridian."""
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    c, s = np.cos(turn), np.sin(turn)
    about = np.array([[c, -s, cx - c * cx + s * cy], [s, c, cy - s * cx - c * cy], [0, 0, 1.0]])
    about[:2, 2] += dither
    if flipped:
        about = np.array([[-1, 0, 2 * cx], [0, -1, 2 * cy], [0, 0, 1.0]]) @ about
    return about


def _parallactic(hour_angle_h: float) -> float:
    """Parallactic angle (rad) of the target at an hour angle."""
    h = np.deg2rad(15.0 * hour_angle_h)
    phi, dec = np.deg2rad(LATITUDE_DEG), np.deg2rad(DEC_DEG - 30.0)
    return float(np.arctan2(np.sin(h), np.tan(phi) * np.cos(dec) - np.sin(dec) * np.cos(h)))


def _sky(sky: Sequence[float], ys: np.ndarray, xs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    half = np.hypot(*shape) / 2
    u, v = (xs - (shape[1] - 1) / 2) / half, (ys - (shape[0] - 1) / 2) / half
    level, px, py, xx, xy, yy = sky
    return level * (1.0 + px * u + py * v + xx * (u * u - 0.1) + xy * u * v + yy * (v * v - 0.1))


def _veil(veil: Sequence[float], ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    amplitude, angle, wavelength, phase = veil
    along = xs * np.cos(angle) + ys * np.sin(angle)
    return 1.0 - amplitude * (1.0 + np.sin(2 * np.pi * along / wavelength + phase)) / 2


# ---------------------------------------------------------------------------------------------------- frames on disk


def _write_light(
    out: Path,
    k: int,
    truth: Truth,
    camera: Mapping[str, np.ndarray],
    exposure_s: float,
    seed: Any,
    header: Mapping[str, Any],
) -> None:
    rng = np.random.default_rng(seed)
    sub, shape = truth.subs[k], truth.shape
    ys, xs = _axes(shape)
    image = np.asarray(_sky(sub.sky, ys, xs, shape), np.float32)
    back = np.linalg.inv(sub.transform)
    rx, ry = back[0, 0] * xs + back[0, 1] * ys + back[0, 2], back[1, 0] * xs + back[1, 1] * ys + back[1, 2]
    light = _nebula(truth.arrays["nebula"], rx, ry)
    stars = truth.arrays["stars"]
    places = stars[:, :2] @ sub.transform[:2, :2].T + sub.transform[:2, 2]
    alpha = sub.fwhm_px / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    _add_stars(light, places, stars[:, 2], alpha, BETA)
    image += light * (sub.transparency * _veil(sub.veil, ys, xs)).astype(np.float32)
    sigma = np.sqrt(sub.sky[0] + READ_NOISE_E**2)
    for x, y, angle, peak in sub.trails:
        away = (xs - x) * np.sin(angle) - (ys - y) * np.cos(angle)
        image += (peak * sigma * np.exp(-0.5 * (away / _TRAIL_SIGMA_PX) ** 2)).astype(np.float32)
    image *= camera["flat"]
    if header["BAYERPAT"]:
        image = _colored(image, header["BAYERPAT"])
    image += camera["dark"]
    hits = rng.integers(0, image.size, rng.poisson(1e-4 * image.size))
    image.flat[hits] += rng.uniform(300, 8000, len(hits)).astype(np.float32)
    cards = {
        **_common_cards(header, exposure_s), "IMAGETYP": "LIGHT", "FILTER": header["FILTER"], "OBJECT": header["OBJECT"],
        "RA": RA_DEG, "DEC": DEC_DEG, "PIERSIDE": "West" if sub.flipped else "East", "DATE-OBS": _stamp(sub.start_s),
    }  # fmt: skip
    _write(out / "lights" / f"{header['OBJECT']}_{header['FILTER']}_{k:04d}.fits", _exposed(image, rng), cards)


def _write_calibration(
    out: Path,
    folder: str,
    kind: str,
    i: int,
    camera: Mapping[str, np.ndarray],
    exposure_s: float,
    seed: Any,
    header: Mapping[str, Any],
) -> None:
    rng = np.random.default_rng(seed)
    level = {
        "BIAS": np.zeros_like(camera["dark"]),
        "DARK": camera["dark"],
        "FLAT": camera["flat"] * np.float32(30000.0 * rng.uniform(0.95, 1.05)),
    }[kind]
    if kind == "FLAT" and header["BAYERPAT"]:
        level = _colored(level, header["BAYERPAT"])
    hours = {"FLAT": -3.0, "DARK": -8.0, "BIAS": -9.0}[kind]
    cards = {**_common_cards(header, exposure_s), "IMAGETYP": kind, "DATE-OBS": _stamp(3600 * hours + 130.0 * i)}
    if kind == "FLAT":
        cards["FILTER"] = header["FILTER"]
    _write(out / folder / f"{folder}_{i:04d}.fits", _exposed(level, rng), cards)


def _axes(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel rows (h, 1) and columns (1, w), float32."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


def _nebula(blobs: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Nebula, evaluated on every 4th pixel and interpolated: it is smooth."""
    step = 4
    cx, cy = xs[::step, ::step], ys[::step, ::step]
    total = np.zeros(cx.shape, np.float32)
    for x, y, sx, sy, peak in blobs:
        total += (peak * np.exp(-0.5 * (((cx - x) / sx) ** 2 + ((cy - y) / sy) ** 2))).astype(np.float32)
    (height, width), (last_row, last_column) = xs.shape, (n - 1 for n in cx.shape)
    rows = np.minimum(np.arange(height) / step, last_row)
    columns = np.minimum(np.arange(width) / step, last_column)
    return _bilinear(total, rows, columns)


def _bilinear(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Grid values at rows and columns, linear between."""
    r0, c0 = np.minimum(rows.astype(int), grid.shape[0] - 2), np.minimum(columns.astype(int), grid.shape[1] - 2)
    fr, fc = (rows - r0).astype(np.float32)[:, None], (columns - c0).astype(np.float32)[None]
    across = grid.take(c0, 1) * (1 - fc) + grid.take(c0 + 1, 1) * fc
    return across.take(r0, 0) * (1 - fr) + across.take(r0 + 1, 0) * fr


def _colored(image: np.ndarray, pattern: str) -> np.ndarray:
    """Light through the filters of a color sensor."""
    share = {"R": 0.7, "G": 1.0, "B": 0.55}
    out = image.copy()
    for i, color in enumerate(pattern):
        out[i // 2 :: 2, i % 2 :: 2] *= np.float32(share[color])
    return out


def _exposed(electrons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint16 ADU with photon and read noise; Poisson proper where there is little light."""
    if float(np.median(electrons)) < 50:
        noisy = rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
        noisy += READ_NOISE_E * rng.standard_normal(electrons.shape, np.float32)
    else:
        noisy = electrons + np.sqrt(np.maximum(electrons, 0) + READ_NOISE_E**2) * rng.standard_normal(
            electrons.shape, np.float32
        )
    return np.clip(np.rint(noisy / GAIN_E_ADU + OFFSET_ADU), 0, 65535).astype(np.uint16)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_stars(image, places, flux, alpha, beta):  # pragma: no cover
    """Add Moffat stars, averaged over 3 x 3 points of the pixels of their cores."""
    height, width = image.shape
    for k in range(len(flux)):
        peak = flux[k] * (beta - 1) / (np.pi * alpha * alpha)
        reach = alpha * np.sqrt(max((peak / 0.02) ** (1 / beta) - 1.0, 1.0))
        radius = int(min(max(reach, 8.0), 160.0))
        x, y = places[k, 0], places[k, 1]
        for i in range(max(0, int(y) - radius), min(height, int(y) + radius + 2)):
            for j in range(max(0, int(x) - radius), min(width, int(x) + radius + 2)):
                r2 = (i - y) ** 2 + (j - x) ** 2
                if r2 > radius * radius:
                    continue
                if r2 < 36.0:
                    total = 0.0
                    for a in range(3):
                        for b in range(3):
                            q = (i - y + (a - 1) / 3) ** 2 + (j - x + (b - 1) / 3) ** 2
                            total += (1 + q / (alpha * alpha)) ** -beta
                    image[i, j] += peak * total / 9
                else:
                    image[i, j] += peak * (1 + r2 / (alpha * alpha)) ** -beta


def _common_cards(header: Mapping[str, Any], exposure_s: float) -> dict[str, Any]:
    cards = {
        "EXPTIME": exposure_s, "EXPOSURE": exposure_s, "GAIN": 100, "OFFSET": 50, "EGAIN": GAIN_E_ADU, "SET-TEMP": -10.0,
        "CCD-TEMP": -10.0, "XBINNING": 1, "YBINNING": 1, "XPIXSZ": 3.76, "YPIXSZ": 3.76, "FOCALLEN": 500.0,
        "INSTRUME": "Simulated camera", "TELESCOP": "Simulated telescope", "SITELAT": LATITUDE_DEG,
        "SITELONG": LONGITUDE_DEG, "ROWORDER": "TOP-DOWN", "SWCREATE": "lerar simulate",
    }  # fmt: skip
    if header["BAYERPAT"]:
        cards |= {"BAYERPAT": header["BAYERPAT"], "XBAYROFF": 0, "YBAYROFF": 0}
    return cards


def _stamp(seconds: float) -> str:
    return (_START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _write(path: Path, image: np.ndarray, cards: Mapping[str, Any]) -> None:
    """Plain FITS of unsigned 16-bit pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {
        "SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": image.shape[1], "NAXIS2": image.shape[0], "BZERO": 32768,
        "BSCALE": 1, **cards,
    }  # fmt: skip
    text = "".join(f"{word:<8}= {_card_value(value):<70}" for word, value in words.items()) + f"{'END':<80}"
    text = text.ljust(-(-len(text) // 2880) * 2880)
    data = (image ^ np.uint16(0x8000)).astype(">u2").tobytes()
    path.write_bytes(text.encode("ascii") + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))


def _card_value(value: Any) -> str:
    if isinstance(value, bool):
        return f"{'T' if value else 'F':>20}"
    if isinstance(value, str):
        return f"'{value:<8}'"
    return f"{value:>20}"


def _plain(sub: _Sub) -> dict[str, Any]:
    return {**sub.__dict__, "transform": sub.transform.tolist()}


def _sub_from(plain: Mapping[str, Any]) -> _Sub:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    values["transform"] = np.array(plain["transform"])
    values["trails"] = tuple(tuple(t) for t in plain["trails"])
    return _Sub(**values)
