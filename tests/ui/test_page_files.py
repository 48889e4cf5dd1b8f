"""The style sheet and the scripts of the page, each as one file whose name tells what is in it."""

from millm.ui.page_files import HERE, SCRIPTS, SHEETS, PageFile, script, style


def test_every_sheet_and_script_is_in_them_but_for_those_that_blocks_bring() -> None:
    assert {path.name for path in HERE.glob("*.css")} == set(SHEETS)
    assert {path.name for path in HERE.glob("*.js")} - set(SCRIPTS) == {"drawer.js"}
    assert all((HERE / name).read_text() in style() for name in SHEETS)
    assert all((HERE / name).read_text() in script() for name in SCRIPTS)


def test_a_file_that_changed_has_another_name() -> None:
    assert PageFile("js", "one", "text/javascript").path != PageFile("js", "two", "text/javascript").path
    assert PageFile("js", "one", "text/javascript").path == PageFile("js", "one", "text/javascript").path
