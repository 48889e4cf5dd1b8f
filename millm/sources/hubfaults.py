"""What the hub's answers mean when they are errors: those of its API and those of a download."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from millm.errors import (
    DownloadFailed,
    GatedModel,
    HubUnavailable,
    InvalidRepoId,
    InvalidToken,
    MiLLMError,
    RepoNotFound,
    RevisionNotFound,
)

TOKEN = re.compile(r"[!-~]+")

FOREIGN = (HfHubHTTPError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, LookupError, TypeError)
"""What huggingface_hub's calls raise: its own errors, its client's, and those of an answer that makes no sense."""


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
            return invalid_id(repo_id)
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return _bad_token()
        case HfHubHTTPError() if error.response.status_code == 404:
            return _not_found(repo_id)
    return unavailable(error)


def refused(repo_id: str, status: int, headers: Mapping[str, str]) -> MiLLMError | None:
    """What an error answer to a download means. None: try again; a 403 of the CDN is only a link that expired."""
    code = headers.get("X-Error-Code")
    if code == "GatedRepo":
        return _gated(repo_id, status)
    if code == "RepoNotFound":
        return _not_found(repo_id)
    if code in ("RevisionNotFound", "EntryNotFound"):
        return DownloadFailed(f"Download failed: '{repo_id}' has changed on HuggingFace. Please preview it again.")
    return _bad_token() if status == 401 else None


def checked_token(token: str | None) -> str | None:
    """An access token without the blanks around it. Raises `InvalidToken` if it cannot be one."""
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


def invalid_id(text: str) -> InvalidRepoId:
    """The error for what names no repository."""
    text = re.sub(r"//.*@", "//", text.partition("?")[0], flags=re.DOTALL)  # a pasted address may carry a token
    return InvalidRepoId(f"Invalid repository id: '{text[:200]}'. Enter it as owner/name, like google/gemma-2-2b.")


def _bad_token() -> InvalidToken:
    return InvalidToken("HuggingFace does not accept this access token.")


def unavailable(error: Exception) -> HubUnavailable:
    """The error for a hub that does not answer, or answers nonsense."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    return HubUnavailable(
        "HuggingFace does not answer. Please check the connection and try again.",
        reason=f"HTTP {status}" if status else type(error).__name__,
    )
