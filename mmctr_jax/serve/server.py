"""The process that serves: uvicorn on `http.Service`, and what signals do to it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from mmctr_jax.errors import InputError
from mmctr_jax.serve.http import Limits, Service
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


class _Server(uvicorn.Server):
    """Tells health checks that it drains before it stops taking connections; reloads on SIGHUP and on a new export."""

    def __init__(self, config: uvicorn.Config, service: Service, options: Options):
        super().__init__(config)
        self._service, self._options = service, options

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._watching = asyncio.create_task(self._watch())
            for server in self.servers:
                for socket in server.sockets:
                    host, port = socket.getsockname()[:2]
                    log.info(f"Serving {self._options.directory} at http://{host}:{port}; Ctrl+C stops it.")

    async def _watch(self) -> None:
        manifest, seen = self._options.directory / MANIFEST, _state(self._options.directory / MANIFEST)
        hangup = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        while True:
            await asyncio.sleep(self._options.watch_seconds)
            now = _state(manifest)
            if (now is not None and now != seen) or hangup.is_set():
                seen = now
                hangup.clear()
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._service.reload)
                    log.info(f"Loaded {self._options.directory} anew: step {self._service.scorer.manifest['step']:,}.")
                except InputError as error:
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


def serve(options: Options, example: Callable[[Scorer], dict[str, Any]] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, which let the requests at work finish.

    Raises: InputError if the export cannot be loaded, or the address cannot be bound.
    """

    def load() -> Scorer:
        return Scorer(options.directory, options.threads, options.unknown)

    service = Service(load, options.name, options.limits)
    if example is not None:
        service.example = example(service.scorer)
    config = uvicorn.Config(
        service,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        lifespan="on",
    )
    server = _Server(config, service, options)
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn raises the signal again that it has ended for
        log.info("Stopped, with every request answered.")
    except SystemExit:
        raise InputError(
            f"http://{options.host}:{options.port} cannot be bound; name another --host or --port."
        ) from None
