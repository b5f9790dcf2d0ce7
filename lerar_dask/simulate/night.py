"""A simulated night as a whole: what there is, its frames, and its truth beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
    SimulatedSub,
    Truth,
    camera_of,
    scene_of,
    subs_of,
    to_plain,
)

__all__ = ["simulate", "write_night"]


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
    seeing: float = 1.0,
) -> Path:
    """Write a simulated night.

    Parameters
    ----------
    out : folder, made if missing; must be empty
    kind : plain, moon, cirrus, narrowband, partial or steady
    shape : rows and columns
    cfa : 2x2 color pattern as "RGGB", or None for mono
    seeing : FWHM of the stars relative to 2.6 .. 3.8 pixels

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
    subs = subs_of(rng, kind, n, shape, seeing=seeing)
    arrays = {"stars": stars, "nebula": nebula, "dark": camera["dark"], "flat": camera["flat"]}
    facts = {"kind": kind, "seed": seed, "shape": list(shape), "cfa": cfa}
    header = {"FILTER": filter_name, "OBJECT": target, "BAYERPAT": cfa, "shape": shape}
    counts = {"darks": n_darks, "flats": n_flats, "bias": n_bias}
    return write_night(out, facts, arrays, subs, counts, frame_seeds, header, exposure_s)


def write_night(
    out: Path,
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    subs: Sequence[SimulatedSub],
    counts: Mapping[str, int],
    seeds: Sequence[Any],
    header: Mapping[str, Any],
    exposure_s: float,
) -> Path:
    """Expose and write all frames of a night, and its truth.

    Parameters
    ----------
    arrays : stars, nebula, dark, flat: see `Truth`
    counts : of darks, flats and bias
    seeds : one per frame: lights, darks, flats, bias
    """
    facts = {
        **facts, "gain_e_adu": GAIN_E_ADU, "read_noise_e": READ_NOISE_E, "offset_adu": OFFSET_ADU, "beta": BETA,
        "trail_sigma_px": TRAIL_SIGMA_PX, "subs": [to_plain(s) for s in subs],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    camera = {name: arrays[name] for name in ("dark", "flat")}
    truth = Truth(facts, arrays)
    left = iter(seeds)
    jobs: list[Any] = [(write_light, out, k, truth, camera, exposure_s, next(left), header) for k in range(len(subs))]
    for folder, kind, seconds in (("darks", "DARK", exposure_s), ("flats", "FLAT", 1.0), ("bias", "BIAS", 0.0001)):
        jobs += [
            (write_calibration, out, folder, kind, i, camera, seconds, next(left), header)
            for i in range(counts[folder])
        ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda job: job[0](*job[1:]), jobs))
    np.savez(out / "truth.npz", **arrays)  # type: ignore[arg-type]
    (out / "truth.json").write_text(json.dumps(facts))
    return out
