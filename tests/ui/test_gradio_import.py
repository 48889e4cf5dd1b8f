"""The quick import leaves everything as it was."""

import inspect

from millm.ui.gradio_import import import_gradio


def test_it_imports_gradio_and_puts_inspect_back() -> None:
    before = inspect.getfile
    import_gradio()
    import gradio

    assert inspect.getfile is before
    assert inspect.getfile(gradio.Blocks).endswith("blocks.py")
