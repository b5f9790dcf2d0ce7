"""Kernels compiled of another program text are not used, also where only a kernel that they call has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lerar_dask.kernels.compiled import cache

KERNELS = Path(cache.__file__).parents[1]


def run(folder: Path, text: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "compiled")}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("room", ["", "other."])
def test_a_change_in_the_file_of_a_called_kernel_is_seen(tmp_path, room):
    """Also where the kernel that is called lies in another room."""
    kernels = tmp_path / "lerar_dask" / "kernels"
    for folder in (kernels / "compiled", kernels / "other"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (kernels.parent / "__init__.py").touch()
    for name in ("__init__.py", "compiled/cache.py"):
        shutil.copy(KERNELS / name, kernels / name)
    inner = "from numba import njit\n@njit(cache=True)\ndef inner(): return {}\n"
    path = kernels / f"{room.replace('.', '/')}inner.py"
    path.write_text(inner.format(1))
    (kernels / "outer.py").write_text(
        f"from numba import njit\nfrom lerar_dask.kernels.{room}inner import inner\n"
        "@njit(cache=True)\ndef outer(): return inner()\n"
    )
    call = "from lerar_dask.kernels.outer import outer; print(outer(), sum(outer.stats.cache_hits.values()))"
    assert run(tmp_path, call) == "1 0"
    assert run(tmp_path, call) == "1 1"
    path.write_text(inner.format(2))
    assert run(tmp_path, call) == "2 0"


def test_only_what_another_text_compiled_is_dropped(tmp_path):
    sources, kept = tmp_path / "sources", tmp_path / "kept"
    (sources / "room").mkdir(parents=True)
    (sources / "a.py").write_text("1")
    (sources / "room" / "b.py").write_text("1")

    def kept_at(folder):
        return kept / folder.name

    assert cache.drop_stale(sources, kept_at=kept_at)
    for name in ("sources", "room"):
        (kept / name / "a.nbi").touch()
    assert not cache.drop_stale(sources, kept_at=kept_at)
    assert (kept / "room" / "a.nbi").exists()
    (sources / "room" / "b.py").write_text("2")
    assert cache.drop_stale(sources, kept_at=kept_at)
    assert {path.name for path in kept.rglob("*") if path.is_file()} == {cache._KEPT}


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path):
    sources, barred = tmp_path / "sources", tmp_path / "a file"
    sources.mkdir()
    (sources / "a.py").touch()
    barred.touch()
    assert cache.drop_stale(sources, kept_at=lambda _: barred / "compiled")
