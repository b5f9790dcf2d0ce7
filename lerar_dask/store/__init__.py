"""The Zarr layout, and nothing else knows array names: arrays, shards, measurements, ledger, lock.

In: pixels and small tables of one task. Out: files that appear whole or not at all. May import frames, settings, grid,
tasks, kernels, errors.
"""
