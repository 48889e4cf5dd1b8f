"""The browser door: the page, built with gradio around a manager.

gradio is imported when a page is built, not before.
"""

from typing import TYPE_CHECKING, Any

from millm.settings import Settings
from millm.ui.framed import FramedPage
from millm.ui.gradio_import import import_gradio
from millm.ui.page_files import FOLDER, PageFiles

if TYPE_CHECKING:
    import gradio as gr

    from millm.manager import Manager


def build_ui(manager: "Manager", settings: Settings | None = None) -> "gr.Blocks":
    """Builds the page around a manager. settings: what the page says of them; None means all defaults."""
    import_gradio()
    from millm.ui import page

    return page.build(manager, settings or Settings())


def mount(app: Any, manager: "Manager", settings: Settings | None = None) -> Any:
    """Mounts the page at "/" of a FastAPI application and returns the application.

    Routes that are added to `app` before win over the page's own.
    """
    blocks = build_ui(manager, settings)
    import gradio as gr

    from millm.ui.theme import theme

    files = PageFiles()
    app.add_route(f"{FOLDER}/live", blocks.live)
    app.mount(FOLDER, files)
    app.add_middleware(FramedPage, script=files.script.path, sheet=files.sheet.path, present=blocks.present)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size="1mb",
        show_error=True,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
