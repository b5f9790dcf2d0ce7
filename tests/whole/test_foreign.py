"""A store or an OUT that somebody else has made is data: it chooses neither what is called nor what is written to."""

from __future__ import annotations

import shutil

import pytest

from lerar_dask.errors import LerarError, StoreError
from lerar_dask.replay import known_names, steps_of
from lerar_dask.run import Run
from lerar_dask.store.access import Store
from lerar_dask.store.document import read_document, write_document
from tests.conftest import run
from tests.store.places import local


@pytest.fixture
def foreign(stacked, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    return out


def steps_in(out):
    return read_document(local(out / "store.zarr" / "steps.json"))


def test_every_task_of_a_run_is_in_the_table(stacked):
    names = {task["function"] for step in steps_in(stacked) for task in step["tasks"]}
    assert len(names) > 8
    assert names <= set(known_names())
    assert steps_of(Store.open(stacked / "store.zarr"))


def test_the_store_that_was_opened_is_the_one_that_is_written(foreign, tmp_path):
    steps = steps_in(foreign)
    for step in steps:
        for task in step["tasks"]:
            if "store_url" in task["arguments"]:
                task["arguments"]["store_url"] = str(tmp_path / "elsewhere")
    write_document(local(foreign / "store.zarr" / "steps.json"), steps)
    run_ = Run.open(foreign)
    (name,) = run_.groups
    run_.graph(name).compute(scheduler="threads")
    assert not (tmp_path / "elsewhere").exists()


def test_a_foreign_function_is_not_called(foreign, tmp_path):
    steps = steps_in(foreign)
    steps[-1]["tasks"][0] |= {"function": "lerar_dask.pipeline.calibrate:write_file"}
    write_document(local(foreign / "store.zarr" / "steps.json"), steps)
    run_ = Run.open(foreign)
    with pytest.raises(StoreError, match=r"not what lerar writes"):
        run_.graph(run_.groups[0])


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '[{"name": 1}]', '"x"', "null", "[[]]"])
def test_steps_of_another_form_are_one_line(foreign, text):
    (foreign / "store.zarr" / "steps.json").write_text(text)
    run_ = Run.open(foreign)
    with pytest.raises(LerarError):
        run_.graph(run_.groups[0])


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "calibration/../../x", "a\0b"])
def test_no_name_leads_out_of_a_store(foreign, path):
    store = Store.open(foreign / "store.zarr")
    for touch in (store.has, store.read_array, store.delete, store.read_json, store.attributes):
        with pytest.raises(StoreError, match="outside of itself"):
            touch(path)
    if ".." in path:
        with pytest.raises(StoreError, match="outside of itself"):
            store.measures("../" + path, "k")
        with pytest.raises(StoreError, match="outside of itself"):
            store.raw(path)


@pytest.mark.parametrize("name", ["store.zarr/lock", "lerar.toml", "report.html", "lerar.log"])
def test_no_symbolic_link_is_followed_when_writing(night, foreign, tmp_path, name, capsys):
    from lerar_dask.cli.app import run as lerar

    precious = tmp_path / "precious"
    precious.write_text("mine")
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(precious)
    code = lerar(["stack", str(night), "-o", str(foreign), "--sigma-low", "3.5", "--quiet"])
    assert precious.read_text() == "mine"
    if name == "store.zarr/lock":
        assert code == 1
        assert "symbolic link" in capsys.readouterr().err
    else:
        assert code == 0


def test_a_run_of_ones_own_goes_on(night, foreign):
    assert run(night, foreign).exit_code == 0
