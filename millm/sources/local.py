"""Models that are on this machine already: looked at, never copied, changed or deleted."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from millm.errors import InvalidLocalPath
from millm.events import Event, Report, Stage
from millm.sources.base import Origin, Plan, PlannedFile
from millm.sources.selection import select_files, select_weights

MOST_CONFIG_BYTES = 10_000_000
MOST_HEADER_BYTES = 100_000_000


class Local:
    """A directory with `config.json` and weights."""

    def plan(self, origin: Origin, token: str | None) -> Plan:  # noqa: ARG002  (a local model needs no token)
        """Looks at the directory that `origin.path` names; `Plan.path` is it with every link resolved.

        Raises:
            InvalidLocalPath: it is no absolute path of a directory with a readable config.json and weights;
                `details["reason"]` says what is wrong.
        """
        path = _resolved(origin.path or "")
        try:
            files = tuple(
                PlannedFile(file.name, file.stat().st_size) for file in sorted(path.iterdir()) if file.is_file()
            )
            config = _read_config(path)
            weights = select_weights(files)
            if not weights:
                raise _invalid(path, "no .safetensors or .bin weights")
            counts = [count_parameters(path / file.path) for file in weights if file.path.endswith(".safetensors")]
        except OSError as error:
            raise _invalid(path, error.strerror or type(error).__name__) from error
        chosen = select_files(files, origin.trust_remote_code)
        return Plan(
            origin=origin,
            title=str(path),
            suggested_name=path.name,
            files=chosen,
            param_count=sum(counts) or None,
            config=config,
            code_files=tuple(file.path for file in files if file.path.endswith(".py") and "auto_map" in config),
            path=path,
            fingerprint=_fingerprint(path, chosen),
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:  # noqa: ARG002
        """Brings nothing into `folder`: the files stay at `plan.path`, which the store links to. Reports the end."""
        total = plan.total_bytes
        report(Event(Stage.DOWNLOADING, progress=100.0, bytes_done=total, bytes_total=total))


def count_parameters(path: Path) -> int:
    """The numbers that a safetensors file holds, read from its header alone.

    Raises:
        InvalidLocalPath: it is no safetensors file.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("header length")
            header = json.loads(file.read(length))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _invalid(path.parent, f"{path.name} is not a safetensors file") from error


def _fingerprint(path: Path, files: tuple[PlannedFile, ...]) -> str:
    """Of names, sizes and times of change; no file is read."""
    told = sorted((file.path, file.size, (path / file.path).stat().st_mtime_ns) for file in files)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _resolved(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise _invalid(path, "not an absolute path")
    try:
        path = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _invalid(path, "does not exist") from error
    if not path.is_dir():
        raise _invalid(path, "not a directory")
    return path


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise _invalid(path, "no config.json")
    if file.stat().st_size > MOST_CONFIG_BYTES:
        raise _invalid(path, "config.json is too large")
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _invalid(path, "config.json is not JSON") from error
    if not isinstance(config, dict):
        raise _invalid(path, "config.json is not a JSON object")
    return config


def _invalid(path: Path, reason: str) -> InvalidLocalPath:
    return InvalidLocalPath(path=str(path), reason=reason)
