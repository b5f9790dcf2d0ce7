"""Kernels compiled ahead: the process ends with its parent, and knows whether there is something to do."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

from lerar_dask.kernels.compiled import precompile


def test_every_line_is_a_kernel_with_as_many_types_as_arguments():
    for kernel, types in precompile.kernels_and_types():
        assert len(types) == kernel.py_func.__code__.co_argcount, kernel


def test_a_kernel_counts_as_compiled_when_it_is_in_the_cache(tmp_path, monkeypatch):
    def some_kernel():
        """Stands for the kernel that is begun with."""

    kernel = SimpleNamespace(py_func=some_kernel, stats=SimpleNamespace(cache_path=str(tmp_path)))
    monkeypatch.setattr(precompile, "kernels_and_types", lambda: iter([(kernel, ())]))
    assert not precompile.is_compiled()
    (tmp_path / "test_precompile.some_kernel-1.py311.nbi").touch()
    assert precompile.is_compiled()


def test_the_process_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-m", "lerar_dask.kernels.compiled.precompile"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert not list(tmp_path.rglob("*.nbi"))
