"""The Hugging Face Hub: what a repository holds, pinned to a commit, and how to bring it."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from millm.errors import GatedModel, InvalidToken, RepoNotFound, UnsupportedModel
from millm.events import Event, Report, Stage
from millm.loops import within
from millm.records import ModelType
from millm.sources.base import PICKLES, Found, Origin, Plan, PlannedFile
from millm.sources.breaker import Breaker
from millm.sources.http import DEFAULT_LIMITS, Limits, download
from millm.sources.hubcache import find_blob, reuse
from millm.sources.hubfaults import checked_token, invalid_id, refused, translated, unavailable
from millm.sources.selection import HALF, MODEL_INDEX, is_weights, select_files
from millm.tensors import TensorInfo

T = TypeVar("T")

PLAN_S = 10.0
MOST_FAILURES = 5  # in a row, after which the hub is left in peace for a while
REST_S = 30.0
MOST_CONFIG_BYTES = 10_000_000
REPO_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
ADDRESS = re.compile(
    r"(?:https?://)?(?P<host>[^/?#]+)/(?P<repo>[^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob|resolve|commit)/(?P<revision>[^/?#]+))?(?:[/?#].*)?"
)
OTHER_KINDS = ("datasets/", "spaces/")
LIBRARY = "millm"

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
NEED_CONFIG = (ModelType.LLM, ModelType.EMBEDDING)
"""The types that are brought to life here, by what their config.json says."""
MOST_FOUND = 8
MOST_SHARDS = 32  # files whose headers are read for an estimate


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

        `Plan.origin` names the repository as "owner/name", also where an address of the hub was pasted. Of a gated
        repository that does not open to the token, everything but its config is told, and `Plan.refusal`.

        Raises:
            InvalidRepoId, RepoNotFound, RevisionNotFound, InvalidToken, HubUnavailable
            UnsupportedModel: the repository has no weights, or no config.json where it is to be run here.
        """
        repo_id, pasted = parse_repo(origin.repo_id or "", self._api.endpoint)
        origin = replace(origin, repo_id=repo_id, revision=origin.revision or pasted)
        token = checked_token(token)
        with self._linked(repo_id):
            return self._breaker.call(lambda: self._in_time(lambda: self._plan(origin, repo_id, token)))

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        """Downloads the files at the pinned commit, but for those that the Hugging Face cache holds.

        The token goes to the hub, never to another host.

        Raises:
            DownloadFailed, ChecksumMismatch, InsufficientDisk, GatedModel, RepoNotFound, InvalidToken
        """
        repo_id, total = plan.origin.repo_id or "", plan.total_bytes
        if plan.refusal:
            raise plan.refusal

        def beat(kept: int) -> None:
            report(Event(Stage.VERIFYING, 100 * kept / total if total else 0.0, kept, total))

        missing = reuse(plan, self._cache, folder, beat)
        urls = {self._url(repo_id, file.path, plan.commit): file for file in missing}
        headers = self._headers(checked_token(token))
        already = total - sum(file.size for file in missing)
        with self._linked(repo_id):
            download(urls, folder, report, headers, partial(refused, repo_id), self._limits, already)

    def tensors(self, plan: Plan, token: str | None) -> dict[str, TensorInfo]:
        """What the headers of the safetensors files say; a request or two for each file.

        Raises:
            UnsupportedModel: the files are damaged, too many, or of another kind.
            RepoNotFound, GatedModel, InvalidToken, HubUnavailable
        """
        repo_id, token = plan.origin.repo_id or "", checked_token(token)
        names = [file.path for file in plan.files if file.path.endswith(".safetensors")]
        if not 0 < len(names) <= MOST_SHARDS:
            raise UnsupportedModel(f"'{repo_id}' has {len(names)} safetensors files whose headers could be read.")

        def ask() -> dict[str, TensorInfo]:
            found: dict[str, TensorInfo] = {}
            for name in names:
                with translated(repo_id, plan.commit):
                    header = self._api.parse_safetensors_file_metadata(
                        repo_id, name, revision=plan.commit, token=token or False, timeout=self._plan_s
                    )
                found |= {key: TensorInfo(each.dtype, tuple(each.shape)) for key, each in header.tensors.items()}
            return found

        return self._breaker.call(lambda: self._in_time(ask))

    def search(self, text: str) -> tuple[Found, ...]:
        """The most downloaded repositories whose names match.

        Raises:
            HubUnavailable: the hub does not answer in time, or was not asked because it did not before.
        """

        def ask() -> tuple[Found, ...]:
            with translated(text, None):
                # not list_models: that tries again and again on its own
                answer = get_session().get(
                    f"{self.endpoint}/api/models",
                    params={"search": text, "sort": "downloads", "limit": MOST_FOUND},
                    headers=self._headers(None),
                    timeout=self._plan_s,
                )
                hf_raise_for_status(answer)
                return tuple(
                    Found(info["id"], info.get("downloads") or 0, bool(info.get("gated"))) for info in answer.json()
                )

        return self._breaker.call(lambda: self._in_time(ask))

    def _in_time(self, question: Callable[[], T]) -> T:
        try:
            return within(self._plan_s, question)
        except TimeoutError as error:
            raise unavailable(error) from error

    @contextmanager
    def _linked(self, repo_id: str) -> Iterator[None]:
        """Adds to an error about access where the person can do something about it."""
        try:
            yield
        except (GatedModel, InvalidToken, RepoNotFound) as error:
            error.details["link"] = self._link(repo_id)
            raise

    def _plan(self, origin: Origin, repo_id: str, token: str | None) -> Plan:
        with translated(repo_id, origin.revision):
            info = self._api.model_info(
                repo_id, revision=origin.revision, files_metadata=True, timeout=self._plan_s, token=token or False
            )
            listed = tuple(_listed(info))
        _check_readable(repo_id, listed, origin.model_type)
        texts, refusal = self._texts(repo_id, info.sha, {file.path for file in listed}, token)
        config = texts.get(CONFIG, {}) if refusal is None else info.config or {}
        files = select_files(listed, origin.trust_remote_code, origin.model_type, _components(texts, origin))
        _check_usable(repo_id, files)
        template = any(file.path.startswith("chat_template") for file in files)
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
            link=self._link(repo_id),
            warnings=tuple(_warnings(files)),
            code_files=tuple(file.path for file in listed if file.path.endswith(".py") and "auto_map" in config),
            chat_template=template or "chat_template" in texts.get(TOKENIZER, {}),
            cached_bytes=sum(file.size for file in files if find_blob(repo_id, file, self._cache)),
            refusal=refusal,
        )

    def _texts(
        self, repo_id: str, commit: str | None, names: set[str], token: str | None
    ) -> tuple[dict[str, dict[str, Any]], GatedModel | None]:
        """The small files that tell what a model is; of a gated repository perhaps only the error instead."""
        texts = {}
        try:
            for name in (CONFIG, MODEL_INDEX, TOKENIZER):
                if name in names:
                    texts[name] = self._json(repo_id, name, commit, token)
        except GatedModel as error:
            error.details["link"] = self._link(repo_id)
            return {}, error
        return texts, None

    def _json(self, repo_id: str, name: str, commit: str | None, token: str | None) -> dict[str, Any]:
        with translated(repo_id, commit):
            url = self._url(repo_id, name, commit)
            answer = get_session().get(url, headers=self._headers(token), timeout=self._plan_s)
            hf_raise_for_status(answer)
            config = answer.json()
        if not isinstance(config, dict):
            raise UnsupportedModel(f"'{repo_id}' cannot be used: its {name} is not a JSON object.")
        return config

    def _link(self, repo_id: str) -> str:
        return f"{self.endpoint}/{repo_id}"

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
        raise invalid_id(text)
    return repo_id, revision


def _listed(info: ModelInfo) -> Iterator[PlannedFile]:
    if info.sha is None or info.siblings is None:
        raise ValueError("no commit or no files in the answer")
    for file in info.siblings:
        if file.size is None or file.blob_id is None:
            raise ValueError("no size or no digest in the answer")
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git-sha1:{file.blob_id}"
        yield PlannedFile(file.rfilename, file.size, digest)


def _check_readable(repo_id: str, files: tuple[PlannedFile, ...], model_type: ModelType) -> None:
    sizes = {file.path: file.size for file in files}
    if not any(is_weights(path) for path in sizes):
        raise _without_weights(repo_id)
    if CONFIG not in sizes and model_type in NEED_CONFIG:
        raise UnsupportedModel(f"'{repo_id}' cannot be used: it has no {CONFIG}.")
    for name in (CONFIG, MODEL_INDEX, TOKENIZER):
        if sizes.get(name, 0) > MOST_CONFIG_BYTES:
            raise UnsupportedModel(f"'{repo_id}' cannot be used: its {name} is too large.")


def _check_usable(repo_id: str, files: tuple[PlannedFile, ...]) -> None:
    if not any(is_weights(file.path) for file in files):
        raise _without_weights(repo_id)


def _without_weights(repo_id: str) -> UnsupportedModel:
    return UnsupportedModel(f"'{repo_id}' cannot be used: it holds no safetensors or PyTorch weights.")


def _components(texts: Mapping[str, Mapping[str, Any]], origin: Origin) -> frozenset[str] | None:
    """The folders that a diffusers pipeline is made of; None if it is none."""
    if MODEL_INDEX not in texts or origin.model_type in NEED_CONFIG:
        return None
    parts = texts[MODEL_INDEX].items()
    return frozenset(name for name, made_by in parts if isinstance(made_by, list) and None not in made_by)


def _warnings(files: tuple[PlannedFile, ...]) -> Iterator[str]:
    if any(file.path.endswith(PICKLES) for file in files):
        yield "The weights are in PyTorch's older pickle format: the repository has no safetensors."
    if any(f".{HALF}" in file.path for file in files):
        yield f"The half-precision files are taken: programs find them as variant '{HALF}'."
