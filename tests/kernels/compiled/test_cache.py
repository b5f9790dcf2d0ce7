"""Kernels compiled of another program text are not used, also where only a kernel that they call has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from lerar_dask.kernels.compiled import cache
from lerar_dask.kernels.compiled.shipped import FAMILIES, MANIFEST, Shipped, features_here, shipped_for

ALL = Shipped(Path("nowhere"), FAMILIES)
KERNELS = Path(cache.__file__).parents[1]


def run(folder: Path, text: str, **environment: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "NUMBA_CACHE_DIR": str(folder / "compiled"),
        **environment,
    }
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def program_in(folder: Path) -> Path:
    """Folder of the kernels of a small program: the real cache, and two rooms without a kernel."""
    kernels = folder / "lerar_dask" / "kernels"
    for room in (kernels / "compiled", kernels / "other"):
        room.mkdir(parents=True)
        (room / "__init__.py").touch()
    (kernels.parent / "__init__.py").touch()
    for name in ("__init__.py", "compiled/cache.py", "compiled/shipped.py"):
        shutil.copy(KERNELS / name, kernels / name)
    return kernels


def own_family() -> str | None:
    return ALL.family(features_here())


CALL = "from lerar_dask.kernels.outer import outer; print(outer(), sum(outer.stats.cache_hits.values()))"


@pytest.mark.parametrize("room", ["", "other."])
def test_a_change_in_the_file_of_a_called_kernel_is_seen(tmp_path, room):
    """Also where the kernel that is called lies in another room."""
    kernels = program_in(tmp_path)
    inner = "from numba import njit\n@njit(cache=True)\ndef inner(): return {}\n"
    path = kernels / f"{room.replace('.', '/')}inner.py"
    path.write_text(inner.format(1))
    (kernels / "outer.py").write_text(
        f"from numba import njit\nfrom lerar_dask.kernels.{room}inner import inner\n"
        "@njit(cache=True)\ndef outer(): return inner()\n"
    )
    assert run(tmp_path, CALL) == "1 0"
    assert run(tmp_path, CALL) == "1 1"
    path.write_text(inner.format(2))
    assert run(tmp_path, CALL) == "2 0"


@pytest.mark.skipif(own_family() is None, reason="this processor belongs to no family")
def test_kernels_that_came_with_the_program_are_not_compiled_again(tmp_path):
    kernels = program_in(tmp_path)
    outer = kernels / "outer.py"
    outer.write_text("from numba import njit\n@njit(cache=True)\ndef outer(): return 1\n")
    family = own_family()
    assert run(tmp_path, CALL, NUMBA_CPU_NAME=family, NUMBA_CPU_FEATURES="") == "1 0"
    shipped = kernels / "compiled" / "shipped"
    shipped.mkdir()
    for file in (tmp_path / "compiled").rglob("outer.outer-*.nb[ic]"):
        file.rename(shipped / file.name)
    told = {"digest": cache.digest_of(kernels), "numba": numba.__version__, "families": [family]}
    (shipped / MANIFEST).write_text(json.dumps(told))
    assert run(tmp_path, CALL) == "1 1"
    # What is shipped is of another text now.
    outer.write_text(outer.read_text().replace("1", "2"))
    assert run(tmp_path, CALL) == "2 0"


def test_only_what_another_text_compiled_is_dropped(tmp_path):
    sources, kept = tmp_path / "sources", tmp_path / "kept"
    (sources / "room").mkdir(parents=True)
    (sources / "a.py").write_text("1")
    (sources / "room" / "b.py").write_text("1")

    def kept_at(folder):
        return kept / folder.name

    def renewed():
        return cache.drop_stale(sources, cache.digest_of(sources), kept_at=kept_at)

    assert renewed()
    for name in ("sources", "room"):
        (kept / name / "a.nbi").touch()
    assert not renewed()
    assert (kept / "room" / "a.nbi").exists()
    (sources / "room" / "b.py").write_text("2")
    assert renewed()
    assert {path.name for path in kept.rglob("*") if path.is_file()} == {cache._KEPT}


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path):
    sources, barred = tmp_path / "sources", tmp_path / "a file"
    sources.mkdir()
    (sources / "a.py").touch()
    barred.touch()
    assert cache.drop_stale(sources, cache.digest_of(sources), kept_at=lambda _: barred / "compiled")


@pytest.mark.parametrize(
    ("lacks", "family"), [((), "x86-64-v4"), (("avx512vl",), "x86-64-v3"), (("avx512vl", "fma"), None)]
)
def test_the_best_family_is_that_whose_every_feature_is_there(lacks, family):
    features = set().union(*FAMILIES.values(), {"sse4.2", "sha"}) - set(lacks)
    assert ALL.family(features) == family


def test_a_family_without_kernels_is_not_taken():
    features = set().union(*FAMILIES.values())
    assert Shipped(Path("nowhere"), ["x86-64-v3"]).family(features) == "x86-64-v3"


@pytest.mark.parametrize(("digest", "made_by", "fits"), [("a", None, True), ("b", None, False), ("a", "0.1", False)])
def test_what_is_shipped_serves_one_text_and_one_numba(tmp_path, digest, made_by, fits):
    told = {"digest": "a", "numba": made_by or numba.__version__, "families": ["x86-64-v3"]}
    (tmp_path / MANIFEST).write_text(json.dumps(told))
    assert (shipped_for(digest, tmp_path) is not None) == fits


def test_nothing_is_shipped_with_a_plain_program(tmp_path):
    assert shipped_for("a", tmp_path) is None
