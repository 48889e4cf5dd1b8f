"""The management API: models, the jobs on them, and this machine, as JSON in one envelope.

Handlers are plain functions, so the framework runs them on threads: some of them ask the network for seconds.
"""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from millm import __version__
from millm.api import management_examples as examples
from millm.api.events import frames
from millm.api.management_schema import (
    Answer,
    DownloadBody,
    Failed,
    Health,
    LoadBody,
    PatchBody,
    PreviewBody,
    QualityBody,
    RecordFilter,
    TokenBody,
)
from millm.api.parts import TheManager
from millm.api.preview_schema import PreviewInfo, preview_json
from millm.api.streams import EventStream
from millm.api.wire import success
from millm.catalog import Suggestion
from millm.records import ModelRecord, ModelType
from millm.requirements import Compatibility, Requirements
from millm.sources.base import Found
from millm.views import StorageState, SystemState

models = APIRouter(prefix="/api/models", tags=["Models"])
jobs = APIRouter(prefix="/api/models", tags=["Jobs on models"])
machine = APIRouter(tags=["This machine"])

FAILED = {"model": Failed, "description": "An error", "content": {"application/json": {"example": examples.FAILED}}}


def _says(data: Any, example: object, status: int = 200, description: str = "Done") -> dict[str, Any]:
    """The part of a route's declaration that documents its answers."""
    shown = {"success": True, "data": example, "error": None}
    good = {
        "model": Answer[data],
        "description": description,
        "content": {"application/json": {"example": shown}},
    }
    return {"status_code": status, "responses": {status: good, "default": FAILED}}


def _starts_job(example: object) -> dict[str, Any]:
    return _says(ModelRecord, example, 202, "A job was started; follow it with the model's events")


def _streams() -> dict[str, Any]:
    content = {"text/event-stream": {"example": examples.EVENTS}}
    good = {"description": "Server-sent events; each `data` is one JSON object", "content": content}
    return {"responses": {200: good, "default": FAILED}, "response_class": Response}


@models.get("", summary="List the models", **_says(list[ModelRecord], [examples.RECORD]))
def list_models(manager: TheManager, chosen: Annotated[RecordFilter, Query()]) -> Response:
    """Every record that matches, newest first."""
    records = manager.records(chosen.status, chosen.type, chosen.source, chosen.q)
    return success([record.to_dict() for record in records])


@models.post("", summary="Register a model and download it", **_starts_job(examples.DOWNLOADING))
def download_model(manager: TheManager, body: DownloadBody) -> Response:
    """Starts a download. A local model is only linked, and is ready at once. Of a server's nothing is brought."""
    record = manager.download(
        body.origin(),
        quantization=body.quantization,
        token=body.token,
        name=body.custom_name,
        start=body.start,
    )
    return success(record.to_dict(), 202)


@models.post("/guide", summary="Add the built-in model", **_says(ModelRecord, examples.READY))
def add_guide(manager: TheManager) -> Response:
    """Puts the small model that ships with miLLM back into the list, after it was deleted from it."""
    return success(manager.add_guide().to_dict())


@models.post("/preview", summary="See what a model would bring and cost", **_says(PreviewInfo, examples.PREVIEW))
def preview_model(manager: TheManager, body: PreviewBody) -> Response:
    """Asks the source what would be downloaded, without moving weights. Takes up to 10 s."""
    return success(preview_json(manager.plan(body.origin(), body.token, body.context_length)))


@models.get("/storage", summary="See where the disk goes", **_says(StorageState, examples.STORAGE))
def show_storage(manager: TheManager) -> Response:
    """Bytes in all, by type, and for each model what deleting it would free; left-overs of unfinished downloads."""
    return success(asdict(manager.storage()))


@models.post("/storage/clean", summary="Remove left-overs", **_says(dict[str, int], examples.CLEANED))
def clean_storage(manager: TheManager) -> Response:
    """Removes what lies in the cache directory and belongs to no model: the `orphans` of the storage answer."""
    return success({"freed_bytes": manager.clean()})


@models.get("/active/{model_type}", summary="Get the active model of a type", **_says(ModelRecord, examples.RECORD))
def show_active(manager: TheManager, model_type: ModelType) -> Response:
    """For `llm` that is the loaded model. 404 if there is none."""
    return success(manager.active(model_type).to_dict())


@models.get("/{model_id:int}", summary="Get one model", **_says(ModelRecord, examples.RECORD))
def show_model(manager: TheManager, model_id: int) -> Response:
    """One record with its live status."""
    return success(manager.record(model_id).to_dict())


@models.patch("/{model_id:int}", summary="Change a model", **_says(ModelRecord, examples.RECORD))
def change_model(manager: TheManager, model_id: int, body: PatchBody) -> Response:
    """Changes the fields that are given."""
    return success(manager.update(model_id, **body.changes()).to_dict())


@models.delete("/{model_id:int}", summary="Delete a model", **_says(None, None))
def delete_model(manager: TheManager, model_id: int, everywhere: bool = False) -> Response:
    """Deletes files and record; of a local model only the record and the link, never the files. Of an Ollama model
    only the record, unless `everywhere` asks to remove it from Ollama too."""
    manager.delete(model_id, everywhere)
    return success(None)


@jobs.post("/{model_id:int}/download", summary="Download a registered model", **_starts_job(examples.DOWNLOADING))
def start_download(manager: TheManager, model_id: int, body: TokenBody | None = None) -> Response:
    """Starts the download of a model that is `available`."""
    return success(manager.start(model_id, body.token if body else None).to_dict(), 202)


@jobs.post("/{model_id:int}/retry", summary="Download again after an error", **_starts_job(examples.DOWNLOADING))
def retry_download(manager: TheManager, model_id: int, body: TokenBody | None = None) -> Response:
    """Starts a failed download again, at the same commit."""
    return success(manager.retry(model_id, body.token if body else None).to_dict(), 202)


@jobs.post("/{model_id:int}/cancel", summary="Cancel what runs on a model", **_says(None, None, 202))
def cancel_job(manager: TheManager, model_id: int) -> Response:
    """Stops its job and removes what that left. The record of a cancelled download goes too, unless it was there
    before as `available`."""
    manager.cancel(model_id)
    return success(None, 202)


@jobs.post("/{model_id:int}/load", summary="Load a model", **_starts_job(examples.LOADING))
def load_model(manager: TheManager, model_id: int, body: LoadBody | None = None) -> Response:
    """Brings a model into memory, in place of the present one."""
    return success(manager.load(model_id, *_load_options(manager, model_id, body)).to_dict(), 202)


@jobs.post("/{model_id:int}/unload", summary="Unload a model", **_starts_job(examples.READY))
def unload_model(manager: TheManager, model_id: int) -> Response:
    """Lets running requests finish, then gives the memory back."""
    return success(manager.unload(model_id).to_dict(), 202)


@jobs.post("/{model_id:int}/switch", summary="Load in place of the present one", **_starts_job(examples.LOADING))
def switch_model(manager: TheManager, model_id: int, body: LoadBody | None = None) -> Response:
    """Like load, but if it fails the model that was loaded before comes back."""
    return success(manager.switch(model_id, *_load_options(manager, model_id, body)).to_dict(), 202)


@jobs.post("/{model_id:int}/reload", summary="Load a model anew with its settings", **_starts_job(examples.LOADING))
def reload_model(manager: TheManager, model_id: int) -> Response:
    """Lets running requests finish, then loads it again, as its settings are now; if that fails, as it was."""
    return success(manager.reload(model_id).to_dict(), 202)


@jobs.post("/{model_id:int}/quality", summary="Measure what a quantization costs", **_starts_job(examples.READY))
def compare_model(manager: TheManager, model_id: int, body: QualityBody | None = None) -> Response:
    """Has the model and another form of it read the same text; afterwards the record has `quality`: perplexity of
    both, mean KL divergence, top-1 agreement, speed and memory."""
    against, text = (body.against, body.text) if body else (None, None)
    return success(manager.compare(model_id, against, text).to_dict(), 202)


@jobs.post("/{model_id:int}/verify", summary="Check a model's files", **_starts_job(examples.READY))
def verify_model(manager: TheManager, model_id: int) -> Response:
    """Computes the digests of all files again; afterwards the record has no error, or says which files are wrong."""
    return success(manager.verify(model_id).to_dict(), 202)


@jobs.post("/{model_id:int}/activate", summary="Make a model the active one", **_starts_job(examples.READY))
def activate_model(manager: TheManager, model_id: int) -> Response:
    """For `llm` the same as load. Of the other types one is active, for programs that ask for it."""
    return success(manager.activate(model_id).to_dict(), 202)


@jobs.post("/{model_id:int}/deactivate", summary="Leave a type without active model", **_starts_job(examples.READY))
def deactivate_model(manager: TheManager, model_id: int) -> Response:
    """For `llm` the same as unload."""
    return success(manager.deactivate(model_id).to_dict(), 202)


@models.get("/{model_id:int}/requirements", summary="See what a model needs", **_says(Requirements, examples.NEEDS))
def show_requirements(manager: TheManager, model_id: int) -> Response:
    """Memory by parts, disk and Python packages. Bytes."""
    return success(_needs(manager.compatibility(model_id).requirements))


@models.get(
    "/{model_id:int}/compatibility", summary="See whether this machine fits", **_says(Compatibility, examples.FITS)
)
def show_compatibility(manager: TheManager, model_id: int) -> Response:
    """Whether memory and disk are free now, and what else is in the way."""
    found = manager.compatibility(model_id)
    needs = _needs(found.requirements)
    return success({"fits": found.fits, "warnings": list(found.warnings), "requirements": needs})


def _load_options(manager: TheManager, model_id: int, body: LoadBody | None) -> tuple[bool, int | None]:
    """Whether to force a load, and its context length; a key that came with it is told to the manager."""
    if body is None:
        return False, None
    if body.server_key:
        manager.give_key(model_id, body.server_key)
    return body.force, body.context_length


def _needs(needed: Requirements) -> dict[str, Any]:
    return {**asdict(needed), "memory": {**asdict(needed.memory), "total": needed.memory.total}}


@jobs.get("/{model_id:int}/events", summary="Follow one model", **_streams())
def follow_model(manager: TheManager, model_id: int) -> Response:
    """First the present state, then everything that happens to the model."""
    manager.record(model_id)
    return EventStream(frames(manager, model_id), manager.feed.watch)


@machine.get("/api/events", summary="Follow all models", **_streams())
def follow_all(manager: TheManager) -> Response:
    """First the present state of every running job, then everything that happens to any model."""
    return EventStream(frames(manager), manager.feed.watch)


@machine.get("/api/hub/search", summary="Search the hub", **_says(list[Found], [examples.FOUND]))
def search_hub(manager: TheManager, q: Annotated[str, Query(max_length=200)]) -> Response:
    """Repositories whose names match, the most downloaded first; none for less than two characters."""
    return success([asdict(found) for found in manager.search(q)])


@machine.get("/api/catalog", summary="See suggested models", **_says(list[Suggestion], [examples.SUGGESTION]))
def show_catalog(manager: TheManager) -> Response:
    """Models of every type; those that suit this machine first."""
    return success([{**asdict(one.entry), "fits": one.fits} for one in manager.catalog()])


@machine.get("/api/system", summary="See how this machine is doing", **_says(SystemState, examples.SYSTEM))
def show_system(manager: TheManager) -> Response:
    """Version, devices, memory, the loaded model, requests and jobs. Memory and disk are in bytes."""
    state = manager.system()
    lists = {"devices": [asdict(device) for device in state.devices], "jobs": [asdict(job) for job in state.jobs]}
    return success({**vars(state), **lists, "loaded": state.loaded and state.loaded.to_dict()})


@machine.get("/health", summary="Ask for a sign of life", **_says(Health, examples.HEALTH))
async def show_health() -> Response:
    """Answers without a key, also while models load."""
    return success({"status": "ok", "version": __version__})
