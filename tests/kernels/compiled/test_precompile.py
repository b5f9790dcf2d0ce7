"""Kernels compiled ahead: the process ends with its parent, and knows whether there is something to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba

from lerar_dask.kernels.compiled import precompile
from lerar_dask.kernels.compiled.kernel import kernel


def test_every_line_is_a_kernel_with_as_many_types_as_arguments():
    for listed, types in precompile.kernels_and_types():
        assert len(types) == listed.py_func.__code__.co_argcount, listed


@kernel
def twice(x):
    """Stands for the kernel that is begun with."""
    return 2 * x


def test_a_kernel_counts_as_compiled_when_it_is_kept_for_this_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kept = kernel(twice.py_func)
    monkeypatch.setattr(precompile, "kernels_and_types", lambda: iter([(kept, ())]))
    assert not precompile.is_compiled()
    kept(1)
    assert precompile.is_compiled()
    (index,) = Path(kept.stats.cache_path).glob("*.nbi")
    written = index.read_bytes()
    processor = kept.targetctx.codegen().magic_tuple()[1].encode()
    index.write_bytes(written.replace(processor, b"?" * len(processor)))
    assert not precompile.is_compiled()
    index.write_bytes(written.replace(numba.__version__.encode(), b"0" * len(numba.__version__)))
    assert not precompile.is_compiled()


def test_the_process_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-m", "lerar_dask.kernels.compiled.precompile"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert not list(tmp_path.rglob("*.nbi"))
