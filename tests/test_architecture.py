"""The house rules of CONTRIBUTING.md, checked on the source: floors, homes, sizes, words, no work at import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "millm").rglob("*.py"))

# Imports point down: a room may import rooms of lower floors and, where named, neighbours.
FLOORS = [
    {
        "errors",
        "events",
        "feed",
        "records",
        "tensors",
        "meta",
        "settings",
        "logs",
        "figures",
        "traffic",
        "details",
        "contexts",
        "history",
        "public_hosts",
        "word_diff",
    },
    {"jobs", "loops", "child", "ollama_client", "remote_client", "remote_http"},
    {"sources", "engines", "registry", "store", "devices", "estimate", "quantizing", "catalog", "verification"},
    {
        "views",
        "planning",
        "generation",
        "requirements",
        "resident",
        "activity",
        "downloads",
        "inquiry",
        "comparison",
        "conversion",
        "orders",
        "sidebyside",
        "reconcile",
        "questions",
        "loads",
        "upkeep",
        "monitor",
        "manager",
        "nearby",
        "replica",
        "ray_driver",
        "ray_lines",
        "ray_requests",
        "ray_router",
        "ray_status",
    },
    {"api", "ui"},
]
STRANGERS = FLOORS[2] | FLOORS[4]  # rooms of these floors do not know each other

# One home for each outside library.
HOMES = {
    "gradio": {"ui"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "pydantic": {"api"},
    "prometheus_client": {"api"},
    "uvicorn": set(),
    "torch": {"engines"},
    "transformers": {"engines"},
    "tokenizers": {"engines"},
    "safetensors": {"engines"},
    "huggingface_hub": {"sources"},
    "httpx2": {"sources", "remote_client", "remote_http"},
    "openai": {"engines", "remote_client"},
    "pybreaker": {"sources"},
    "httpx": {"ollama_client"},
    "ollama": {"sources", "engines", "ollama_client"},
    "aiohttp": {"sources"},
    "tinydb": {"registry"},
    "bitsandbytes": {"engines"},
    "llguidance": {"engines"},
    "subprocess": {"child"},
    "filelock": {"store", "nearby"},
    "ray": {"ray_driver", "ray_router", "ray_status", "replica"},
    "psutil": {"devices"},
    "pynvml": {"devices"},
    "threading": {"jobs", "feed"},
    "queue": {"jobs"},
    "concurrent": {"jobs"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "millm").parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "millm" else {node.module}
            )
    return found


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("millm.")} - {"__version__"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parent != ROOT / "millm" or p.stem != "__init__"], ids=relative
)
def test_imports_point_down(path: Path) -> None:
    own = room(path)
    for other in rooms_imported(path) - {own}:
        assert floor(other) <= floor(own), f"{own} imports {other} from a higher floor"
        if {own, other} <= STRANGERS and floor(own) == floor(other):
            pytest.fail(f"{own} imports its neighbour {other}")


def test_no_circles_between_rooms() -> None:
    edges = {}
    for path in SOURCES:
        edges.setdefault(room(path), set()).update(rooms_imported(path) - {room(path)})
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_library_has_its_home(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        if library in HOMES:
            assert room(path) in HOMES[library], f"{library} is at home in {HOMES[library] or 'app.py'}"


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "app.py"], ids=relative)
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_names_say_what_they_are(path: Path) -> None:
    for word in ("util", "helper", "common", "misc", "service", "handler", "processor"):
        assert word not in path.stem
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert word not in node.name.lower()


def test_the_map_in_the_readme_is_what_is_on_disk() -> None:
    """The map is indented two blanks a folder; package files that only hold a docstring are not on it."""
    shown, folders = set(), []
    for line in (ROOT / "README.md").read_text().split("## The map of the code")[1].splitlines():
        found = re.match(r"( *)(\w+(?:\.py|\.css|\.js|/))\s", f"{line} ")
        if found:
            depth = len(found[1]) // 2
            folders[depth:] = [found[2]]
            shown.add("".join(folders[: depth + 1]))
    on_disk = {str(p.relative_to(ROOT)) for p in (ROOT / "millm").rglob("*") if p.suffix in {".py", ".css", ".js"}}
    on_disk -= {"millm/__init__.py", "millm/sources/__init__.py", "millm/engines/__init__.py"}
    assert {path for path in shown if path.startswith("millm/") and not path.endswith("/")} == on_disk


LIGHT = """
import sys, threading
before = threading.active_count()
import app, millm.manager, millm.registry, millm.api, millm.sources.huggingface, millm.engines.base
heavy = {"torch", "transformers", "bitsandbytes", "accelerate"} & set(sys.modules)
assert not heavy, heavy
assert threading.active_count() == before
"""


def test_importing_does_nothing_and_brings_no_torch(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_test_command_of_the_readme_is_the_one_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_fault_in_the_docs_has_its_test() -> None:
    file = "tests/sources/test_http.py"
    named = re.findall(r"`((?:tests/[\w/]+\.py)?(?:::)?)(test_\w+)`", (ROOT / "docs/downloads.md").read_text())
    assert len(named) > 40
    for where, name in named:
        file = where.removesuffix("::") or (file if where else "tests/sources/test_http.py")
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
