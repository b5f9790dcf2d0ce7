"""Where and how tasks run: memory, threads, clusters, events. Knows no stage; dask lives here."""
