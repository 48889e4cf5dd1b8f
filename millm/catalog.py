"""Suggested models of every type, and which of them suit this machine."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from millm.records import ModelType, Quantization, Source

FILE = Path(__file__).with_name("catalog.json")
ORIGINS = {Source.HUGGINGFACE: "repo_id", Source.OLLAMA: "ollama_name", Source.URL: "url"}
HUB = "{hub}"
BYTES_A_NUMBER = {Quantization.FP16: 2.0, Quantization.Q8: 1.2, Quantization.Q4: 0.7}  # some layers stay as they are
ROOM = 1.2  # weights, and a fifth more for the cache and the rest: rough, a preview knows better
TYPES = tuple(ModelType)


@dataclass(frozen=True, slots=True)
class Entry:
    """One suggested model; of `repo_id`, `ollama_name` and `url` it has the one that its source needs.

    url: "{hub}" in it stands for the address of the hub, see `address`. params: as people write it, "0.6B".
    param_count: None where it is not known exactly. download_mb: about so many MB of 10^6 bytes, rounded by hand;
    None where not known. good_for: under 60 characters. gated: needs an access token and an accepted licence.
    requires: Python packages that the programs using the model need, by their names on the package index.
    """

    id: str
    title: str
    model_type: ModelType
    source: Source
    good_for: str
    repo_id: str | None = None
    ollama_name: str | None = None
    url: str | None = None
    params: str | None = None
    param_count: int | None = None
    download_mb: int | None = None
    gated: bool = False
    requires: tuple[str, ...] = ()

    def address(self, hub: str) -> str | None:
        """The URL to download from, at the hub of this address; None unless the source is `url`."""
        return self.url and self.url.replace(HUB, hub.rstrip("/"))

    def forms(self, offered: Sequence[Quantization]) -> tuple[Quantization, ...]:
        """Those of the quantizations that can be made of it here; of what is no language model only what it is."""
        makes = self.model_type is ModelType.LLM and self.source is not Source.OLLAMA
        return tuple(offered) if makes else (Quantization.FP16,)

    def memory_bytes(self, form: Quantization = Quantization.FP16) -> int | None:
        """Rough bytes of memory in one form, or of the files as they come; None where not known."""
        if self.param_count and self.source is not Source.OLLAMA:  # Ollama's copies are quantized
            return round(self.param_count * BYTES_A_NUMBER[form] * ROOM)
        return self.download_mb and round(self.download_mb * 1e6 * ROOM)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A catalogue entry judged for this machine. Bytes.

    fits: memory for the recommended form and disk for the download are free, or not known. memory, memory_free,
    disk_free: roughly what that form takes, and what there is. form: the recommended one, None where there is no
    choice. fitting: the forms whose memory is free.
    """

    entry: Entry
    fits: bool
    memory: int = 0
    memory_free: int = 0
    disk_free: int = 0
    form: Quantization | None = None
    fitting: tuple[Quantization, ...] = ()

    @property
    def lacks_disk(self) -> bool:
        """Whether the download alone is more than the disk can take."""
        return (self.entry.download_mb or 0) * 1e6 > self.disk_free


def load_catalog(path: Path = FILE) -> tuple[Entry, ...]:
    """Reads the catalogue, in the order of its file.

    Raises:
        ValueError: an entry is incomplete, says something unknown, or has the id of another.
    """
    entries = tuple(_entry(row) for row in json.loads(path.read_bytes()))
    ids = [entry.id for entry in entries]
    if twins := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{path.name}: more than one entry is called {', '.join(twins)}")
    return entries


def sort_for(
    entries: Iterable[Entry], memory_free: int, disk_free: int, offered: Sequence[Quantization]
) -> tuple[Suggestion, ...]:
    """The entries with what suits this machine first. Bytes that a model may take, and the forms it can be made in.

    offered: what is recommended first. First all that fit, by type and the largest first; then the others, by type
    and the smallest first.
    """
    judged = [_judged(entry, memory_free, disk_free, offered) for entry in entries]

    def place(suggestion: Suggestion) -> tuple[bool, int, int]:
        kind = TYPES.index(suggestion.entry.model_type)
        return not suggestion.fits, kind, -suggestion.memory if suggestion.fits else suggestion.memory

    return tuple(sorted(judged, key=place))


def _judged(entry: Entry, memory_free: int, disk_free: int, offered: Sequence[Quantization]) -> Suggestion:
    forms = entry.forms(offered)
    fitting = tuple(form for form in forms if (entry.memory_bytes(form) or 0) <= memory_free)
    found = Suggestion(
        entry,
        fits=forms[0] in fitting,
        memory=entry.memory_bytes(forms[0]) or 0,
        memory_free=memory_free,
        disk_free=disk_free,
        form=forms[0] if len(forms) > 1 else None,
        fitting=fitting,
    )
    return replace(found, fits=found.fits and not found.lacks_disk)


def _entry(row: dict[str, Any]) -> Entry:
    name = row.get("id")
    if unknown := row.keys() - {field.name for field in fields(Entry)}:
        raise ValueError(f"catalogue entry {name}: unknown {', '.join(sorted(unknown))}")
    try:
        kinds = {"model_type": ModelType(row["model_type"]), "source": Source(row["source"])}
        entry = Entry(**{**row, **kinds, "requires": tuple(row.get("requires", ()))})
    except (KeyError, TypeError) as error:
        raise ValueError(f"catalogue entry {name}: {error}") from error
    given = [field for field in ORIGINS.values() if getattr(entry, field)]
    if given != [ORIGINS.get(entry.source)]:
        raise ValueError(f"catalogue entry {name}: source {entry.source} with {', '.join(given) or 'no origin'}")
    return entry
