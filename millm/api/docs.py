"""The interactive API page at /docs, from files on this machine: it works offline and asks no other server."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

DOCS = "/docs"
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def add_docs(app: FastAPI) -> None:
    """Adds /docs and the files it needs to an app whose own documentation pages are switched off."""

    @app.get(DOCS, include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=f"{app.title} API",
            swagger_js_url=f"{DOCS}/swagger-ui-bundle.js",
            swagger_css_url=f"{DOCS}/swagger-ui.css",
            swagger_favicon_url=f"{DOCS}/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
        )

    @app.get(DOCS + "/{name}", include_in_schema=False)
    def docs_file(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404, f"There is no file {DOCS}/{name}")
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=ASSETS[name], headers={"cache-control": "max-age=86400"})
