"""A simulated night as a whole: what there is, its frames, and its truth beside them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.simulate.files import write_calibration, write_light
from lerar_dask.simulate.sky import (
    BETA,
    GAIN_E_ADU,
    KINDS,
    OFFSET_ADU,
    READ_NOISE_E,
    TRAIL_SIGMA_PX,
    Truth,
    camera_of,
    scene_of,
    subs_of,
    to_plain,
)

__all__ = ["simulate"]


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
    camera = camera_of(np.random.default_rng(camera_seed), shape)
    rng = np.random.default_rng(sky_seed)
    stars, nebula = scene_of(rng, kind, shape)
    subs = subs_of(rng, kind, n, shape)
    facts = {
        "kind": kind, "seed": seed, "shape": list(shape), "cfa": cfa, "gain_e_adu": GAIN_E_ADU,
        "read_noise_e": READ_NOISE_E, "offset_adu": OFFSET_ADU, "beta": BETA, "trail_sigma_px": TRAIL_SIGMA_PX,
        "subs": [to_plain(s) for s in subs],
    }  # fmt: skip
    arrays = {"stars": stars, "nebula": nebula, "dark": camera["dark"], "flat": camera["flat"]}
    out.mkdir(parents=True, exist_ok=True)
    header = {"FILTER": filter_name, "OBJECT": target, "BAYERPAT": cfa, "shape": shape}
    jobs: list[Any] = []
    truth = Truth(facts, arrays)
    for k in range(n):
        jobs.append((write_light, out, k, truth, camera, exposure_s, frame_seeds[k], header))
    for i in range(n_darks):
        jobs.append((write_calibration, out, "darks", "DARK", i, camera, exposure_s, frame_seeds[n + i], header))
    for i in range(n_flats):
        jobs.append((write_calibration, out, "flats", "FLAT", i, camera, 1.0, frame_seeds[n + n_darks + i], header))
    for i in range(n_bias):
        at = n + n_darks + n_flats + i
        jobs.append((write_calibration, out, "bias", "BIAS", i, camera, 0.0001, frame_seeds[at], header))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda job: job[0](*job[1:]), jobs))
    np.savez(out / "truth.npz", **arrays)  # type: ignore[arg-type]
    (out / "truth.json").write_text(json.dumps(facts))
    return out
