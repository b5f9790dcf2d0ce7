"""Other processes run the program that starts them, wherever that is."""

from __future__ import annotations

import site
import subprocess
from pathlib import Path

import lerar_dask
from lerar_dask.runtime.own_program import environment, python_path, python_words


def test_an_installed_program_is_found_as_it_is(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "a:b")
    assert python_path(Path(site.getsitepackages()[0])) == "a:b"
    monkeypatch.delenv("PYTHONPATH")
    assert python_path(Path(site.getsitepackages()[0])) == ""


def test_a_clone_is_found_before_all_others(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "a:b")
    assert python_path(Path("/a clone")) == "/a clone:a:b"
    monkeypatch.delenv("PYTHONPATH")
    assert python_path(Path("/a clone")) == "/a clone"


def test_called_in_a_clone_s_folder_the_text_of_this_program_runs(tmp_path):
    other = tmp_path / "lerar_dask"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('another program text')")
    (other / "__main__.py").touch()
    words = [*python_words("lerar_dask"), "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-1]) == (0, lerar_dask.__version__), done.stderr
