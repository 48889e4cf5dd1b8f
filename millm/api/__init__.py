"""The HTTP door: a FastAPI app over one manager. It translates; it does no work of its own."""

from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from millm import __version__
from millm.api import embeddings, management, metrics, openai
from millm.api.docs import add_docs
from millm.api.faults import BugBoundary, add_fault_handlers
from millm.api.guard import Guard, GuardPolicy
from millm.api.parts import set_parts
from millm.api.request_id import RequestId
from millm.api.wire import MAX_BODY_BYTES
from millm.manager import Manager

__all__ = ["GuardPolicy", "create_app"]

DESCRIPTION = """
Get, load, try and serve language models.

`/v1` speaks OpenAI's API. `/api` manages models; each of its answers is `{"success", "data", "error"}`.
When this server has an API key, send it as `Authorization: Bearer KEY`.
"""


def create_app(manager: Manager, policy: GuardPolicy) -> FastAPI:
    """The whole API behind its guard. The page is mounted on it afterwards and is guarded likewise."""
    app = FastAPI(title="miLLM", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None)
    set_parts(app, manager, metrics.own_registry(manager))
    machine = (management.machine, management.models, management.jobs, metrics.router)
    for router in (*machine, openai.router, embeddings.router):
        app.include_router(router)
    add_docs(app)
    add_fault_handlers(app)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
    app.add_middleware(BugBoundary)
    app.add_middleware(Guard, policy=policy)
    app.add_middleware(RequestId)  # added last: the outermost
    return app
