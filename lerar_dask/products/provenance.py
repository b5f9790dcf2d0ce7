"""Where a result comes from: versions, machine and settings, as HISTORY lines and JSON values."""

from __future__ import annotations

import dataclasses
import os
import platform
from functools import lru_cache
from importlib import metadata
from typing import Any

from lerar_dask.settings import Settings

__all__ = ["history", "machine", "program", "provenance", "versions"]

_PACKAGES = ("numpy", "scipy", "numba", "zarr", "dask", "distributed", "astropy", "bokeh")


def program() -> str:
    """Name and version, as it stands in PROGRAM cards."""
    return f"lerar {versions()['lerar']}"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of this program, of Python and of what the numbers depend on."""
    found = {"lerar": _version("lerar-dask"), "python": platform.python_version()}
    return found | {name: _version(name) for name in _PACKAGES}


def machine() -> dict[str, Any]:
    """What the result may depend on in its last bits, and its speed: processor, cores, system."""
    return {"host": platform.node(), "system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()}


def provenance(settings: Settings) -> dict[str, Any]:
    """Values for the PROVENANCE table and the report."""
    plain = dataclasses.asdict(settings)
    return {"settings": plain, "versions": versions(), "machine": machine()}


def history(settings: Settings) -> list[str]:
    """One line per stage: its science settings in the words of the command line and of lerar.toml."""
    lines = [f"{program()}, python {versions()['python']}"]
    for table in dataclasses.fields(settings):
        if table.name in {"run", "products"}:
            continue
        values = dataclasses.asdict(getattr(settings, table.name))
        lines.append(f"{table.name}: " + ", ".join(f"{k} {v}" for k, v in values.items() if v is not None))
    return lines


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """Model of the processor as Linux tells it, else what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
