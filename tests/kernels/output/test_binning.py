"""Area means against a loop that is obvious."""

import numpy as np
import pytest

from lerar_dask.kernels.output.binning import area_means


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 40])
def test_means_of_areas(factor):
    rng = np.random.default_rng(factor)
    rows = rng.normal(100, 10, (2, 23, 31)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.4] = np.nan
    found = area_means(rows, factor)
    assert found.shape == (2, -(-23 // factor), -(-31 // factor))
    for c in range(2):
        for j in range(found.shape[1]):
            for i in range(found.shape[2]):
                part = rows[c, j * factor : (j + 1) * factor, i * factor : (i + 1) * factor]
                if 2 * np.isfinite(part).sum() < part.size:
                    assert np.isnan(found[c, j, i])
                else:
                    assert found[c, j, i] == pytest.approx(np.nanmean(part.astype(float)), rel=1e-5)
