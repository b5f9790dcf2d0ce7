"""Frames of a simulated night on disk, as a capture program writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.simulate.render import add_stars, colored, exposed, nebula_on
from lerar_dask.simulate.sky import (
    BETA,
    DEC_DEG,
    GAIN_E_ADU,
    LATITUDE_DEG,
    LONGITUDE_DEG,
    RA_DEG,
    READ_NOISE_E,
    START,
    TRAIL_SIGMA_PX,
    Truth,
    axes_of,
    sky_of,
    veil_of,
)

__all__ = ["write_calibration", "write_light"]


def write_light(
    out: Path,
    k: int,
    truth: Truth,
    camera: Mapping[str, np.ndarray],
    exposure_s: float,
    seed: Any,
    header: Mapping[str, Any],
) -> None:
    """Expose a light and write it."""
    rng = np.random.default_rng(seed)
    sub, shape = truth.subs[k], truth.shape
    ys, xs = axes_of(shape)
    image = np.asarray(sky_of(sub.sky, ys, xs, shape), np.float32)
    back = np.linalg.inv(sub.transform)
    rx, ry = back[0, 0] * xs + back[0, 1] * ys + back[0, 2], back[1, 0] * xs + back[1, 1] * ys + back[1, 2]
    light = nebula_on(truth.arrays["nebula"], rx, ry)
    stars = truth.arrays["stars"]
    places = stars[:, :2] @ sub.transform[:2, :2].T + sub.transform[:2, 2]
    alpha = sub.fwhm_px / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    add_stars(light, places, stars[:, 2], alpha, BETA)
    image += light * (sub.transparency * veil_of(sub.veil, ys, xs)).astype(np.float32)
    sigma = np.sqrt(sub.sky[0] + READ_NOISE_E**2)
    for x, y, angle, peak in sub.trails:
        away = (xs - x) * np.sin(angle) - (ys - y) * np.cos(angle)
        image += (peak * sigma * np.exp(-0.5 * (away / TRAIL_SIGMA_PX) ** 2)).astype(np.float32)
    image *= camera["flat"]
    if header["BAYERPAT"]:
        image = colored(image, header["BAYERPAT"])
    image += camera["dark"]
    hits = rng.integers(0, image.size, rng.poisson(1e-4 * image.size))
    image.flat[hits] += rng.uniform(300, 8000, len(hits)).astype(np.float32)
    cards = {
        **_common_cards(header, exposure_s), "IMAGETYP": "LIGHT", "FILTER": header["FILTER"], "OBJECT": header["OBJECT"],
        "RA": RA_DEG, "DEC": DEC_DEG, "PIERSIDE": "West" if sub.flipped else "East", "DATE-OBS": _stamp(sub.start_s),
    }  # fmt: skip
    _write(out / "lights" / f"{header['OBJECT']}_{header['FILTER']}_{k:04d}.fits", exposed(image, rng), cards)


def write_calibration(
    out: Path,
    folder: str,
    kind: str,
    i: int,
    camera: Mapping[str, np.ndarray],
    exposure_s: float,
    seed: Any,
    header: Mapping[str, Any],
) -> None:
    """Expose a dark, flat or bias and write it."""
    rng = np.random.default_rng(seed)
    level = {
        "BIAS": np.zeros_like(camera["dark"]),
        "DARK": camera["dark"],
        "FLAT": camera["flat"] * np.float32(30000.0 * rng.uniform(0.95, 1.05)),
    }[kind]
    if kind == "FLAT" and header["BAYERPAT"]:
        level = colored(level, header["BAYERPAT"])
    hours = {"FLAT": -3.0, "DARK": -8.0, "BIAS": -9.0}[kind]
    cards = {**_common_cards(header, exposure_s), "IMAGETYP": kind, "DATE-OBS": _stamp(3600 * hours + 130.0 * i)}
    if kind == "FLAT":
        cards["FILTER"] = header["FILTER"]
    _write(out / folder / f"{folder}_{i:04d}.fits", exposed(level, rng), cards)


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
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")


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
