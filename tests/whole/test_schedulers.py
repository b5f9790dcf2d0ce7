"""The master from workers elsewhere: a scheduler and workers in processes of their own, plain and with TLS, and lost."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import distributed  # noqa: F401  its defaults before settings are tried on it
import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import LerarError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus, TaskFinished
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate

COMMAND = [sys.executable, "-m", "lerar_dask", "stack"]


@dataclass(frozen=True)
class Site:
    """A scheduler and its workers, each a process."""

    address: str
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]


@contextlib.contextmanager
def site(folder: Path, *, options: tuple[str, ...] = (), n: int = 2) -> Iterator[Site]:
    """Start a scheduler and `n` workers of one thread; they start elsewhere than where the test runs."""
    folder.mkdir()
    file = folder / "scheduler.json"
    dask_ = [sys.executable, "-m", "dask"]
    log = (folder / "log.txt").open("w")
    started: list[subprocess.Popen] = []

    def start(*words: str) -> subprocess.Popen:
        process = subprocess.Popen([*dask_, *words, *options], cwd=folder, stdout=log, stderr=log)
        started.append(process)
        return process

    try:
        where = ("--host", "127.0.0.1", "--scheduler-file", str(file), "--no-dashboard")
        scheduler = start("scheduler", *where[:2], "--port", "0", "--dashboard-address", "127.0.0.1:0", *where[2:])
        own = ("--no-nanny", "--nthreads", "1", "--local-directory", str(folder))
        workers = [start("worker", *where[2:], *own) for _ in range(n)]
        yield Site(_address(file, scheduler), scheduler, workers)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        log.close()


def _address(file: Path, scheduler: subprocess.Popen) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and scheduler.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads(file.read_text())["address"]
        time.sleep(0.05)
    raise AssertionError(f"no scheduler: {(file.parent / 'log.txt').read_text()}")


def run(night: Path, out: Path, *, bus: Bus | None = None, **settings):
    return stack([night], out, Settings.of(**settings), bus=bus or Bus())


def fingerprint(out: Path) -> str:
    (path,) = out.glob("*.fits")
    with fits.open(path) as opened:
        planes = np.stack([np.squeeze(opened[i].data) for i in range(5)])
    return hashlib.sha256(planes.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def wide_night(tmp_path_factory) -> Path:
    """Few subs, several output chunks."""
    folder = tmp_path_factory.mktemp("wide") / "night"
    return simulate(folder, n=4, shape=(520, 900), seed=12, n_darks=2, n_flats=2, n_bias=2)


@pytest.fixture(scope="module")
def wide_stacked(wide_night, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wide") / "out"
    assert run(wide_night, out, report=False).exit_code == 0
    return out


# ----------------------------------------------------------------------------------------------------------------- plain


@pytest.fixture(scope="module")
def plain_site(tmp_path_factory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("plain") / "site") as made:
        yield made


def test_the_same_bits_from_workers_at_an_address(night, stacked, tmp_path, plain_site, monkeypatch):
    """Also with relative paths, which mean nothing where the workers run."""
    monkeypatch.chdir(tmp_path)
    seen = []
    summary = run(
        Path(os.path.relpath(night)), Path("out"), scheduler=plain_site.address, report=False, bus=Bus([seen.append])
    )
    assert summary.exit_code == 0
    assert fingerprint(tmp_path / "out") == fingerprint(stacked)
    assert sum(isinstance(event, TaskFinished) and event.step == "ingest" for event in seen) == 8


def test_a_worker_killed_while_integrating_changes_nothing(wide_night, wide_stacked, tmp_path):
    killed = []

    def kill(event):
        if isinstance(event, TaskFinished) and event.step == "integrate" and not killed:
            killed.append(event.record.key)
            here.workers[0].send_signal(signal.SIGKILL)

    with site(tmp_path / "site") as here:
        summary = run(wide_night, tmp_path / "out", scheduler=here.address, report=False, bus=Bus([kill]))
        assert killed
        assert here.workers[0].wait(5) == -signal.SIGKILL
        assert here.workers[1].poll() is None
    assert (summary.exit_code, summary.n_failed) == (0, 0)
    assert fingerprint(tmp_path / "out") == fingerprint(wide_stacked)
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_scheduler_that_goes_away_is_one_line_and_the_run_goes_on_later(wide_night, wide_stacked, tmp_path, caplog):
    done = []

    def end(event):
        if isinstance(event, TaskFinished) and event.step == "ingest":
            done.append(event.record.key)
            here.scheduler.send_signal(signal.SIGKILL)

    out = tmp_path / "out"
    with site(tmp_path / "site") as here:
        start = time.monotonic()
        with pytest.raises(LerarError, match="is gone"):
            run(wide_night, out, scheduler=here.address, report=False, bus=Bus([end]))
        assert time.monotonic() - start < 20
    assert not [record.message for record in caplog.records if record.name.startswith("distributed")]
    again = []
    assert run(wide_night, out, report=False, bus=Bus([again.append])).exit_code == 0
    assert not {e.record.key for e in again if isinstance(e, TaskFinished)} & set(done)
    assert fingerprint(out) == fingerprint(wide_stacked)


def test_nobody_at_the_address(night, tmp_path):
    done = _stack(night, tmp_path / "out", "tcp://127.0.0.1:9", {})
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("lerar: no dask scheduler answers at tcp://127.0.0.1:9")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("seconds", [3.0, 5.0])
def test_interrupted_processes_say_one_line(night, stacked, tmp_path, seconds):
    out = tmp_path / "out"
    line = [*COMMAND, str(night), "-o", str(out), "-q", "--scheduler", "processes"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
    start = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - start < 4
    if process.returncode != 0:
        assert process.returncode == 130
        assert said.split("\n") == ["", "lerar: stopped; the same command goes on from here", ""]
    assert run(night, out, report=False).exit_code == 0
    assert fingerprint(out) == fingerprint(stacked)


# ------------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, Path]:
    """Two authorities, ours and a foreign one, with a certificate of each."""
    folder = tmp_path_factory.mktemp("certificates")
    return {name: _certificate(folder, name) for name in ("ours", "foreign")}


@pytest.fixture(scope="module")
def secret_site(tmp_path_factory, certificates) -> Iterator[Site]:
    ours = certificates["ours"]
    files = {"--tls-ca-file": "ca.pem", "--tls-cert": "cert.pem", "--tls-key": "key.pem"}
    options = tuple(word for flag, name in files.items() for word in (flag, str(ours / name)))
    with site(tmp_path_factory.mktemp("secret") / "site", options=("--protocol", "tls", *options)) as made:
        yield made


def test_the_same_bits_through_tls(night, stacked, tmp_path, secret_site, certificates):
    assert secret_site.address.startswith("tls://")
    with dask.config.set(_tls(certificates["ours"])):
        summary = run(night, tmp_path / "out", scheduler=secret_site.address, report=False)
    assert summary.exit_code == 0
    assert fingerprint(tmp_path / "out") == fingerprint(stacked)


@pytest.mark.parametrize("which", ["none", "foreign", "plain address"])
def test_without_the_right_certificate_nothing_goes(night, tmp_path, secret_site, certificates, which):
    address = secret_site.address
    variables = {}
    if which == "foreign":
        variables = {
            "DASK_" + word.upper().replace(".", "__").replace("-", "_"): value
            for word, value in _tls(certificates["foreign"]).items()
        }
    if which == "plain address":
        address = address.replace("tls://", "tcp://")
    start = time.monotonic()
    done = _stack(night, tmp_path / "out", address, variables)
    assert time.monotonic() - start < 20
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("lerar: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    assert {"none": "certificates", "foreign": "certificate", "plain address": "no dask scheduler"}[which] in lines[0]


def _stack(night: Path, out: Path, address: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    command = [*COMMAND, str(night), "-o", str(out), "--scheduler", address]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _tls(folder: Path) -> dict[str, str]:
    files = {"ca-file": "ca.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    return {f"distributed.comm.tls.{word}": str(folder / name) for word, name in files.items()}


def _certificate(folder: Path, name: str) -> Path:
    """An authority and a certificate signed by it, in a folder."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    at = folder / name
    at.mkdir()
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def signed(subject: str, key, issuer: str, by, *, authority: bool):
        builder = x509.CertificateBuilder(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]),
            key.public_key(), x509.random_serial_number(), start, start + datetime.timedelta(days=30),
        )  # fmt: skip
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (at / "ca.pem").write_bytes(signed(f"{name} root", root, f"{name} root", root, authority=True))
    (at / "cert.pem").write_bytes(signed(name, own, f"{name} root", root, authority=False))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (at / "key.pem").write_bytes(own.private_bytes(serialization.Encoding.PEM, *plain))
    return at
