"""Nights through several filters: one field whose stars and nebulae have colors, each filter with its own sky and seeing.

In: names of filters. Out: a folder per filter, as `simulate` writes one, and `colors.npz` with the true colors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.kernels.picture.balance import band_ratios
from lerar_dask.simulate.night import write_night
from lerar_dask.simulate.sky import camera_of, scene_of, subs_of

__all__ = ["RESPONSES", "simulate_colors"]

RESPONSES = {
    "L": (0.9, 1.0, 0.8, 0.0, 0.0, 0.0),
    "R": (0.7, 0.0, 0.0, 0.0, 0.0, 0.0),
    "G": (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
    "B": (0.0, 0.0, 0.55, 0.0, 0.0, 0.0),
    "Ha": (0.03, 0.0, 0.0, 0.9, 0.0, 0.0),
    "OIII": (0.0, 0.02, 0.01, 0.0, 0.8, 0.0),
    "SII": (0.03, 0.0, 0.0, 0.0, 0.0, 0.9),
}
"""What a filter and the sensor behind it make of red, green and blue continuum and of the lines Ha, OIII, SII."""
_SKY = {"L": 1.6, "R": 0.7, "G": 0.75, "B": 0.5, "Ha": 0.05, "OIII": 0.06, "SII": 0.05}
"""Sky of a filter over that of a plain night."""
_USUAL_COLOR, _SPREAD = 0.70, 0.28
"""B-V of the stars."""


def simulate_colors(
    out: str | Path,
    *,
    filters: Sequence[str] = ("L", "R", "G", "B"),
    n: int = 8,
    shape: tuple[int, int] = (900, 1200),
    seed: int = 11,
    target: str = "Sim",
    exposure_s: float = 120.0,
    n_darks: int = 8,
    n_flats: int = 6,
) -> Path:
    """Write a night through filters; every filter has `n` lights and its own flats, the first has the darks.

    Raises
    ------
    UsageError
        for a filter that is not in `RESPONSES`, or a folder that holds something.
    """
    out = Path(out)
    for name in filters:
        if name not in RESPONSES:
            raise UsageError(f"no filter is called {name!r}", f"one of {', '.join(RESPONSES)}")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} holds something already", "give a new folder for the simulated night")
    root = np.random.SeedSequence([seed, 77])
    scene_seed, camera_seed, *filter_seeds = root.spawn(2 + len(filters))
    camera = camera_of(np.random.default_rng(camera_seed), shape)
    rng = np.random.default_rng(scene_seed)
    stars, nebula = scene_of(rng, "plain", shape)
    bands = np.array(
        [band_ratios(c, _USUAL_COLOR) for c in np.clip(rng.normal(_USUAL_COLOR, _SPREAD, len(stars)), -0.2, 1.8)]
    )
    glow = _nebula_colors(rng, len(nebula))
    for i, name in enumerate(filters):
        own = np.random.default_rng(filter_seeds[i])
        response = np.array(RESPONSES[name])
        seen, cloud = stars.copy(), nebula.copy()
        seen[:, 2] *= bands @ response[:3]
        cloud[:, 4] *= glow @ response
        subs = subs_of(own, "plain", n, shape, base=_SKY[name], seeing=float(own.uniform(0.9, 1.2)))
        counts = {"darks": n_darks if i == 0 else 0, "flats": n_flats, "bias": n_darks if i == 0 else 0}
        arrays = {"stars": seen, "nebula": cloud, "dark": camera["dark"], "flat": camera["flat"]}
        facts = {"kind": "plain", "seed": seed, "shape": list(shape), "cfa": None}
        header = {"FILTER": name, "OBJECT": target, "BAYERPAT": None, "shape": shape}
        write_night(
            out / name, facts, arrays, subs, counts, filter_seeds[i].spawn(n + sum(counts.values())), header, exposure_s
        )
    np.savez(out / "colors.npz", stars=stars, bands=bands, nebula=nebula, glow=glow)
    return out


def _nebula_colors(rng: np.random.Generator, n: int) -> np.ndarray:
    """Continuum and lines of nebulae, (n, 6): red emission, teal shells, blue reflection."""
    kinds = np.array(
        [[0.5, 0.08, 0.12, 2.0, 0.15, 0.5], [0.1, 0.35, 0.3, 0.4, 1.6, 0.1], [0.25, 0.35, 0.6, 0.1, 0.1, 0.05]]
    )
    return kinds[rng.integers(0, 3, n)] * rng.uniform(0.7, 1.3, (n, 1))
