"""The Hugging Face Hub: what a repository holds, pinned to a commit, and how to bring it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from millm.errors import (
    DownloadFailed,
    GatedModel,
    HubUnavailable,
    InvalidRepoId,
    InvalidToken,
    MiLLMError,
    RepoNotFound,
    RevisionNotFound,
    UnsupportedModel,
)
from millm.events import Event, Report, Stage
from millm.sources.base import Origin, Plan, PlannedFile
from millm.sources.breaker import Breaker
from millm.sources.client import within
from millm.sources.http import DEFAULT_LIMITS, Limits, download
from millm.sources.hubcache import find_blob, reuse
from millm.sources.selection import select_files, select_weights

PLAN_S = 10.0
MOST_FAILURES = 5  # in a row, after which the hub is left in peace for a while
REST_S = 30.0
MOST_CONFIG_BYTES = 10_000_000
REPO_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
TOKEN = re.compile(r"[!-~]+")
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
ADDRESS = re.compile(
    r"(?:https?://)?(?P<host>[^/?#]+)/(?P<repo>[^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob|resolve|commit)/(?P<revision>[^/?#]+))?(?:[/?#].*)?"
)
OTHER_KINDS = ("datasets/", "spaces/")
LIBRARY = "millm"

FOREIGN = (HfHubHTTPError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, LookupError, TypeError)
"""What huggingface_hub's calls raise: its own errors, its client's, and those of an answer that makes no sense."""


class HuggingFace:
    """The hub at `endpoint`; None means the one that huggingface_hub is set to.

    limits: of downloads. plan_s: seconds that a plan may take. cache: the Hugging Face cache, None for the usual one.
    rest_s: seconds without a question to the hub after it failed to answer five times in a row.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        plan_s: float = PLAN_S,
        cache: Path | None = None,
        rest_s: float = REST_S,
    ) -> None:
        self._api = HfApi(endpoint=endpoint and endpoint.rstrip("/"), token=False, library_name=LIBRARY)
        self._limits = limits
        self._plan_s = plan_s
        self._cache = cache or Path(HF_HUB_CACHE)
        self._breaker = Breaker(MOST_FAILURES, rest_s)

    @property
    def endpoint(self) -> str:
        """The address of the hub."""
        return self._api.endpoint

    def plan(self, origin: Origin, token: str | None) -> Plan:
        """Asks for the commit, the files with sizes and digests, and config.json.

        `Plan.origin` names the repository as "owner/name", also where an address of the hub was pasted.

        Raises:
            InvalidRepoId, RepoNotFound, RevisionNotFound, GatedModel, InvalidToken, HubUnavailable
            UnsupportedModel: the repository has no config.json or no weights.
        """
        repo_id, pasted = parse_repo(origin.repo_id or "", self._api.endpoint)
        origin = replace(origin, repo_id=repo_id, revision=origin.revision or pasted)
        token = _checked(token)
        return self._breaker.call(lambda: self._plan_in_time(origin, repo_id, token))

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        """Downloads the files at the pinned commit, but for those that the Hugging Face cache holds.

        The token goes to the hub, never to another host.

        Raises:
            DownloadFailed, ChecksumMismatch, InsufficientDisk, GatedModel, RepoNotFound, InvalidToken
        """
        repo_id, total = plan.origin.repo_id or "", plan.total_bytes

        def beat(kept: int) -> None:
            report(Event(Stage.VERIFYING, 100 * kept / total if total else 0.0, kept, total))

        missing = reuse(plan, self._cache, folder, beat)
        urls = {self._url(repo_id, file.path, plan.commit): file for file in missing}
        headers = self._headers(_checked(token))
        already = total - sum(file.size for file in missing)
        download(urls, folder, report, headers, partial(_refused, repo_id), self._limits, already)

    def _plan_in_time(self, origin: Origin, repo_id: str, token: str | None) -> Plan:
        try:
            return within(self._plan_s, lambda: self._plan(origin, repo_id, token))
        except TimeoutError as error:
            raise _unavailable(error) from error
        except GatedModel as error:
            error.details["link"] = f"{self.endpoint}/{repo_id}"  # where the licence is accepted
            raise

    def _plan(self, origin: Origin, repo_id: str, token: str | None) -> Plan:
        with translated(repo_id, origin.revision):
            info = self._api.model_info(
                repo_id, revision=origin.revision, files_metadata=True, timeout=self._plan_s, token=token or False
            )
            listed = tuple(_listed(info))
        files = select_files(listed, origin.trust_remote_code)
        _check_usable(repo_id, files)
        config = self._json(repo_id, "config.json", info.sha, token)
        remote_code = "auto_map" in config
        names = {file.path for file in files}
        template = any(name.startswith("chat_template") for name in names)
        if not template and "tokenizer_config.json" in names:
            template = "chat_template" in self._json(repo_id, "tokenizer_config.json", info.sha, token)
        return Plan(
            origin=origin,
            title=repo_id,
            suggested_name=repo_id.partition("/")[2],
            files=files,
            commit=info.sha,
            param_count=info.safetensors.total if info.safetensors else None,
            config=config,
            gated=bool(info.gated),
            license=next((tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), None),
            requires_remote_code=remote_code,
            link=f"{self._api.endpoint}/{repo_id}",
            warnings=tuple(_warnings(files)),
            code_files=tuple(file.path for file in listed if file.path.endswith(".py")) if remote_code else (),
            chat_template=template,
            cached_bytes=sum(file.size for file in files if find_blob(repo_id, file, self._cache)),
        )

    def _json(self, repo_id: str, name: str, commit: str | None, token: str | None) -> dict[str, Any]:
        with translated(repo_id, commit):
            url = self._url(repo_id, name, commit)
            answer = get_session().get(url, headers=self._headers(token), timeout=self._plan_s)
            hf_raise_for_status(answer)
            config = answer.json()
        if not isinstance(config, dict):
            raise UnsupportedModel(f"'{repo_id}' cannot be used: its {name} is not a JSON object.")
        return config

    def _url(self, repo_id: str, path: str, commit: str | None) -> str:
        return hf_hub_url(repo_id, path, revision=commit, endpoint=self._api.endpoint)

    def _headers(self, token: str | None) -> dict[str, str]:
        return build_hf_headers(token=token or False, library_name=LIBRARY)


def parse_repo(text: str, endpoint: str) -> tuple[str, str | None]:
    """Reads "owner/name", or an address of the hub or of `endpoint`, as (repo id, revision if it names one).

    Raises:
        InvalidRepoId: it is neither.
    """
    text = text.strip()
    repo_id, revision = text, None
    address = ADDRESS.fullmatch(text)
    if address and address["host"].lower() in (*HOSTS, urlsplit(endpoint).netloc):
        repo_id, revision = address["repo"], address["revision"] and unquote(address["revision"])
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id or repo_id.startswith(OTHER_KINDS):
        raise _invalid_id(text)
    return repo_id, revision


@contextmanager
def translated(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns every error of huggingface_hub and its HTTP client into one of ours."""
    try:
        yield
    except FOREIGN as error:
        raise _translation(error, repo_id, revision) from error


def _translation(error: Exception, repo_id: str, revision: str | None) -> MiLLMError:
    match error:
        case GatedRepoError():  # before RepositoryNotFoundError, whose subclass it is
            return _gated(repo_id, error.response.status_code)
        case RepositoryNotFoundError() | DisabledRepoError():
            return _not_found(repo_id)
        case RevisionNotFoundError():
            return RevisionNotFound(
                f"Revision not found: '{repo_id}' has no branch, tag or commit '{revision}'.",
                repo_id=repo_id,
                revision=revision,
            )
        case HFValidationError():
            return _invalid_id(repo_id)
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return _bad_token()
        case HfHubHTTPError() if error.response.status_code == 404:
            return _not_found(repo_id)
    return _unavailable(error)


def _refused(repo_id: str, status: int, headers: Mapping[str, str]) -> MiLLMError | None:
    """What an error answer to a download means. None: try again; a 403 of the CDN is only a link that expired."""
    code = headers.get("X-Error-Code")
    if code == "GatedRepo":
        return _gated(repo_id, status)
    if code == "RepoNotFound":
        return _not_found(repo_id)
    if code in ("RevisionNotFound", "EntryNotFound"):
        return DownloadFailed(f"Download failed: '{repo_id}' has changed on HuggingFace. Please preview it again.")
    return _bad_token() if status == 401 else None


def _listed(info: ModelInfo) -> Iterator[PlannedFile]:
    if info.sha is None or info.siblings is None:
        raise ValueError("no commit or no files in the answer")
    for file in info.siblings:
        if "/" in file.rfilename:
            continue
        if file.size is None or file.blob_id is None:
            raise ValueError("no size or no digest in the answer")
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git-sha1:{file.blob_id}"
        yield PlannedFile(file.rfilename, file.size, digest)


def _check_usable(repo_id: str, files: tuple[PlannedFile, ...]) -> None:
    if not select_weights(files):
        raise UnsupportedModel(f"'{repo_id}' cannot be used: it holds no safetensors or PyTorch weights.")
    config = next((file for file in files if file.path == "config.json"), None)
    if config is None:
        raise UnsupportedModel(f"'{repo_id}' cannot be used: it has no config.json.")
    if config.size > MOST_CONFIG_BYTES:
        raise UnsupportedModel(f"'{repo_id}' cannot be used: its config.json is too large.")


def _warnings(files: tuple[PlannedFile, ...]) -> Iterator[str]:
    if any(file.path.endswith(".bin") for file in files):
        yield "The weights are in PyTorch's older .bin format: the repository has no safetensors."


def _checked(token: str | None) -> str | None:
    token = (token or "").strip()
    if token and not TOKEN.fullmatch(token):
        raise _bad_token()  # in a header it would fail with an error that quotes it
    return token or None


def _gated(repo_id: str, status: int) -> GatedModel:
    if status == 403:
        sentence = "The licence was not accepted with this access token: accept it on HuggingFace, then try again."
        return GatedModel(f"Model '{repo_id}' is gated. {sentence}", repo_id=repo_id, token_is_valid=True)
    return GatedModel(
        f"Model '{repo_id}' is gated. Accept its licence on HuggingFace and enter an access token.", repo_id=repo_id
    )


def _not_found(repo_id: str) -> RepoNotFound:
    return RepoNotFound(f"Model not found: '{repo_id}' does not exist on HuggingFace.", repo_id=repo_id)


def _invalid_id(text: str) -> InvalidRepoId:
    text = re.sub(r"//[^/@]*@", "//", text)  # a pasted address may carry a token
    return InvalidRepoId(f"Invalid repository id: '{text[:200]}'. Enter it as owner/name, like google/gemma-2-2b.")


def _bad_token() -> InvalidToken:
    return InvalidToken("HuggingFace does not accept this access token.")


def _unavailable(error: Exception) -> HubUnavailable:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    return HubUnavailable(
        "HuggingFace does not answer. Please check the connection and try again.",
        reason=f"HTTP {status}" if status else type(error).__name__,
    )
