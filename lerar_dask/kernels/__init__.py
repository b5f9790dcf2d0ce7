"""Arrays in, arrays out: numpy, numba and scipy only.

In: plain arrays and numbers. Out: arrays, and conditions of the data (counts, flags) that a stage turns into words. No file,
no clock, no log, nothing of ours but other kernels.
"""
