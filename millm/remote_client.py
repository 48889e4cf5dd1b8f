"""The way to OpenAI-compatible servers, for the source that attaches their models and the engine that asks them."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from millm.errors import InvalidRequest, InvalidUrl, MiLLMError, RemoteUnavailable
from millm.loops import attend, in_own_loop
from millm.remote_http import open_http

if TYPE_CHECKING:  # importing it takes half a second, so it waits for its first use
    import openai

T = TypeVar("T")
Failed = Callable[[int, str, str], MiLLMError]
"""The error for what a server says itself: with which HTTP status, in which words, with which code ("" for none)."""

LIST_S = 8.0  # for the list of models
MOST_LISTED = 4 * 1024**2  # bytes of that list
LONGEST_NAME = 500  # characters of a model's name
MOST_SAID = 500  # characters of a server's words that are passed on
NO_LIST = (404, 405, 500, 501)  # transformers serve: 500 without a cache of its own
ENDINGS = re.compile(r"(/v1)?(/(chat/)?completions|/embeddings|/models)?/*$")
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
PATH = re.compile(r"[A-Za-z0-9._~/@:+-]*")
KEY = re.compile(r"[\x21-\x7e]{1,500}")
KEY_WAY = (
    "Give it as the server key: on the page, or as server_key over the API. It is kept in memory only, so it is "
    "needed again after a restart."
)


def server_address(text: str) -> str:
    """The base address of a server as it is stored and asked: "http://gpu-box:8000/v1".

    Raises:
        InvalidUrl: it is no http(s) address of a host, or holds more than that.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if "@" in parts.netloc:
        raise InvalidUrl("The address holds a user name or password. Give the key as the server key instead.")
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("http", "https") or not HOST.fullmatch(shown) or not PATH.fullmatch(parts.path):
        raise InvalidUrl("Invalid address. Enter one like http://gpu-box:8000/v1.")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise InvalidUrl("The address holds a '?' or '#'. Enter the server's base address, up to /v1.")
    place = f"{shown}:{port}" if port and port != {"http": 80, "https": 443}[parts.scheme] else shown
    return f"{parts.scheme}://{place}{ENDINGS.sub('', parts.path)}/v1"


class Servers:
    """The servers that may be asked, and their keys, by address; keys are in memory only. Thread-safe.

    allow_private: hosts of private networks may be asked.
    """

    def __init__(self, allow_private: bool) -> None:
        self._public_only = not allow_private
        self._keys: dict[str, str] = {}

    def keep_key(self, address: str, key: str) -> None:
        """Remembers the key of a server. Raises `InvalidRequest` for what no server can have as one."""
        self._keys[address] = _checked(key)

    def client(self, address: str, key: str | None = None) -> "RemoteClient":
        """A client for the server at an address. key: None for the one that is known.

        Raises:
            InvalidRequest: no server can have such a key.
        """
        known = _checked(key) if key else self._keys.get(address)
        return RemoteClient(address, known, self._tls, self._public_only)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()  # takes 40 ms, so it is made once


class RemoteClient:
    """The official client for the server at `address`, asked from any thread. public_only: see `open_http`."""

    def __init__(self, address: str, key: str | None, tls: ssl.SSLContext, public_only: bool) -> None:
        self._address = address
        self._key = key
        self._tls = tls
        self._public_only = public_only
        self.who = f"The server at {urlsplit(address).netloc}"

    def run(self, work: "Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, T]]", failed: Failed) -> T:
        """Runs work with a client of its own, in a loop of its own: many threads may do so at once.

        Raises:
            RemoteUnavailable: the server does not answer, breaks off, wants another key, or speaks no such API.
            InvalidUrl: it is not on the public internet, and only such servers may be asked.
            MiLLMError: what `failed` makes of the server's own words.
        """

        async def run() -> T:
            async with self._client() as client:
                return await work(client)

        with self._reached(), self._understood(failed):
            return in_own_loop(run())

    def names(self, check: Callable[[], None] = lambda: None, seconds: float = LIST_S) -> tuple[str, ...] | None:
        """The names of the models that the server has; None if it does not list them.

        `check` is called while it is silent; what that raises ends the question. Raises what `run` raises.
        """
        found: list[list[tuple[str, ...] | None]] = []

        async def ask() -> AsyncIterator[list[tuple[str, ...] | None]]:
            async with asyncio.timeout(seconds), self._http() as http:
                yield [await self._listed(http)]

        with self._reached():
            in_own_loop(attend(ask(), found.append, check))
        return found[-1][0]

    async def _listed(self, http: httpx2.AsyncClient) -> tuple[str, ...] | None:
        told = bytearray()
        async with http.stream("GET", f"{self._address}/models") as response:
            if response.status_code in NO_LIST:
                return None
            async for block in response.aiter_bytes():
                told += block
                if len(told) > MOST_LISTED:
                    raise self.strange()
        if response.status_code != 200:
            raise self._refusal(response.status_code) or RemoteUnavailable(
                f"{self.who} refuses to say which models it has (HTTP {response.status_code})."
            )
        listed = json.loads(told)
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            raise self.strange()
        names = (entry.get("id") for entry in entries if isinstance(entry, dict))
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME))

    def strange(self) -> RemoteUnavailable:
        """The error for an answer that is none of OpenAI's API."""
        return RemoteUnavailable(f"{self.who} does not answer as the OpenAI API does. Is this its address?")

    def _client(self) -> "openai.AsyncOpenAI":
        import openai

        http = self._http()
        return openai.AsyncOpenAI(
            base_url=self._address, api_key=self._key or "none", max_retries=0, http_client=http, timeout=http.timeout
        )

    def _http(self) -> httpx2.AsyncClient:
        return open_http(self._address, self._key, self._tls, self._public_only)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Translates what goes wrong on the way to the server, and answers that are no JSON."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:  # a TimeoutError is an OSError
            raise self._lost(error) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.strange() from error

    @contextmanager
    def _understood(self, failed: Failed) -> Iterator[None]:
        """Translates what the official client makes of answers."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            status = error.status_code
            raise self._refusal(status) or failed(status, self._words(error), str(error.code or "")) from error
        except openai.APIConnectionError as error:
            raise self._lost(error.__cause__ or error) from error
        except openai.APIError as error:  # in the middle of a stream
            status = 400 if error.type == "invalid_request_error" or error.code == "400" else 500
            raise failed(status, self._words(error), str(error.code or "")) from error
        except openai.OpenAIError as error:
            raise self.strange() from error

    def _refusal(self, status: int) -> MiLLMError | None:
        """The error for a status that means the same whatever was asked."""
        if status in (401, 403):
            wrong = "does not accept the key" if self._key else "asks for a key"
            return RemoteUnavailable(f"{self.who} {wrong}. {KEY_WAY}", status=status, field="server_key")
        if 300 <= status < 400:
            return RemoteUnavailable(f"{self.who} leads elsewhere (HTTP {status}). Enter the address it leads to.")
        return None

    def _lost(self, error: BaseException) -> MiLLMError:
        if isinstance(error, MiLLMError):
            return error
        if isinstance(error, TimeoutError | httpx2.TimeoutException):
            return RemoteUnavailable(f"{self.who} does not answer in time.")
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.InvalidURL):
            return RemoteUnavailable(f"{self.who} does not answer. Is it running, and is the address right?")
        return RemoteUnavailable(f"{self.who} broke off the connection.")

    def _words(self, error: "openai.APIError") -> str:
        """What the server says itself, in one line, without the key that it may repeat."""
        body = error.body
        told = (body.get("message") or body.get("detail") or body.get("error")) if isinstance(body, dict) else body
        status = f"HTTP {error.response.status_code}" if hasattr(error, "response") else error.message
        said = " ".join(str(told or status).split())
        return (said.replace(self._key, "***") if self._key else said)[:MOST_SAID].rstrip(".")


def _checked(key: str) -> str:
    if not KEY.fullmatch(key.strip()):
        raise InvalidRequest("A server key has letters, digits and signs, without blanks.", field="server_key")
    return key.strip()
