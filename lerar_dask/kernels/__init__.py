"""Arrays in, arrays out: numpy, numba and scipy only.

In: plain arrays and numbers. Out: arrays, and conditions of the data (counts, flags) that a stage turns into words. No file,
no clock, no log, nothing of ours but other kernels. (What is compiled of them is kept in files: `compiled`.) One room per
subject, named as the stage that calls it.
"""

from lerar_dask.kernels.compiled.cache import renew

renew()
