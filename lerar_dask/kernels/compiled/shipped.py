"""Kernels that a wheel brings along, compiled for families of processors: whoever installs it waits for none.

They serve one program text, one numba and the Python that the wheel is for; with any other, kernels are compiled here, as
they are without such a wheel (`scripts/wheel` makes one). A family's kernels run on all its processors; all families have
fused multiply-add, and no kernel lets the compiler reorder sums, so that the bits are those of kernels made for the processor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import llvmlite.binding as llvm
import numba

__all__ = ["FAMILIES", "MANIFEST", "Shipped", "features_here", "shipped_for", "use_family"]

MANIFEST = "manifest.json"
"""Beside the rooms of the kernels in the folder of what is shipped: what they are for."""

_V3 = frozenset({"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"})
FAMILIES = {
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": _V3,
}
"""Names of families and what their processors can do, both as LLVM writes them; the best first. (x86-64 psABI, levels.)"""


class Shipped:
    """A folder of kernels that fit this program.

    Parameters
    ----------
    folder : with a folder for each room of kernels, by its name
    families : that they are compiled for
    """

    def __init__(self, folder: Path, families: Iterable[str]) -> None:
        self.folder = folder
        self.families = frozenset(families)

    def family(self, features: Iterable[str]) -> str | None:
        """Best family that a processor with these features belongs to; None if there is none for it."""
        fit = (name for name, needed in FAMILIES.items() if name in self.families and needed <= set(features))
        return next(fit, None)

    def files(self, room: Path) -> list[Path]:
        """Kernels of a room; each index after what it names."""
        return sorted((self.folder / room).glob("*.nb[ic]"))


def shipped_for(digest: str, folder: Path = Path(__file__).parent / "shipped") -> Shipped | None:
    """What came with this program, if it is of a text with this digest and of this numba; None else."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return None
    if (manifest["digest"], manifest["numba"]) != (digest, numba.__version__):
        return None
    return Shipped(folder, manifest["families"])


def features_here() -> set[str]:
    """What this processor can do, as LLVM writes it."""
    return {name for name, is_there in llvm.get_host_cpu_features().items() if is_there}


def use_family(shipped: Shipped | None) -> None:
    """Have numba take and make kernels for the family that this processor belongs to, if there are some for it.

    To be called before anything is compiled. A processor that somebody has named (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES) stays.
    """
    named = numba.config.CPU_NAME, numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    if shipped is None or named != (None, None):
        return
    family = shipped.family(features_here())
    if family is not None:
        numba.config.CPU_NAME, numba.config.CPU_FEATURES = family, ""  # type: ignore[attr-defined]
