"""What a file is: normalized header, dialects of capture programs, pixels; scan of a folder.

In: paths. Out: `Frame` values that pickle and cost little, each with a header that speaks one language, or with the
reason why it cannot be used. May import settings, grid, tasks, kernels, errors.
"""
