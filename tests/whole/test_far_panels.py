"""A strip of panels longer than four frames: one master, because every panel overlaps the next."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from tests.whole.nights import Night, adu, master_of, run, stamp

PANELS, STEP = 6, 300


def test_a_chain_of_panels_stacks_whole(tmp_path):
    night = Night(tmp_path / "night", 17)
    rng, length = np.random.default_rng(3), STEP * PANELS + 300
    night.stars = np.column_stack(
        [rng.uniform(-60, length, 600), rng.uniform(-60, 380, 600), 10 ** rng.uniform(1.5, 3.6, 600)]
    )
    for k in range(3 * PANELS):
        shift = (-STEP * (k // 3) + rng.uniform(-8, 8), rng.uniform(-8, 8))
        night.put("light", f"light_{k:02}.fits", adu(night.light(shift=shift)), EXPTIME=60.0, DATE_OBS=stamp(k))
    night.darks(4)
    night.flats(3)
    summary = run(night, tmp_path / "out", memory="2GiB")
    assert summary.exit_code == 0
    assert summary.n_used == 3 * PANELS
    with fits.open(master_of(summary)) as hdus:
        image, coverage = hdus[0].data, hdus["COVERAGE"].data[0]
        noise = hdus["NOISE"].data[0]
    assert image.shape[1] > 4.2 * 440
    # no step where the coverage changes: skies of columns beside one another, in blocks of 16 px
    rows = slice(40, 280)
    blocks = np.array([np.nanmedian(image[rows, x : x + 16]) for x in range(30, image.shape[1] - 46, 16)])
    sigma = np.nanmedian(noise[rows])
    assert np.abs(np.diff(blocks)).max() < 0.5 * sigma
    assert np.nanmax(coverage[rows]) >= 5
