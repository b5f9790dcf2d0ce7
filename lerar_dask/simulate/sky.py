"""What there is in a simulated night: camera, scene, skies, trails, and how each sub sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "BETA",
    "DEC_DEG",
    "GAIN_E_ADU",
    "KINDS",
    "LATITUDE_DEG",
    "LONGITUDE_DEG",
    "OFFSET_ADU",
    "RA_DEG",
    "READ_NOISE_E",
    "START",
    "TRAIL_SIGMA_PX",
    "SimulatedSub",
    "Truth",
    "axes_of",
    "camera_of",
    "scene_of",
    "sky_of",
    "subs_of",
    "to_plain",
    "veil_of",
]

KINDS: tuple[str, ...] = ("plain", "moon", "cirrus", "narrowband", "partial", "steady")
OFFSET_ADU = 500.0
READ_NOISE_E = 3.0
GAIN_E_ADU = 1.0
BETA = 3.0
"""Moffat exponent of the stars."""
LATITUDE_DEG, LONGITUDE_DEG = 48.0, 11.0
RA_DEG, DEC_DEG = 202.47, 47.2
START = datetime(2026, 3, 14, 21, 0, 0, tzinfo=UTC)
TRAIL_SIGMA_PX = 1.5


@dataclass(frozen=True, kw_only=True)
class SimulatedSub:
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
        self.subs = [sub_from(s) for s in facts["subs"]]
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
        return sky_of(self.subs[k].sky, ys, xs, self.shape)

    def transparency(self, k: int, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Transparency of sub `k` at its own pixels."""
        return self.subs[k].transparency * veil_of(self.subs[k].veil, ys, xs)


def camera_of(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Dark current with hot pixels and amplifier glow (e- per exposure); flat with vignetting and dust."""
    height, width = shape
    ys, xs = axes_of(shape)
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


def scene_of(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
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


def subs_of(
    rng: np.random.Generator, kind: str, n: int, shape: tuple[int, int], *, base: float = 1.0, seeing: float = 1.0
) -> list[SimulatedSub]:
    """Truth of each light.

    Parameters
    ----------
    base, seeing : factors on the sky's level and the stars' width
    """
    height, width = shape
    hours = 5.0 if kind == "steady" else 0.04 * n
    base *= {"moon": 800.0, "narrowband": 9.0}.get(kind, 800.0)
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
            SimulatedSub(
                transform=transform,
                transparency=float(rng.uniform(0.7, 1.0)),
                fwhm_px=float(rng.uniform(2.6, 3.8)) * seeing,
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


def sky_of(sky: Sequence[float], ys: np.ndarray, xs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sky of a sub at its pixels, e-."""
    half = np.hypot(*shape) / 2
    u, v = (xs - (shape[1] - 1) / 2) / half, (ys - (shape[0] - 1) / 2) / half
    level, px, py, xx, xy, yy = sky
    return level * (1.0 + px * u + py * v + xx * (u * u - 0.1) + xy * u * v + yy * (v * v - 0.1))


def veil_of(veil: Sequence[float], ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Share of the light that a cirrus lets through, at a sub's pixels."""
    amplitude, angle, wavelength, phase = veil
    along = xs * np.cos(angle) + ys * np.sin(angle)
    return 1.0 - amplitude * (1.0 + np.sin(2 * np.pi * along / wavelength + phase)) / 2


def axes_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel rows (h, 1) and columns (1, w), float32."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


def to_plain(sub: SimulatedSub) -> dict[str, Any]:
    """A sub as JSON types."""
    return {**sub.__dict__, "transform": sub.transform.tolist()}


def sub_from(plain: Mapping[str, Any]) -> SimulatedSub:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    values["transform"] = np.array(plain["transform"])
    values["trails"] = tuple(tuple(t) for t in plain["trails"])
    return SimulatedSub(**values)
