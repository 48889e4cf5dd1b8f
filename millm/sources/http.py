"""Brings files over HTTP: in parallel ranges, gone on with where a try stopped, checked while they are written."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from millm.errors import ChecksumMismatch, DownloadFailed, MiLLMError
from millm.events import Report
from millm.loops import in_own_loop
from millm.sources.base import PlannedFile
from millm.sources.client import BadRedirect, Client
from millm.sources.journal import Journal
from millm.sources.meter import Meter
from millm.sources.partfile import PartFile, disk_errors

log = logging.getLogger(__name__)

Refuse = Callable[[int, Mapping[str, str]], MiLLMError | None]
"""Says of an error answer (status, headers) which final error it is; None means that another try may succeed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a download behaves. Times in seconds, sizes in bytes.

    connections: requests at a time. segment: what one request asks for. backoff: the waits before each new try of a
    request; counted afresh when the last try brought bytes. longest_wait: up to this, a server's Retry-After is
    obeyed. connect: from looking up the name to the end of the TLS handshake. stall: a silence that counts as an
    error. tick: between two reports.
    """

    connections: int = 4
    segment: int = 64 * 2**20
    backoff: tuple[float, ...] = (1, 2, 4)
    longest_wait: float = 300
    connect: float = 10
    stall: float = 30
    tick: float = 0.25


DEFAULT_LIMITS = Limits()


def download(
    files: Mapping[str, PlannedFile],
    folder: Path,
    report: Report,
    headers: Mapping[str, str],
    refuse: Refuse,
    limits: Limits = DEFAULT_LIMITS,
    already: int = 0,
    public_only: bool = False,
) -> None:
    """Brings the files of these URLs into `folder`, flushed to the disk and checked against their digests.

    What an earlier try for the same files left in `folder` is not fetched again. `headers` go with every request;
    Authorization among them only to the hosts of `files`, never after a redirect to another one. Reports every
    `limits.tick` seconds; ends at once when `report` raises. already: bytes to count that came in other ways.
    public_only: hosts that are not on the public internet are refused, also after a redirect.

    Raises:
        DownloadFailed: the network failed after every try, or the disk does not take the bytes.
        ChecksumMismatch: a file arrived damaged twice.
        InsufficientDisk: the disk is full.
        InvalidUrl: a host is not public, and only such are allowed.
        MiLLMError: what `refuse` returned.
    """
    in_own_loop(_download(files, folder, report, headers, refuse, limits, already, public_only))


async def _download(
    files: Mapping[str, PlannedFile],
    folder: Path,
    report: Report,
    headers: Mapping[str, str],
    refuse: Refuse,
    limits: Limits,
    already: int,
    public_only: bool,
) -> None:
    meter = Meter(sum(file.size for file in files.values()), already)
    with disk_errors(folder, meter.total - already):
        journal = Journal(folder)
    async with Client(headers, limits.connect, limits.stall, public_only) as client:
        transfer = _Transfer(client, refuse, limits, journal, files.values())
        work = asyncio.create_task(_all(transfer.bring(url, file, folder) for url, file in files.items()))
        try:
            report(meter.event(transfer.received, transfer.kept))
            while not (await asyncio.wait([work], timeout=limits.tick))[0]:
                report(meter.event(transfer.received, transfer.kept))
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            journal.close()
    report(meter.event(meter.total - already, transfer.kept))


class _Trouble(Exception):
    """A try failed in a way that another one may not. wait: seconds that the server asks to wait first."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _RangeIgnored(Exception):
    """The server sends the whole file whatever range it is asked for."""


RETRIED = (_Trouble, BadRedirect, aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass(slots=True)
class _Segment:
    """The range [start, end) of a file; `at` is how far it is written."""

    url: str
    part: PartFile
    start: int
    end: int
    at: int

    @property
    def whole(self) -> bool:
        return (self.start, self.end) == (0, self.part.size)


class _Transfer:
    """The files of one download on their way."""

    def __init__(
        self, client: Client, refuse: Refuse, limits: Limits, journal: Journal, files: Iterable[PlannedFile]
    ) -> None:
        self._client = client
        self._journal = journal
        self._left = {file.path: journal.count(file.path, file.digest) for file in files}  # by earlier tries, unread
        self._refuse = refuse
        self._limits = limits
        self._files = asyncio.Semaphore(limits.connections)
        self._requests = asyncio.Semaphore(limits.connections)
        self._parts: list[PartFile] = []

    @property
    def received(self) -> int:
        """Bytes written so far; fewer than before once a file had to start over."""
        return sum(part.written for part in self._parts) + sum(self._left.values())

    @property
    def kept(self) -> int:
        """How many of them an earlier try had left."""
        return sum(part.kept for part in self._parts) + sum(self._left.values())

    async def bring(self, url: str, file: PlannedFile, folder: Path) -> None:
        """Brings one file; a damaged one is fetched once more."""
        async with self._files:
            part = PartFile(folder, file.path, file.size, file.digest, self._journal)
            self._parts.append(part)
            try:
                await part.recover()
                del self._left[file.path]
                await self._fill(url, part)
                if await part.digest() != file.digest:
                    log.warning("%s arrived damaged and is fetched again", file.path)
                    part.restart()
                    await self._fill(url, part)
                if (actual := await part.digest()) != file.digest:
                    raise ChecksumMismatch(
                        f"Checksum mismatch: '{file.path}' arrived damaged twice. Please try again later.",
                        file=file.path,
                        expected=file.digest,
                        actual=actual,
                    )
                await part.sync()
            finally:
                part.close()

    async def _fill(self, url: str, part: PartFile) -> None:
        step = self._limits.segment
        segments = (
            _Segment(url, part, at, min(at + step, end), at)
            for start, end in part.missing()
            for at in range(start, end, step)
        )
        try:
            await _all(self._bring_segment(segment) for segment in segments)
        except _RangeIgnored:
            part.restart()
            await self._bring_segment(_Segment(url, part, 0, part.size, 0))

    async def _bring_segment(self, segment: _Segment) -> None:
        waits, furthest = iter(self._limits.backoff), segment.at
        while True:
            try:
                async with self._requests:
                    return await self._receive(segment)
            except RETRIED as error:
                if segment.at > furthest:
                    waits, furthest = iter(self._limits.backoff), segment.at
                wait, reason = next(waits, None), _reason(error)
                log.info("%s stopped at byte %d: %s", segment.part.name, segment.at, reason)
                if wait is None:
                    raise DownloadFailed(
                        "Download failed: Network error. Please check connection and try again.",
                        file=segment.part.name,
                        reason=reason,
                    ) from error
                asked = min(error.wait, self._limits.longest_wait) if isinstance(error, _Trouble) else 0
            await asyncio.sleep(max(wait, asked))

    async def _receive(self, segment: _Segment) -> None:
        plain = segment.whole and segment.at == 0
        span = {} if plain else {"Range": f"bytes={segment.at}-{segment.end - 1}"}
        async with self._client.open(segment.url, span) as response:
            self._check(response, segment)
            while segment.at < segment.end:
                data = (await _arrived(response.content))[: segment.end - segment.at]
                if not data:
                    raise _Trouble("the answer ended early")
                await segment.part.write(segment.at, data)
                segment.at += len(data)

    def _check(self, response: aiohttp.ClientResponse, segment: _Segment) -> None:
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {segment.at}-"):
                raise _Trouble("another range than the one asked for")
        elif response.status != 200:
            if error := self._refuse(response.status, response.headers):
                raise error
            raise _Trouble(f"HTTP {response.status}", _retry_after(response.headers.get("Retry-After", "")))
        elif not segment.whole:
            raise _RangeIgnored
        elif segment.at:
            segment.part.restart()
            segment.at = 0


async def _all(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Runs all to the end; the first error cancels the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        error = errors.exceptions[0]
        raise error from error.__cause__


async def _arrived(content: aiohttp.StreamReader) -> bytes:
    """The next bytes, none at the end. A connection that broke gives what it brought before it raises."""
    error = content.exception()
    if error is None:
        return await content.readany()
    content.set_exception(None)  # type: ignore[arg-type]  # else the bytes it holds cannot be had
    data = content.read_nowait()
    content.set_exception(error)
    return data or await content.readany()


def _reason(error: Exception) -> str:
    """What happened, without the address: a signed link is a secret."""
    return str(error) if isinstance(error, _Trouble) else type(error).__name__


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which holds a number or a date; 0 for anything else."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
