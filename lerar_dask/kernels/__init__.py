"""Arrays in, arrays out: numpy, numba and scipy only.

In: plain arrays and numbers. Out: arrays, and conditions of the data (counts, flags) that a stage turns into words. No file,
no clock, no log, nothing of ours but other kernels. (What is compiled of them is kept in files: `fresh` and `ahead`.)
"""

from lerar_dask.kernels.fresh import drop_stale

drop_stale()
