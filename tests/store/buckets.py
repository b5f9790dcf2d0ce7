"""Servers that speak S3, on loopback, for the time of a test run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lerar_dask.store import bucket_storage

__all__ = ["CREDENTIALS", "bucket_server", "use_server"]

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "lerar",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody",
    "AWS_REGION": "us-east-1",
}


def use_server(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the environment name a server, as a user's does."""
    for word, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(word, value)
    bucket_storage._bucket_of.cache_clear()  # an environment is read once


@contextlib.contextmanager
def bucket_server(kind: str, folder: Path, *, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server with the bucket `nights`; its endpoint and process."""
    port = port or _free_port()
    commands = {
        "moto": [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        "localbucket": [str(Path(sys.executable).with_name("localbucket")), "--port", str(port), str(folder)],
    }
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        commands[kind], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS}
    )
    try:
        _wait_for(endpoint, process)
        with contextlib.suppress(urllib.error.HTTPError):  # the bucket is there
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/nights", method="PUT"))
        yield endpoint, process
    finally:
        process.kill()
        process.wait()


def _wait_for(endpoint: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
