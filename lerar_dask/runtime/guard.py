"""One task, run so that whatever happens to it comes back as a record."""

from __future__ import annotations

import logging
import platform
import time
import traceback

from lerar_dask.errors import DamagedError, FrameError, LerarError, SpaceError, UnreachableError, space_error
from lerar_dask.tasks import AGAIN, Record, Task

__all__ = ["guarded"]

_log = logging.getLogger("lerar_dask")


def guarded(task: Task) -> Record | SpaceError:
    """Call the task's function: done, aside (its data cannot be used) or failed; a full disk comes back as an error."""
    start = time.perf_counter()
    state, reason, result = "done", "", {}
    try:
        result = dict(task.function(**task.arguments))
    except UnreachableError as error:
        state, reason, result = "aside", error.message, {AGAIN: True}
    except FrameError as error:
        state, reason = "aside", error.message
    except SpaceError as error:
        return error
    except DamagedError as error:
        state, reason, result = "failed", error.message, {"damaged": list(error.parts)}
    except LerarError as error:
        state, reason = "failed", error.message
    except OSError as error:
        if full := space_error(error, error.filename or task.key):
            return full
        state, reason = "failed", f"{type(error).__name__}: {error}"
        _log.error("%s failed\n%s", task.key, traceback.format_exc())
    except Exception as error:
        state, reason = "failed", f"{type(error).__name__}: {error}"
        _log.error("%s failed\n%s", task.key, traceback.format_exc())
    return Record(
        key=task.key,
        digest=task.digest,
        state=state,  # type: ignore[arg-type]
        reason=reason,
        result=result,
        seconds=round(time.perf_counter() - start, 4),
        host=platform.node(),
    )
