"""Durations and sizes read as a person says them."""

from lerar_dask.products.quantities import duration, size


def test_durations():
    found = [duration(s) for s in (0.04, 9.94, 9.97, 59.6, 754, 3599.7, 12000)]
    assert found == ["0.0 s", "9.9 s", "10 s", "1 min 00 s", "12 min 34 s", "1 h 00 min", "3 h 20 min"]


def test_sizes():
    assert [size(b) for b in (10, 2048, 1.5 * 2**30, 2**20 * 820)] == ["10 B", "2.0 KiB", "1.5 GiB", "820 MiB"]
