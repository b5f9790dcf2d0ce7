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

`stack(night, out, **settings) -> Run` does what `lerar stack` does; `open(out) -> Run` opens what it left; `simulate`
is the module that makes nights with known truth. Importing this package costs nothing: the rest is loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lerar_dask import simulate
    from lerar_dask.run import Run

__all__ = ["Run", "__version__", "open", "simulate", "stack"]


def stack(nights: str | Path | Sequence[str | Path], out: str | Path, **settings: Any) -> Run:
    """Stack folders of raw frames into `out`, as `lerar stack` does, and open the result.

    Parameters
    ----------
    nights : one folder or several
    out : folder for the results, made if missing
    settings : any setting by its name, as `reject="sigma"` or `memory="4GiB"`

    Raises
    ------
    LerarError
        when the run cannot go on; frames that cannot be used are set aside and do not raise.
    """
    import os
    from pathlib import Path

    from lerar_dask.pipeline import stack as run_stages
    from lerar_dask.run import Run
    from lerar_dask.runtime.events import Bus
    from lerar_dask.settings import Settings

    folders = [nights] if isinstance(nights, str | os.PathLike) else nights
    run_stages([Path(night) for night in folders], Path(out), Settings.of(**settings), bus=Bus())
    return Run.open(out)


def open(out: str | Path) -> Run:  # noqa: A001
    """Open what `stack` left in `out`."""
    from lerar_dask.run import Run

    return Run.open(out)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lerar-dask")
    if name == "Run":
        from lerar_dask.run import Run

        return Run
    if name == "simulate":
        from importlib import import_module

        return import_module("lerar_dask.simulate")
    raise AttributeError(f"module 'lerar_dask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
