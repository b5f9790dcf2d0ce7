"""A program on a disk that cannot be written, run by somebody without rights and without a home."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lerar_dask
from lerar_dask.simulate import simulate

_CAPBSET_DROP, _DAC_OVERRIDE = 24, 1
"""prctl: what lets root write where the mode says that nobody may."""


def give_up_rights() -> None:
    """What root may do beyond the modes of files goes with the next program that is started."""
    ctypes.CDLL(None).prctl(_CAPBSET_DROP, _DAC_OVERRIDE, 0, 0, 0)


@pytest.fixture
def read_only(tmp_path):
    """A copy of the package that cannot be written, and a home of that kind."""
    code, home = tmp_path / "code", tmp_path / "home"
    package = Path(lerar_dask.__file__).parent
    shutil.copytree(package, code / "lerar_dask", ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    folders = [code, home, *(path for path in code.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield code, home
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_no_writable_place_for_compiled_kernels(read_only, tmp_path, scheduler):
    code, home = read_only
    own = tmp_path / "own"
    own.mkdir()
    simulate(tmp_path / "night", n=4, shape=(160, 200), seed=3, n_darks=2, n_flats=2, n_bias=2)
    tried = "import pathlib; pathlib.Path('x').write_text('')"
    surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(code), "TMPDIR": str(own), "HOME": str(home)}
    how = {"cwd": code, "preexec_fn": give_up_rights, "env": surroundings, "capture_output": True, "text": True}
    if subprocess.run([sys.executable, "-c", tried], check=False, **how).returncode == 0:
        pytest.skip("this machine does not let root give up its rights")
    command = [
        sys.executable,
        "-m",
        "lerar_dask",
        "stack",
        str(tmp_path / "night"),
        "-o",
        str(own / "out"),
        "--no-report",
    ]
    done = subprocess.run([*command, "--scheduler", scheduler, "--threads", "1"], timeout=500, check=False, **how)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("there is no place where compiled kernels can be kept") == 1
    assert "Traceback" not in said
    assert list((own / "out").glob("*.fits"))
    assert not list(own.glob("lerar-*"))
