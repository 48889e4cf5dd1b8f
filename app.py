"""The composition root: settings, then the manager, then the two doors, then the server. Nothing else."""

import ctypes
import gc
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from millm.errors import StartupError
from millm.settings import Settings, read_settings

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn

    from millm.engines.base import Engine, LoadOptions
    from millm.engines.ray import Cluster
    from millm.events import Report
    from millm.manager import Manager
    from millm.records import ModelRecord
    from millm.remote_client import Servers

log = logging.getLogger("millm")

GUIDE = Path(__file__).resolve().parent / "models" / "millm-guide"

GRACE_S = 2  # seconds that open connections, and then each kind of running work, get at the end
END_S = 6  # seconds that the end of all work may take
LOOK_S = 5  # seconds between two looks at how this process does

M_ARENA_MAX = -8  # of glibc's malloc.h

# Libraries read these once, while they are imported. What the person set stays.
LIBRARY_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "20000",  # OpenMP threads that spin for ever collapse as soon as a core is shared
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages for weights
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",  # else a table of all past events is rebuilt on each event
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
}
OF_REPLICAS = {  # what these processes read of it; a node may have to fetch the model
    **{name: value for name, value in LIBRARY_ENVIRONMENT.items() if not name.startswith("GRADIO_")},
    "HF_HUB_OFFLINE": "0",
}


def main() -> int:
    """Runs miLLM until it is told to stop; returns the exit code of a start that failed."""
    try:
        run(read_settings(sys.argv[1:], os.environ))
    except StartupError as error:
        sys.stderr.write(f"miLLM cannot start: {error.message}\n")
        return 2


def run(settings: Settings) -> NoReturn:
    """Opens the port and the cache directory, serves until told to stop, cleans up and ends the process.

    Raises:
        StartupError: one of them cannot be had.
    """
    from millm.jobs import Lane
    from millm.logs import set_up_logging

    set_up_logging(settings.log_level, settings.log_format)
    use_one_arena()
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    listener = listen(settings.host, settings.port)
    manager = make_manager(settings)
    key = settings.api_key or make_key(settings)
    server = make_server(settings, manager, key)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # uvicorn raises them again after its own clean end
    announce(settings, key)
    server.run(sockets=[listener])
    if not Lane("closing").submit(lambda _: manager.close(GRACE_S)).wait(END_S):
        log.warning("some work did not stop in time")
    log.info("stopped")
    logging.shutdown()
    os._exit(0)  # a thread that still waits for an answer of the hub would hold up the end by seconds


def use_one_arena() -> None:
    """Keeps glibc from giving each thread a heap of its own: what a load frees there could never be given back.

    Works only before the first thread; measured at 10 to 45 MB for each load that converts weights.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_ARENA_MAX, 1)


def listen(host: str, port: int) -> socket.socket:
    """Takes the port before anything slow begins.

    Raises:
        StartupError: it is in use, or the address is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        raise StartupError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another --port."
        ) from error
    return listener


def make_manager(settings: Settings) -> "Manager":
    """Opens the cache directory and puts the parts together.

    Raises:
        StartupError: the directory cannot be written or is in use, or Ray is asked for and missing.
    """
    from millm.devices import list_devices
    from millm.engines.ray import cluster_of
    from millm.estimate import Estimator
    from millm.manager import Manager
    from millm.quantizing import quantize
    from millm.records import Source
    from millm.registry import Registry
    from millm.remote_client import Servers
    from millm.sources.huggingface import HuggingFace
    from millm.sources.local import Local
    from millm.sources.ollama import Ollama
    from millm.sources.remote import Remote
    from millm.sources.url import Url
    from millm.store import Store

    cluster = cluster_of(settings, OF_REPLICAS)
    store = Store(settings.model_cache_dir)
    store.open()
    try:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(private_folder(store.root / ".page")))
        registry = Registry(store.registry_path, store.published)
    except OSError as error:
        raise StartupError(f"Cannot use the cache directory {store.root}: {error}.") from error
    hub = HuggingFace(settings.hf_endpoint)
    servers = Servers(allow_private=not settings.spaces)  # elsewhere strangers need a key
    return Manager(
        registry,
        store,
        fetchers={
            Source.HUGGINGFACE: hub,
            Source.LOCAL: Local(),
            Source.URL: Url(allow_private=settings.loopback),
            Source.OLLAMA: Ollama(settings.ollama_host),
            Source.REMOTE: Remote(servers),
        },
        opener=partial(open_model, ollama_host=settings.ollama_host, servers=servers, cluster=cluster),
        devices=list_devices,
        token=settings.hf_token,
        hub=hub.endpoint,
        guide=GUIDE if GUIDE.is_dir() else None,
        estimator=Estimator(),
        quantizer=quantize,
        processes=cluster.most if cluster else 1,
    )


def private_folder(path: Path) -> Path:
    """A folder that only this user can read."""
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def open_model(
    record: "ModelRecord",
    options: "LoadOptions",
    report: "Report",
    *,
    ollama_host: str,
    servers: "Servers",
    cluster: "Cluster | None" = None,
) -> "Engine":
    """The opener of the manager. torch is imported when the first model is opened, or in the background before."""
    if record.source == "ollama":
        from millm.engines.ollama import open_ollama

        return open_ollama(record, options, report, ollama_host)
    if record.source == "remote":
        from millm.engines.remote import open_remote

        return open_remote(record, options, report, servers)
    if cluster:
        from millm.engines.ray import open_ray

        return open_ray(record, options, report, cluster)
    from millm.engines.loader import open_model as open_with_torch

    return open_with_torch(record, options, report)


def make_key(settings: Settings) -> str | None:
    """A random key where others can connect and none was set; on Spaces the platform decides who may."""
    return None if settings.loopback or settings.spaces else secrets.token_urlsafe(24)


def with_key(settings: Settings, key: str | None) -> Settings:
    """The settings as they are in force: with the key that was made."""
    if not key or settings.api_key:
        return settings
    return replace(settings, api_key=key, given_by={**settings.given_by, "api_key": "made at this start"})


def make_server(settings: Settings, manager: "Manager", key: str | None) -> "uvicorn.Server":
    """The HTTP server with the API and, mounted behind it, the page."""
    import uvicorn

    from millm import ui
    from millm.api import GuardPolicy, create_app
    from millm.jobs import Lane

    background = Lane("background")

    async def look() -> None:
        background.submit(lambda _: manager.system())  # which remembers it, also while no page is open

    class Server(uvicorn.Server):
        """Begins what can wait once the page can be had, and ends the event streams before it waits for readers."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            background.submit(lambda _: begin(settings, manager))

        def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
            manager.feed.close()
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            background.close(GRACE_S)

    policy = replace(GuardPolicy.of(settings), api_key=key)
    app = ui.mount(create_app(manager, policy), manager, with_key(settings, key))
    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            callback_notify=look,
            timeout_notify=LOOK_S,
        )
    )


def begin(settings: Settings, manager: "Manager") -> None:
    """What is done once the page can be had: the model to start with, and the imports that take seconds."""
    if settings.auto_load_model:
        manager.auto_load(settings.auto_load_model)
    try:
        if settings.engine == "local":  # elsewhere the replicas import torch
            importlib.import_module("millm.engines.loader")
    except ImportError as error:
        log.error("models cannot be loaded: %s", error)
    gc.collect()
    gc.freeze()  # two million objects of imports, which each unload would look at anew for a quarter of a second


def announce(settings: Settings, key: str | None) -> None:
    """Says where miLLM is to be found, and with which key when it made one."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    place = "localhost" if settings.loopback or settings.host in ("0.0.0.0", "::") else host
    log.info("miLLM is starting at http://%s:%d (API: /v1, docs: /docs)", place, settings.port)
    if key and not settings.api_key:
        sys.stderr.write(f"Others can reach this address, so miLLM asks for a key: {key}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
