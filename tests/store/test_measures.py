"""Measurements come back as written, sub by sub."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.errors import StoreError
from lerar_dask.store.access import Store

SHAPES = {"blocks": (1, 4, 5, 3), "grid": (1, 2, 2, 2), "stars": (6, 10), "spikes": (4, 3)}

SUMMARY = dict.fromkeys(("background_adu", "noise_adu", "gradient_adu", "fwhm_px", "eccentricity", "n_stars"), 2.5)


def parts(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {**SHAPES, "stars": (seed, 10), "spikes": (0, 3)}
    return {k: rng.normal(size=s).astype("f8" if k in ("stars", "spikes") else "f4") for k, s in sizes.items()}


@pytest.fixture
def measures(tmp_path):
    made = Store.create(tmp_path / "store.zarr").measures("g", "k")
    made.create(2, SHAPES)
    return made


def test_come_back(measures):
    for slot, seed in ((0, 2), (1, 6)):
        assert not measures.has(slot)
        measures.write(slot, **parts(seed), summary={**SUMMARY, "slot": slot})
    for slot, seed in ((0, 2), (1, 6)):
        wanted = parts(seed)
        assert measures.has(slot)
        assert measures.summary(slot) == {**SUMMARY, "slot": slot}
        for name in SHAPES:
            np.testing.assert_array_equal(getattr(measures, f"read_{name}")(slot), wanted[name])


def test_grow_keeps_what_is_there(measures):
    measures.write(1, **parts(3), summary=SUMMARY)
    measures.create(5, SHAPES)
    measures.create(3, SHAPES)
    measures.write(4, **parts(4), summary=SUMMARY)
    assert len(measures.read_stars(1)) == 3
    assert len(measures.read_stars(4)) == 4


def test_missing_and_damaged(measures, tmp_path):
    with pytest.raises(StoreError):
        measures.summary(0)
    with pytest.raises(StoreError):
        measures.read_blocks(0)
    measures.write(0, **parts(3), summary=SUMMARY)
    path = tmp_path / "store.zarr/measures/g/k/blocks/c/0/0/0/0/0"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        measures.read_blocks(0)
    assert len(measures.read_stars(0)) == 3


def test_missing_arrays(tmp_path):
    with pytest.raises(StoreError, match="missing"):
        Store.create(tmp_path / "store.zarr").measures("g", "none").read_stars(0)
