"""The HTML of where the disk goes: in words, as a picture, and what can be removed."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from millm.records import ModelRecord, ModelType
from millm.ui import words
from millm.ui.icons import icon
from millm.ui.stacked_bar import Part, legend, stacked

if TYPE_CHECKING:
    from millm.views import StorageState

NAMED = 5  # models that get a colour of their own; the others share one


def storage_picture(storage: "StorageState", records: Sequence[ModelRecord], shown: int) -> str:
    """Where the disk goes. records: all models. shown: how many of them the list shows."""
    total = len(records)
    said = [
        words.several(total, "model") if shown == total else f"{shown} of {words.several(total, 'model')}",
        f"{words.size(storage.total_bytes)} on disk",
        f"{words.size(storage.free_bytes)} free",
    ]
    parts = _parts(storage, records)
    picture = stacked(parts, storage.total_bytes + storage.free_bytes, "Disk") + legend(parts) if parts[:-1] else ""
    line = f'<p class="mi-summary" aria-live="polite">{" · ".join(said)}{_by_type(storage.by_type)}</p>'
    return f'<section class="mi-storage" aria-label="Storage">{line}{picture}{_left_over(storage.orphans)}</section>'


def _parts(storage: "StorageState", records: Sequence[ModelRecord]) -> list[Part]:
    """The models, largest first, what is unfinished, what belongs to none, and what is free."""
    whole = {model_id: count - storage.unfinished.get(model_id, 0) for model_id, count in storage.models.items()}
    used = sorted(((whole.get(record.id, 0), record.name) for record in records), reverse=True)
    parts = [Part(name, count, f"is-part-{place}") for place, (count, name) in enumerate(used[:NAMED], 1) if count]
    if others := [count for count, _ in used[NAMED:] if count]:
        parts.append(Part(f"{len(others)} more", sum(others), "is-part-more"))
    return [
        *parts,
        *_some("Unfinished downloads", sum(storage.unfinished.values()), "is-unfinished"),
        *_some("Left-overs", sum(storage.orphans.values()), "is-left-over"),
        Part("Free", storage.free_bytes, "is-free"),
    ]


def _some(name: str, count: int, kind: str) -> list[Part]:
    return [Part(name, count, kind)] if count > 0 else []


def _by_type(used: dict[str, int]) -> str:
    """Where the disk goes by type, where there is more than one."""
    if len(used) < 2:
        return ""
    named = (f"{words.MODEL_TYPE[ModelType(kind)]} {words.size(count)}" for kind, count in sorted(used.items()))
    return f"<span>{' · '.join(named)}</span>"


def _left_over(orphans: dict[str, int]) -> str:
    """What belongs to no model, with a button that removes it."""
    if not orphans:
        return ""
    size = words.size(sum(orphans.values()))
    named = "\n".join(orphans)
    question = f"Remove {words.several(len(orphans), 'left-over')}?"
    return (
        f'<p class="mi-left-over"><span title="{escape(named)}">{size} belong to no model.</span>'
        f'<button type="button" class="mi-btn is-quiet is-danger" id="clean-btn" data-act="clean" data-model="0" '
        f'data-question="{question}" data-body="{escape(named)}" data-ok="Remove">{icon("trash")}'
        "<span>Remove left-overs</span></button></p>"
    )
