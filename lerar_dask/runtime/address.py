"""A scheduler at an address and its workers, before work is given to them: who answers, which version, what they see.

What is wrong there (nobody answers, certificates, no workers, another disk) is one line within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from lerar_dask.errors import LerarError, UsageError

__all__ = ["check_reachable", "check_shared", "client_of", "workers_of"]

CONNECT_S = 5.0
"""How long an address may take to answer."""
WORKERS_S = 30.0
"""How long to wait for the first worker of a scheduler that has none yet."""


def check_reachable(address: str) -> None:
    """Find out whether a scheduler answers; a client of dask would wait long and go without a word."""
    from distributed.comm import parse_address
    from distributed.comm.registry import backends

    scheme = parse_address(address)[0]
    if scheme not in backends:
        raise UsageError(f"no scheduler can be reached by {scheme}://", "threads, processes, tcp://host:port or tls://")
    with ThreadPoolExecutor(1) as pool:  # a thread of its own: the caller may have a running event loop
        pool.submit(lambda: asyncio.run(_identify(address, _certificates(address)))).result()


def _certificates(address: str) -> dict[str, Any]:
    """What a connection needs, from dask's own configuration."""
    from distributed import Security

    hint = "name ca-file, client.cert and client.key in dask's configuration or as DASK_DISTRIBUTED__COMM__TLS__..."
    try:
        arguments = Security().get_connection_args("client")
    except (OSError, ValueError) as error:
        raise LerarError(f"the certificates for {address} cannot be read: {_short(error)}", hint) from error
    if address.startswith("tls://") and arguments["ssl_context"] is None:
        raise LerarError(f"{address} needs certificates, and none are configured", hint)
    return arguments


async def _identify(address: str, arguments: dict[str, Any]) -> None:
    """Ask who is there; raises unless it is a scheduler."""
    from distributed.comm import connect
    from distributed.core import send_recv

    try:
        async with asyncio.timeout(CONNECT_S + 2.0):
            comm = await connect(address, timeout=CONNECT_S, **arguments)
            told = await send_recv(comm, op="identity", close=True)
    except Exception as error:
        # Whatever answers there may send anything: all of it means the same to the user.
        raise LerarError(
            f"no dask scheduler answers at {address} ({_short(error)})", "is it running, and is the address right?"
        ) from error
    if not (isinstance(told, dict) and told.get("type") == "Scheduler"):
        raise LerarError(f"what answers at {address} is no dask scheduler", "give the scheduler's address")


def client_of(where: Any, words: str) -> Any:
    """A client of a scheduler; `words` say where it is, for messages."""
    from distributed import Client

    try:
        return Client(where, timeout="20s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise LerarError(f"the dask scheduler {words} does not answer ({_short(error)})") from error


def workers_of(client: Any, address: str) -> Mapping[str, Mapping[str, Any]]:
    """Workers of a scheduler, as it tells of them; they must run this very version."""
    here = _version()
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError as error:
        raise LerarError(f"the scheduler at {address} has no workers", f"start some: dask worker {address}") from error
    for name, version in client.run(_version, on_error="return").items():
        if isinstance(version, BaseException):
            raise LerarError(
                f"the worker {name} cannot run lerar ({_short(version)})", "install the same lerar where workers run"
            )
        if version != here:
            raise LerarError(f"the worker {name} has lerar {version}, here is {here}", "install one version everywhere")
    return client.scheduler_info(n_workers=-1)["workers"]


def check_shared(client: Any, out: Path, others: Sequence[Path]) -> None:
    """Make sure that workers see the folder of the results as this process does, and other paths at all.

    Raises
    ------
    LerarError
        with the first that one does not.
    """
    out.mkdir(parents=True, exist_ok=True)
    token = out / f".seen-{uuid.uuid4().hex}"
    token.touch()
    paths = [str(path) for path in (token, *others)]
    try:
        seen = client.run(_are_there, paths, on_error="return")
    finally:
        token.unlink(missing_ok=True)
    for name, found in seen.items():
        if isinstance(found, BaseException):
            raise LerarError(f"the worker {name} does not answer ({_short(found)})")
        for path, is_there in zip((out, *others), found, strict=True):
            if not is_there:
                raise LerarError(
                    f"the worker {name} does not see {path}, or another folder under that path",
                    "put it where all nodes see it under the same path",
                )


def _are_there(paths: list[str]) -> list[bool]:
    """Which of some paths are there; folders are looked into first, as network disks show new files late."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            os.listdir(os.path.dirname(path))
        found.append(os.path.exists(path))
    return found


def _version() -> str:
    return metadata.version("lerar-dask")


def _short(error: BaseException) -> str:
    """Why something failed, in the words of the innermost cause that has some."""
    words = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        text = getattr(cause, "strerror", None) or str(cause)
        if text and not isinstance(cause, TimeoutError | asyncio.CancelledError):
            words = text.splitlines()[0][:160]
        cause = cause.__cause__
    return words
