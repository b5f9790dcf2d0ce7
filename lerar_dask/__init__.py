"""lerar: astronomical sub-exposures, ten or ten thousand, into a locally normalized master.

::

    files ─▶ frames ─▶ link ─▶ store ◀─▶ stages ─▶ store ─▶ products ─▶ you
             what a    which    Zarr      the work:          FITS, PNG,
             file is   dark to  layout,   masters, ingest,   report
                       which    ledger    register, normalize,
                       light              integrate
                                            │ calls        ▲ run by
                                            ▼              │
                                         kernels         runtime
                                      arrays → arrays    dask: threads, processes, cluster

`stack(night, out, **settings) -> Run` does what `lerar stack` does; `open(out) -> Run` opens what it left. Importing
this package costs nothing: names are loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerar_dask.run import Run, open, stack  # noqa: A004
    from lerar_dask.simulate import simulate

__all__ = ["Run", "__version__", "open", "simulate", "stack"]

_HOMES = {
    "Run": "lerar_dask.run",
    "open": "lerar_dask.run",
    "stack": "lerar_dask.run",
    "simulate": "lerar_dask.simulate",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lerar-dask")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lerar_dask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
