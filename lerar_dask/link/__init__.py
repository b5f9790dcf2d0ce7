"""Which dark, flat, flat-dark and bias belong to which light: groups, rules as data, matches with reasons, pins.

In: frames of a scan. Out: `Links`. May import frames, settings, grid, tasks, kernels, errors.
"""
