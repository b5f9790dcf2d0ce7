"""The tasks of a run as it left them in its store, to be computed again: steps.json is data, from whoever it may come.

Only the functions and dataclasses of the table below are made from it; the store that the tasks work on is the one that
was opened, whatever the file says; and no name in it leads out of that store. A new stage adds its line to the table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lerar_dask import grid, settings
from lerar_dask.errors import StoreError
from lerar_dask.store.access import Store
from lerar_dask.tasks import Step, name_of, step_from_plain

__all__ = ["LEFT", "known_names", "steps_of"]

LEFT = "left.json"
"""Steps that a run has left to other jobs."""


@lru_cache(maxsize=1)
def known_names() -> dict[str, Any]:
    """Task functions, and the dataclasses of their arguments, by name."""
    from lerar_dask.frames.frame import Frame, PixelSource
    from lerar_dask.frames.header import Header
    from lerar_dask.frames.wcs import Solution
    from lerar_dask.kernels.normalize.slab import Scene
    from lerar_dask.stages import ingest, trails
    from lerar_dask.stages.calibrate import masters, soundness
    from lerar_dask.stages.integrate import chunk as integrate
    from lerar_dask.stages.integrate import drizzle
    from lerar_dask.stages.normalize import solve as normalize
    from lerar_dask.stages.register.agree import agree
    from lerar_dask.stages.register.match import match_batch
    from lerar_dask.sub import Sub

    tasks = (
        (soundness.look_over, soundness.flat_levels, soundness.check_frames),
        (masters.combine_band, masters.make_gain, masters.make_pedestal, masters.make_defects),
        (masters.find_defects, ingest.ingest_sub, match_batch, agree, normalize.solve_group),
        (trails.make_scene, trails.find_trails, integrate.integrate_chunk, drizzle.drizzle_chunk),
    )
    arguments = (
        (grid.Canvas, Scene, Header, Solution, Frame, PixelSource, masters.CalibrationSet, ingest.Item, Sub),
        (normalize.LnReference,),
        (settings.Masters, settings.Ingest, settings.Register, settings.Normalize, settings.Integrate),
        (settings.Drizzle,),
    )
    return {name_of(thing): thing for row in (*tasks, *arguments) for thing in row}


def steps_of(store: Store, name: str = "steps.json") -> list[Step]:
    """Steps of the run that left this store.

    Parameters
    ----------
    name : the file; `LEFT` for those that are left to other jobs

    Raises
    ------
    StoreError
        when there are none, or what is there is not what lerar writes.
    """
    try:
        plain = store.read_json(name)
        if not isinstance(plain, list):
            raise TypeError("no list of steps")
        return [step_from_plain(step, known=known_names(), bound={"store_url": store.url}) for step in plain]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{store.url}/{name} is not what lerar writes ({error})", "lerar stack makes it again; it is not run"
        ) from error
