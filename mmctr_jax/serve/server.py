"""The processes that serve: uvicorn on `http.Service`, and what signals do to them."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from mmctr_jax.errors import InputError
from mmctr_jax.serve.http import Limits, Service, access_log
from mmctr_jax.serve.scorer import MANIFEST, Scorer

log = logging.getLogger("mmctr_jax")
_DRAIN_SECONDS = 20


@dataclass(frozen=True)
class Options:
    """Of `serve`."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 8000
    name: str = "mmctr"
    unknown: str = "refuse"
    threads: int | None = None
    limits: Limits = Limits()
    watch_seconds: float = 1.0
    workers: int = 1
    access_log: bool = True
    example: dict[str, Any] = field(default_factory=dict)


class _Server(uvicorn.Server):
    """Tells health checks that it drains before it stops taking connections; reloads on SIGHUP and on a new export."""

    def __init__(self, config: uvicorn.Config, service: Service, options: Options):
        super().__init__(config)
        self._service, self._options = service, options

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        manifest, seen = self._options.directory / MANIFEST, _state(self._options.directory / MANIFEST)
        hangup = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # of a scheduler that is about to end it
            loop.add_signal_handler(number, setattr, self, "should_exit", True)
        while True:
            await asyncio.sleep(self._options.watch_seconds)
            now = _state(manifest)
            if (now is not None and now != seen) or hangup.is_set():
                seen = now
                hangup.clear()
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._service.reload)
                    log.info(f"Loaded {self._options.directory} anew: step {self._service.scorer.manifest['step']:,}.")
                except Exception as error:  # whatever it is: the next export must be seen, too
                    log.error(f"The new export cannot be served, so the old one still is: {error}")

    async def shutdown(self, sockets: Any = None) -> None:
        self._service.ready = False
        self._watching.cancel()
        await super().shutdown(sockets)


def _state(manifest: Path) -> tuple | None:
    try:
        status = manifest.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
    except OSError:
        return None


def serve(options: Options) -> None:
    """Serves until SIGTERM or SIGINT, which let the requests at work finish.

    Raises: InputError if the export cannot be loaded, or the address cannot be bound.
    """
    Scorer(options.directory, options.threads, options.unknown)  # what is wrong with it is said once, and here
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        bound = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"{options.host}, port {options.port}, cannot be bound ({error.strerror or error}); "
            "name another --host or --port."
        ) from None
    with bound:
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{bound.getsockname()[1]}"
        log.info(f"Serving {options.directory} at {address}; Ctrl+C stops it.")
        try:
            if options.workers == 1:
                _work(options, bound)
            else:
                _supervise(options, bound)
        except KeyboardInterrupt:  # uvicorn raises the signal again that it has ended for
            pass
    log.info("Stopped.")


def _work(options: Options, bound: socket.socket) -> None:
    def load() -> Scorer:
        return Scorer(options.directory, options.threads, options.unknown)

    service = Service(load, options.name, options.limits)
    service.example = options.example
    access_log.disabled = not options.access_log
    config = uvicorn.Config(
        service,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        lifespan="on",
    )
    _Server(config, service, options).run(sockets=[bound])


def _work_alone(options: Options, bound: socket.socket) -> None:
    """A worker's process."""
    from mmctr_jax.console import start_logging

    start_logging()
    try:
        _work(options, bound)
    except (KeyboardInterrupt, InputError) as error:
        if isinstance(error, InputError):
            log.error(f"{error}")


def _supervise(options: Options, bound: socket.socket) -> None:
    """Keeps as many workers at work as are asked for; they share the socket, and their metrics by files."""
    spawn = multiprocessing.get_context("spawn")

    def start() -> Any:
        worker = spawn.Process(target=_work_alone, args=(options, bound))
        worker.start()
        return worker

    with tempfile.TemporaryDirectory(prefix="mmctr_metrics_") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        workers = [start() for _ in range(options.workers)]

        def reload(*_) -> None:
            for worker in workers:
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGHUP)

        signal.signal(signal.SIGHUP, reload)
        try:
            while True:
                time.sleep(0.5)
                for i, worker in enumerate(workers):
                    if not worker.is_alive():
                        log.error(f"A worker ended (exit code {worker.exitcode}); another takes its place.")
                        workers[i] = start()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(_DRAIN_SECONDS + 5)
