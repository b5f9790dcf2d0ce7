"""What a result is made of: only what has an effect counts, and all of it does."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

import lerar_dask
from lerar_dask.identity import code_of, digest
from lerar_dask.settings import Ingest, Integrate, Masters, Normalize, Products, Register, Settings

DEFAULTS = MappingProxyType(
    {
        Masters: (3.0, 3.0),
        Ingest: (64, 5.0, 3000, True, 8.0, 8.0),
        Register: (None, "auto", 20.7, "union"),
        Normalize: ("local", 128, None),
        Integrate: ("auto", 3.0, 3.0, 1, 1, 0.2, 0.1, "lanczos3", 0.3, "inverse-variance", True),
        Products: (True, True, False, ""),
    }
)
"""Defaults at which a setting stays out of digests. Whoever changes one gives the field metadata `first` with the value
here: results of the old default would else be taken for those of the new one. New settings are added."""


def folder_of_the_package(tmp_path: Path) -> Path:
    folder = tmp_path / "lerar_dask"
    shutil.copytree(Path(lerar_dask.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def code_there(folder: Path, module: str) -> str:
    text = f"from lerar_dask.identity import code_of; print(code_of({module!r}))"
    done = subprocess.run([sys.executable, "-c", text], cwd=folder.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("stage", DEFAULTS)
def test_defaults_that_stay_out_of_digests(stage):
    assert tuple(f.metadata.get("first", f.default) for f in dataclasses.fields(stage)) == DEFAULTS[stage]
    assert digest(stage()) == digest({})


def test_every_setting_of_effect_changes_the_digest():
    for table in ("masters", "ingest", "register", "normalize", "integrate", "products"):
        stage = getattr(Settings(), table)
        for field in dataclasses.fields(stage):
            needs = {name: of[0] for name, of in field.metadata.get("only", {}).items()}
            able = dataclasses.replace(stage, **needs)
            other = dataclasses.replace(able, **{field.name: "another"})
            assert digest(other) != digest(able), field.name


def test_a_setting_without_effect_stays_out():
    assert digest(Integrate(percentile_low=0.5)) == digest(Integrate())
    assert digest(Integrate(reject="percentile", percentile_low=0.5)) != digest(Integrate(reject="percentile"))
    assert digest(Integrate(reject="none", sigma_low=2.0)) == digest(Integrate(reject="none"))
    assert digest(Ingest(cosmetic=False, hot_sigma=5.0)) == digest(Ingest(cosmetic=False))


def test_values_of_other_types_have_no_digest():
    for value in (object(), {1, 2}, b"bytes", Integrate, 1j):
        with pytest.raises(TypeError):
            digest("key", value)
    assert digest(Path("a")) == digest("a")
    assert digest([1, (2, 3)]) == digest([1, [2, 3]])


def test_a_changed_kernel_changes_the_stages_that_use_it_and_no_other(tmp_path):
    folder = folder_of_the_package(tmp_path)
    stages = ("ingest", "register.match", "normalize.solve", "integrate.chunk", "calibrate.masters")
    before = {stage: code_there(folder, f"lerar_dask.stages.{stage}") for stage in stages}
    kernel = folder / "kernels" / "reject" / "noise_model.py"
    kernel.write_text(kernel.read_text() + "\n# a comment\n\n")
    assert before == {stage: code_there(folder, f"lerar_dask.stages.{stage}") for stage in stages}
    kernel.write_text(kernel.read_text() + "ANOTHER = 1\n")
    after = {stage: code_there(folder, f"lerar_dask.stages.{stage}") for stage in stages}
    assert [stage for stage in stages if before[stage] != after[stage]] == ["integrate.chunk"]


def test_a_kernel_of_a_kernel_counts(tmp_path):
    folder = folder_of_the_package(tmp_path)
    before = code_there(folder, "lerar_dask.stages.ingest")
    kernel = folder / "kernels" / "measure" / "moments.py"  # called by measure/stars, called by measure/sub
    kernel.write_text(kernel.read_text() + "ANOTHER = 1\n")
    assert code_there(folder, "lerar_dask.stages.ingest") != before


def test_the_code_of_every_stage_is_found():
    package = Path(lerar_dask.__file__).parent
    modules = [p for p in (package / "stages").rglob("*.py") if p.name != "__init__.py"]
    names = [f"lerar_dask.{p.relative_to(package).with_suffix('').as_posix().replace('/', '.')}" for p in modules]
    assert len({code_of(name) for name in names}) == len(names) > 15
