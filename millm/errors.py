"""Every error miLLM raises on purpose.

    MiLLMError
    ├── RequestError              the person asked for something that cannot be
    │   ├── InvalidRequest          VALIDATION_ERROR
    │   ├── InvalidRepoId           INVALID_REPO_ID
    │   ├── InvalidLocalPath        INVALID_LOCAL_PATH
    │   ├── InvalidUrl              INVALID_URL
    │   └── ContextLengthExceeded   CONTEXT_LENGTH_EXCEEDED
    ├── StateError                what was asked does not fit the state the model is in
    │   ├── ModelNotFound           MODEL_NOT_FOUND
    │   ├── ModelAlreadyExists      MODEL_ALREADY_EXISTS
    │   ├── ModelAlreadyLoaded      MODEL_ALREADY_LOADED
    │   ├── ModelNotLoaded          MODEL_NOT_LOADED
    │   ├── ModelIsLoaded           MODEL_LOADED
    │   ├── ModelBusy               MODEL_BUSY
    │   └── QueueFull               QUEUE_FULL
    ├── SourceError               where the weights come from said no
    │   ├── DownloadFailed          MODEL_DOWNLOAD_FAILED
    │   ├── ChecksumMismatch        CHECKSUM_MISMATCH
    │   ├── RepoNotFound            REPO_NOT_FOUND
    │   ├── RevisionNotFound        REVISION_NOT_FOUND
    │   ├── GatedModel              GATED_MODEL_NO_TOKEN
    │   ├── InvalidToken            INVALID_HF_TOKEN
    │   ├── HubUnavailable          HUB_UNAVAILABLE
    │   ├── OllamaUnavailable       OLLAMA_UNAVAILABLE
    │   └── RemoteUnavailable       REMOTE_UNAVAILABLE
    ├── ResourceError             this machine has too little of something
    │   ├── InsufficientDisk        INSUFFICIENT_DISK
    │   └── InsufficientMemory      INSUFFICIENT_MEMORY
    ├── ModelError                the weights and this program do not go together
    │   ├── LoadFailed              MODEL_LOAD_FAILED
    │   ├── UnsupportedModel        UNSUPPORTED_MODEL
    │   └── RemoteCodeRequired      REMOTE_CODE_REQUIRED
    ├── StartupError              miLLM cannot start; one line, exit code 2
    └── InternalError             a bug in miLLM: logged with its traceback under an id

`Cancelled` stands outside the tree and outside `Exception`, so that neither our own nor a library's
`except Exception` swallows it on its way out of a worker.
"""

import logging
import uuid
from typing import ClassVar

log = logging.getLogger(__name__)


class MiLLMError(Exception):
    """An error with a code that programs read and a message that people read.

    `details` holds plain JSON values: the facts behind the message (bytes, names, ids).
    """

    code: ClassVar[str] = "MILLM_ERROR"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class RequestError(MiLLMError):
    """The person asked for something that cannot be."""


class InvalidRequest(RequestError):
    """A field is missing, unknown or out of range."""

    code = "VALIDATION_ERROR"


class InvalidRepoId(RequestError):
    """The text is not `owner/name`."""

    code = "INVALID_REPO_ID"


class InvalidLocalPath(RequestError):
    """The path is not an absolute path of a directory with `config.json` and weights."""

    code = "INVALID_LOCAL_PATH"

    def __init__(self, message: str | None = None, **details: object) -> None:
        super().__init__(
            message or "Invalid model path: Directory does not exist or does not contain valid model files.",
            **details,
        )


class InvalidUrl(RequestError):
    """The address is not one that files may be fetched from."""

    code = "INVALID_URL"


class ContextLengthExceeded(RequestError):
    """The prompt and the tokens asked for do not fit the model's context."""

    code = "CONTEXT_LENGTH_EXCEEDED"


class StateError(MiLLMError):
    """What was asked does not fit the state the model is in."""


class ModelNotFound(StateError):
    """No record has this id or name."""

    code = "MODEL_NOT_FOUND"


class ModelAlreadyExists(StateError):
    """A record with the same source and quantization, path or name exists; `details["id"]` is its id."""

    code = "MODEL_ALREADY_EXISTS"


class ModelAlreadyLoaded(StateError):
    """The model is the loaded one already."""

    code = "MODEL_ALREADY_LOADED"


class ModelNotLoaded(StateError):
    """A model must be loaded for this, and it is not."""

    code = "MODEL_NOT_LOADED"


class ModelIsLoaded(StateError):
    """The model must be unloaded first."""

    code = "MODEL_LOADED"


class ModelBusy(StateError):
    """A job runs on the model."""

    code = "MODEL_BUSY"


class QueueFull(StateError):
    """A lane has no room for another job; trying again later may succeed."""

    code = "QUEUE_FULL"


class SourceError(MiLLMError):
    """Where the weights come from said no."""


class DownloadFailed(SourceError):
    """The network failed, after every retry."""

    code = "MODEL_DOWNLOAD_FAILED"


class ChecksumMismatch(SourceError):
    """A file arrived with another digest than its source announced."""

    code = "CHECKSUM_MISMATCH"


class RepoNotFound(SourceError):
    """The hub knows no such repository, or hides it from this token."""

    code = "REPO_NOT_FOUND"


class RevisionNotFound(SourceError):
    """The repository has no such branch, tag or commit."""

    code = "REVISION_NOT_FOUND"


class GatedModel(SourceError):
    """The licence of the repository was not accepted with this token, or there is no token."""

    code = "GATED_MODEL_NO_TOKEN"


class InvalidToken(SourceError):
    """The hub does not know the access token."""

    code = "INVALID_HF_TOKEN"


class HubUnavailable(SourceError):
    """The hub cannot be reached or does not answer in time."""

    code = "HUB_UNAVAILABLE"


class OllamaUnavailable(SourceError):
    """The Ollama server does not answer, or refuses."""

    code = "OLLAMA_UNAVAILABLE"


class RemoteUnavailable(SourceError):
    """A server or a replica that runs a model elsewhere does not answer, refuses, or broke off."""

    code = "REMOTE_UNAVAILABLE"


class ResourceError(MiLLMError):
    """This machine has too little of something."""


class InsufficientDisk(ResourceError):
    """Fewer bytes are free on the disk than are needed at the peak."""

    code = "INSUFFICIENT_DISK"

    def __init__(self, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"Insufficient disk space. Need {needed_bytes / 1e9:.1f} GB, only {free_bytes / 1e9:.1f} GB available.",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


class InsufficientMemory(ResourceError):
    """Less memory is free than the model needs."""

    code = "INSUFFICIENT_MEMORY"


class ModelError(MiLLMError):
    """The weights and this program do not go together."""


class LoadFailed(ModelError):
    """The weights could not be brought into memory."""

    code = "MODEL_LOAD_FAILED"


class UnsupportedModel(ModelError):
    """The model is of a kind that cannot be used for this."""

    code = "UNSUPPORTED_MODEL"


class RemoteCodeRequired(ModelError):
    """The model needs Python code from its repository, and nobody has allowed that."""

    code = "REMOTE_CODE_REQUIRED"


class StartupError(MiLLMError):
    """miLLM cannot start: the message is the one line the person sees."""

    code = "STARTUP_ERROR"


class InternalError(MiLLMError):
    """A bug in miLLM. The log holds the traceback under the id in the message."""

    code = "INTERNAL_ERROR"


class Cancelled(BaseException):
    """The job was asked to stop; raised on the worker's own thread by its next report."""


def explain(error: BaseException) -> MiLLMError:
    """Returns `error` if it was raised on purpose, else logs it as a bug and returns an `InternalError`."""
    if isinstance(error, MiLLMError):
        return error
    bug = uuid.uuid4().hex[:8]
    log.error("bug %s: %s", bug, error, exc_info=error)
    return InternalError(f"Something went wrong inside miLLM (id {bug}). The log has the details.", id=bug)
