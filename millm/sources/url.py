"""Models at any web address: one file of weights, or an archive of a model's folder."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
from yarl import URL

from millm.errors import DownloadFailed, InvalidRequest, InvalidUrl, MiLLMError, UnsupportedModel
from millm.events import Event, Report, Stage
from millm.loops import in_own_loop
from millm.meta import JOURNAL
from millm.sources.archive import DEFAULT_ARCHIVE_LIMITS, ArchiveLimits, extract, is_archive
from millm.sources.base import Origin, Plan, PlannedFile
from millm.sources.client import BadRedirect, Client
from millm.sources.http import DEFAULT_LIMITS, Limits, download
from millm.sources.members import ENDINGS
from millm.sources.partfile import disk_errors

PLAN_S = 10.0
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = (".safetensors", *PICKLES, ".onnx", ".gguf", ".h5")
ACCEPTED = (*WEIGHTS, *ENDINGS)
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
CONTENT_RANGE = re.compile(r"bytes 0-0/(\d+)")
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
LONGEST_NAME = 200
UNPACKED = ".unpacked"
VERSION = ".version"
"""Beside an unfinished download without a checksum: which version of the file it is of."""


@dataclass(frozen=True)
class UrlPlan(Plan):
    """version: what the server calls this version of the file, its ETag or date; None where it calls it nothing."""

    version: str | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server says of a file. names: what it may be called, the best first."""

    names: tuple[str, ...]
    size: int
    version: str | None


class Url:
    """http(s) addresses, on the public internet or, with `allow_private`, anywhere.

    limits: of downloads. archives: of what is unpacked. plan_s: seconds that a plan may take.
    """

    def __init__(
        self,
        allow_private: bool,
        limits: Limits = DEFAULT_LIMITS,
        archives: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
        plan_s: float = PLAN_S,
    ) -> None:
        self._public_only = not allow_private
        self._limits = limits
        self._archives = archives
        self._plan_s = plan_s

    def plan(self, origin: Origin, token: str | None) -> UrlPlan:  # noqa: ARG002  (a token is for the hub alone)
        """Asks the server what the file is called and how large it is.

        Raises:
            InvalidUrl: the address is malformed, forbidden, not public, or nothing is there.
            InvalidRequest: the checksum is malformed.
            UnsupportedModel: it is no file of weights and no archive, or its size is not told.
            DownloadFailed: the server cannot be reached or does not answer in time.
        """
        address = parse_address(origin.url or "")
        checksum = parse_checksum(origin.checksum)
        answer = self._ask(address)
        name = _file_name(answer.names)
        title = address.partition("?")[0]
        return UrlPlan(
            origin=origin,
            title=title,
            suggested_name=_without_ending(name),
            files=(PlannedFile(name, answer.size, checksum),),
            warnings=tuple(_warnings(name, checksum)),
            unpacked_bytes=answer.size if is_archive(name) else 0,
            version=answer.version,
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:  # noqa: ARG002
        """Downloads the file and, if it is an archive, unpacks it in its place.

        Raises:
            DownloadFailed, ChecksumMismatch, InsufficientDisk
            InvalidUrl: the address leads to a host that is not public.
            UnsupportedModel: the archive holds what is not unpacked; see `extract`.
        """
        (file,) = plan.files
        version = plan.version if isinstance(plan, UrlPlan) else None
        with disk_errors(folder, file.size):
            _keep_only(folder, file, version)
        headers = {"If-Range": version} if version and not file.digest else {}
        url = parse_address(plan.origin.url or "")
        download({url: file}, folder, report, headers, _refused, self._limits, public_only=self._public_only)
        (folder / VERSION).unlink(missing_ok=True)
        if is_archive(file.path):
            saving = Event(Stage.SAVING, progress=100.0, bytes_done=file.size, bytes_total=file.size)
            extract(folder / file.path, folder / UNPACKED, _beat(report, saving, self._limits.tick), self._archives)
            for done in (file.path, JOURNAL):
                (folder / done).unlink()
            for child in list((folder / UNPACKED).iterdir()):
                child.rename(folder / child.name)
            (folder / UNPACKED).rmdir()

    def _ask(self, address: str) -> _Answer:
        host = URL(address, encoded=True).host
        try:
            return in_own_loop(self._answer(address))
        except BadRedirect as error:
            raise InvalidUrl(f"The address cannot be used: it was {error}.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DownloadFailed(
                f"Download failed: '{host}' does not answer. Please check the address and the connection.",
                reason=type(error).__name__,
            ) from error

    async def _answer(self, address: str) -> _Answer:
        async with (
            asyncio.timeout(self._plan_s),
            Client({}, self._limits.connect, self._plan_s, self._public_only) as client,
        ):
            async with client.open(address, {}, "HEAD") as response:
                if response.status == 200 and (size := _size(response)):
                    return _read(address, response, size)
            # Some servers refuse HEAD, and signed links are often good for GET alone.
            async with client.open(address, {"Range": "bytes=0-0"}) as response:
                _check_status(response.status)
                if size := _size(response):
                    return _read(address, response, size)
        raise UnsupportedModel(
            "The server does not say how large the file is, or it is empty: it cannot be downloaded."
        )


def parse_address(text: str) -> str:
    """The address as it is requested: characters that an address cannot have are quoted, all else is as it was.

    Raises:
        InvalidUrl: it is no http(s) address of a host, or it holds credentials or a fragment.
    """
    address = quote(text.strip(), safe=PRINTABLE)
    try:
        url = URL(address, encoded=True)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port
    except ValueError:
        usable = False
    if not usable or "\\" in address:
        raise InvalidUrl("Invalid address. Enter one that starts with https:// or http://.")
    if url.user is not None or url.password is not None:
        raise InvalidUrl("The address holds a user name or password. Addresses with credentials are not fetched.")
    if "#" in address:
        raise InvalidUrl("The address holds a '#'. Enter the address of the file itself.")
    if "%" in (url.raw_host or ""):
        raise InvalidUrl("The host's name has characters outside ASCII. Enter it in its xn-- form.")
    return address


def parse_checksum(text: str | None) -> str | None:
    """A checksum in lower case; None if there is none.

    Raises:
        InvalidRequest: it is malformed.
    """
    checksum = (text or "").strip().lower()
    if checksum and not CHECKSUM.fullmatch(checksum):
        raise InvalidRequest("Invalid checksum. Enter 'sha256:' and 64 or 'md5:' and 32 hexadecimal digits.")
    return checksum or None


def _check_status(status: int) -> None:
    match status:
        case 200 | 206:
            return
        case 401 | 403:
            raise InvalidUrl(f"The server refuses access to this address (HTTP {status}).", status=status)
        case 404 | 410:
            raise InvalidUrl(f"There is nothing at this address (HTTP {status}).", status=status)
        case 416:
            raise UnsupportedModel("The file at this address is empty.")
    raise DownloadFailed(
        f"Download failed: the server answered HTTP {status}. Please try again later.", status=status
    )


def _refused(status: int, headers: Mapping[str, str]) -> MiLLMError | None:  # noqa: ARG001
    """What an error answer to a download means. None: try again; a 403 may only be a link that expired."""
    if status in (401, 404, 410, 416):
        return DownloadFailed(
            f"Download failed: the file is no longer at its address as it was (HTTP {status}).", status=status
        )
    return None


def _size(response: aiohttp.ClientResponse) -> int | None:
    """Bytes of the whole file, None where they are not told."""
    if response.status == 206:
        whole = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(whole[1]) if whole else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def _read(address: str, response: aiohttp.ClientResponse, size: int) -> _Answer:
    if response.content_type == "text/html":
        raise UnsupportedModel("This address leads to a web page. Enter the address of the file itself.")
    given = response.content_disposition.filename if response.content_disposition else None
    etag = response.headers.get("ETag", "")
    return _Answer(
        names=tuple(filter(None, (given, URL(address, encoded=True).name, response.url.name))),
        size=size,
        version=etag if etag.startswith('"') else response.headers.get("Last-Modified"),
    )


def _file_name(names: tuple[str, ...]) -> str:
    """The first of the names that says what the file is, made safe."""
    for name in names:
        last = re.split(r"[/\\]", name)[-1]
        safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", last).lstrip(".+-")
        ending = _ending(safe)
        if ending and safe != ending:
            return safe[: -len(ending)][:LONGEST_NAME] + ending
    raise UnsupportedModel(
        f"'{(names or ('?',))[0][:LONGEST_NAME]}' is neither a file of weights nor an archive. "
        f"Known are {', '.join(ACCEPTED)}."
    )


def _ending(name: str) -> str:
    found = max((ending for ending in ACCEPTED if name.lower().endswith(ending)), key=len, default="")
    return name[len(name) - len(found) :]


def _without_ending(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name[: -len(_ending(name))])


def _warnings(name: str, checksum: str | None) -> list[str]:
    warnings = []
    if not checksum:
        warnings.append("No checksum was given: the file cannot be verified.")
    if name.lower().endswith(PICKLES):
        warnings.append(
            "Files of this type can run code in the program that opens them. Use it only if you trust its author."
        )
    return warnings


def _keep_only(folder: Path, file: PlannedFile, version: str | None) -> None:
    """Removes what earlier tries left but for the unfinished file; that too, if it may be of another version."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = json.dumps([file.size, version])
    kept = {file.path, JOURNAL}
    if not file.digest:
        note = folder / VERSION
        if not version or not note.is_file() or note.read_text(encoding="utf-8") != mine:
            kept = set()
    for path in list(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()
    (folder / VERSION).write_text(mine, encoding="utf-8")


def _beat(report: Report, event: Event, seconds: float) -> Callable[[], None]:
    """Reports the event now and then again at most every so many seconds, however often it is called."""
    due = 0.0

    def beat() -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + seconds
            report(event)

    return beat
