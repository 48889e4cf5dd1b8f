"""The public event stream: what each notice of the manager looks like, and how a late subscriber catches up."""

from collections.abc import Iterable, Iterator
from itertools import chain

from millm.api.wire import error_body, frame
from millm.events import Event, Stage
from millm.manager import Manager
from millm.views import Notice


def frames(manager: Manager, model_id: int | None = None) -> Iterator[bytes]:
    """The present state, then everything that happens from this call on, of one model or of all.

    Ends when miLLM shuts down. While nothing happens it yields empty frames.
    """
    number, running = present(manager)
    return _told(running, manager.feed.read(number, beat=0), model_id)


def _told(running: Iterable[Notice], feed: Iterable[Notice | None], model_id: int | None) -> Iterator[bytes]:
    for notice in chain(running, feed):
        if notice is None:
            yield b""
        elif model_id in (None, notice.model_id):
            yield frame(event_data(notice), notice.kind)


def present(manager: Manager) -> tuple[int, list[Notice]]:
    """The newest progress of every running job, and the number in the feed after which all the rest follows.

    The feed itself is asked, so that nothing is lost or doubled between the two; only a job so quiet that its
    last notice is no longer kept is asked what it said last.
    """
    number, kept = manager.feed.kept()
    newest = {notice.model_id: notice for notice in kept if notice.event is not None}
    for state in manager.system().jobs:
        job = manager.job(state.model_id)
        if job is not None and state.model_id not in newest:
            event = job.latest or Event(Stage.QUEUED)
            newest[state.model_id] = Notice(f"model:{job.kind}:progress", job.subject, event=event)
    return number, [notice for notice in newest.values() if manager.job(notice.model_id)]


def event_data(notice: Notice) -> dict[str, object]:
    """The `data` of one server-sent event."""
    data: dict[str, object] = {"model_id": notice.model_id}
    if notice.event is not None:
        data |= _progress(notice.kind, notice.event)
    if notice.record is not None:
        data["model"] = notice.record.to_dict()
    if notice.error is not None:
        data["error"] = error_body(notice.error)
    return data


def _progress(kind: str, event: Event) -> dict[str, object]:
    if kind == "model:unload:progress":
        return {"pending_requests": event.pending}
    data: dict[str, object] = {"stage": event.stage, "progress": round(event.progress, 1)}
    if kind == "model:download:progress":
        data |= {
            "bytes_downloaded": event.bytes_done,
            "total_bytes": event.bytes_total,
            "speed_mbps": round(event.speed / 1e6, 3),
            "eta_s": event.eta if event.eta is None else round(event.eta, 1),
        }
    return data
