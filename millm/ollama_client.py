"""The way to an Ollama server, for the source that pulls models and the engine that runs them."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from millm.errors import MiLLMError, OllamaUnavailable
from millm.loops import in_own_loop

if TYPE_CHECKING:  # importing it takes a quarter of a second and reads OLLAMA_HOST, so it waits for its first use
    import ssl

    import ollama

T = TypeVar("T")
Failed = Callable[[int, str], MiLLMError]
"""The error for what Ollama says itself: with which status, in which words."""

CONNECT_S = 5.0
NO_PROXY = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}


class OllamaClient:
    """The official client for the server at `host` ("http://127.0.0.1:11434"), asked from any thread.

    connect_s: seconds to reach it.
    """

    def __init__(self, host: str, connect_s: float = CONNECT_S) -> None:
        self._host = host
        self._connect_s = connect_s

    def run(self, work: "Callable[[ollama.AsyncClient], Coroutine[Any, Any, T]]", failed: Failed) -> T:
        """Runs work with a client of its own, in a loop of its own: many threads may do so at once.

        Raises:
            OllamaUnavailable: the server does not answer.
            MiLLMError: what `failed` makes of the server's own words.
        """

        async def run() -> T:
            async with self._client() as client:
                return await work(client)

        with self._translated(failed):
            return in_own_loop(run())

    @cached_property
    def _tls(self) -> "ssl.SSLContext":
        import httpx

        return httpx.create_ssl_context()  # takes 40 ms, so it is made once

    def _client(self) -> "ollama.AsyncClient":
        import httpx
        import ollama

        wait = httpx.Timeout(None, connect=self._connect_s)
        return ollama.AsyncClient(self._host, timeout=wait, verify=self._tls, mounts=NO_PROXY)

    @contextmanager
    def _translated(self, failed: Failed) -> Iterator[None]:
        where = self._host.rpartition("@")[2]  # without a password that stands in front
        start = "Start it with `ollama serve`, or set OLLAMA_HOST."
        away = OllamaUnavailable(f"Ollama does not answer at {where}. {start}", host=where)
        try:
            import httpx
            import ollama
        except ValueError as error:  # OLLAMA_HOST is no address
            raise away from error
        try:
            yield
        except (OSError, ValueError, httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            raise away from error
        except ollama.ResponseError as error:
            raise failed(error.status_code, str(error.error).strip().rstrip(".")) from error
        except httpx.HTTPError as error:
            raise OllamaUnavailable(f"The connection to Ollama at {where} was lost.", host=where) from error
