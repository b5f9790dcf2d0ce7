"""Kernels compiled of another program text are not used, also where only a kernel that they call has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lerar_dask.kernels import fresh

PACKAGE = Path(fresh.__file__).parents[1]


def run(folder: Path, text: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "compiled")}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_change_in_the_file_of_a_called_kernel_is_seen(tmp_path):
    kernels = tmp_path / "lerar_dask" / "kernels"
    kernels.mkdir(parents=True)
    (kernels.parent / "__init__.py").touch()
    for name in ("__init__.py", "fresh.py"):
        shutil.copy(PACKAGE / "kernels" / name, kernels)
    inner = "from numba import njit\n@njit(cache=True)\ndef inner(): return {}\n"
    (kernels / "inner.py").write_text(inner.format(1))
    (kernels / "outer.py").write_text(
        "from numba import njit\nfrom lerar_dask.kernels.inner import inner\n"
        "@njit(cache=True)\ndef outer(): return inner()\n"
    )
    call = "from lerar_dask.kernels.outer import outer; print(outer(), sum(outer.stats.cache_hits.values()))"
    assert run(tmp_path, call) == "1 0"
    assert run(tmp_path, call) == "1 1"
    (kernels / "inner.py").write_text(inner.format(2))
    assert run(tmp_path, call) == "2 0"


def test_only_what_another_text_compiled_is_dropped(tmp_path):
    sources, compiled = tmp_path / "sources", tmp_path / "compiled"
    sources.mkdir()
    (sources / "a.py").write_text("1")
    assert fresh.drop_stale(sources, compiled)
    (compiled / "a.nbi").touch()
    assert not fresh.drop_stale(sources, compiled)
    assert (compiled / "a.nbi").exists()
    (sources / "b.py").write_text("2")
    assert fresh.drop_stale(sources, compiled)
    assert not (compiled / "a.nbi").exists()
    assert [path.name for path in compiled.iterdir()] == [fresh._KEPT]


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path):
    sources, barred = tmp_path / "sources", tmp_path / "a file"
    sources.mkdir()
    barred.touch()
    assert fresh.drop_stale(sources, barred / "compiled")
