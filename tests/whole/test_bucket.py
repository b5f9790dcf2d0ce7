"""A store in a bucket: the same bits, through killed runs, a server that dies, and damage; credentials stay where they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from astropy.io.fits import getheader

from lerar_dask.errors import LockedError, StoreError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.store.access import Store
from lerar_dask.store.storage import open_storage
from tests.store.buckets import CREDENTIALS, bucket_server, use_server
from tests.whole.test_schedulers import fingerprint

COMMAND = [sys.executable, "-m", "lerar_dask"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with bucket_server("moto", tmp_path_factory.mktemp("moto")) as (endpoint, _):
        yield endpoint


@pytest.fixture
def url(server, monkeypatch):
    use_server(monkeypatch, server)
    return f"s3://nights/{uuid.uuid4().hex}/store.zarr"


def settings(url, **more):
    return Settings.of(store=url, report=False, **more)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_the_same_bits(small_night, small_bits, url, tmp_path, codec):
    summary = stack([small_night], tmp_path / "out", settings(url, codec=codec), bus=Bus())
    assert summary.exit_code == 0
    assert fingerprint(tmp_path / "out") == small_bits
    assert stack([small_night], tmp_path / "out", settings(url, codec=codec), bus=Bus()).did_nothing
    assert not (tmp_path / "out" / "store.zarr").exists()


def test_from_processes_and_nothing_secret_is_written(small_night, small_bits, url, tmp_path):
    out = tmp_path / "out"
    command = [*COMMAND, "stack", str(small_night), "-o", str(out), "--store", url, "--scheduler", "processes"]
    done = subprocess.run([*command, "--threads", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert fingerprint(out) == small_bits
    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    assert secret not in done.stdout + done.stderr
    texts = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    texts += [place.get() for place in Store.open(url).root.walk() if place.path.endswith((".json", ".jsonl"))]
    assert not any(secret.encode() in text for text in texts)


def test_a_killed_run_goes_on(small_night, small_bits, url, tmp_path):
    out = tmp_path / "out"
    command = [*COMMAND, "stack", str(small_night), "-o", str(out), "--store", url, "--threads", "1"]
    for step in ("ingest", "integrate"):
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout:
            if f'"{step}/' in line:
                break
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            stack([small_night], out, settings(url), bus=Bus())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert stack([small_night], out, settings(url), bus=Bus()).exit_code == 0
    assert fingerprint(out) == small_bits


def test_a_server_that_dies(small_night, small_bits, tmp_path, monkeypatch):
    out, url = tmp_path / "out", "s3://nights/n/store.zarr"
    with bucket_server("localbucket", tmp_path / "bucket") as (endpoint, server):
        use_server(monkeypatch, endpoint)
        command = [*COMMAND, "stack", str(small_night), "-o", str(out), "--store", url, "--threads", "1", "--json"]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in run.stdout:
            if '"ingest/' in line:
                break
        server.kill()
        said = run.communicate(timeout=300)[1]
    assert run.returncode == 1
    assert "Traceback" not in said
    assert "s3://nights" in said or "127.0.0.1" in said
    with bucket_server("localbucket", tmp_path / "bucket") as (endpoint, _):
        use_server(monkeypatch, endpoint)
        assert stack([small_night], out, settings(url), bus=Bus()).exit_code == 0
    assert fingerprint(out) == small_bits


def test_damage_in_a_bucket_is_made_again(small_night, small_bits, url, tmp_path):
    out = tmp_path / "out"
    stack([small_night], out, settings(url), bus=Bus())
    root = Store.open(url).root
    chunk = next(place for place in root.walk() if "/pixels/c/" in place.path)
    data = bytearray(chunk.get())
    data[1000] ^= 1
    chunk.put(bytes(data))
    part = next(place for place in root.walk() if place.path.startswith("master/") and "/c/" in place.path)
    part.put(part.get()[:-1])
    lost = next(place for place in root.walk() if place.path.startswith("measures/") and "/blocks/c/" in place.path)
    root.storage.delete(lost.path)
    found = subprocess.run([*COMMAND, "check", str(out), "--deep"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "pixels/c" in found.stdout
    assert stack([small_night], out, settings(url), bus=Bus()).exit_code == 0
    assert fingerprint(out) == small_bits


def test_no_server_no_bucket_no_key(small_night, url, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="nobody-made-this"):
        stack([small_night], tmp_path / "a", settings("s3://nobody-made-this/store.zarr"), bus=Bus())
    monkeypatch.setattr("lerar_dask.store.bucket_storage._RETRY_S", 1)
    use_server(monkeypatch, "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        stack([small_night], tmp_path / "b", settings(url), bus=Bus())
    assert time.monotonic() - started < 60


def test_the_plan_tells_the_requests(small_night, url, tmp_path):
    command = [*COMMAND, "stack", str(small_night), "-o", str(tmp_path / "out"), "--dry-run"]
    told = subprocess.run([*command, "--store", url], capture_output=True, text=True, check=True, env=os.environ).stdout
    assert "requests" in told
    assert "requests" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_so_many_requests_are_made_as_were_told(small_night, url, tmp_path, monkeypatch):
    import obstore

    made = []
    for name in ("get", "put", "head", "list", "list_with_delimiter", "delete"):
        plain = getattr(obstore, name)
        monkeypatch.setattr(obstore, name, lambda *a, _plain=plain, **k: made.append(1) or _plain(*a, **k))
    told = stack([small_night], tmp_path / "out", settings(url), bus=Bus(), dry_run=True).requests
    made.clear()
    stack([small_night], tmp_path / "out", settings(url), bus=Bus())
    assert 0.7 < told / len(made) < 1.4, (told, len(made))


def test_pixels_of_a_master_from_a_bucket(small_night, url, tmp_path):
    import lerar_dask

    out = tmp_path / "out"
    stack([small_night], out, settings(url), bus=Bus())
    for where in (out, url):
        run = lerar_dask.open(where)
        (group,) = run.groups
        part = run.master(group)[0, 0, 10:20, 10:20].compute()
        assert np.isfinite(part).all()
        np.testing.assert_array_equal(part, Store.open(url).master(run.state.groups[group].master)[0, 0, 10:20, 10:20])


def upload(folder, url):
    storage = open_storage(url)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.put(str(path.relative_to(folder)), path.read_bytes())
    return storage


def test_raw_frames_in_a_bucket(small_night, small_bits, url, tmp_path):
    night, out = f"{url.removesuffix('/store.zarr')}/night", tmp_path / "out"
    storage = upload(small_night, night)
    command = [*COMMAND, "stack", night, "-o", str(out), "--store", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert fingerprint(out) == small_bits
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to do" in again.stdout + again.stderr
    kept = [p for p in (out / "frames").rglob("*.fits") if str(getheader(p)["IMAGETYP"]).lower().startswith("light")]
    light = sorted(kept)[4]
    name = next(p for p in storage.entries() if p.endswith(light.name))
    storage.delete(name)
    light.unlink()
    gone = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 of" in gone.stdout or "aside" in gone.stdout
    assert fingerprint(out) != small_bits


def test_no_frames_in_a_bucket(url, tmp_path, capsys):
    for where, words in ((f"{url}/nothing", "nothing in it"), ("s3://nobody-made-this/night", "cannot be read")):
        done = subprocess.run(
            [*COMMAND, "stack", where, "-o", str(tmp_path / "o")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
