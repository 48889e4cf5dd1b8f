"""Jobs on models: settled before anybody hears, and never stuck."""

from millm.activity import Activity
from millm.errors import LoadFailed
from millm.events import Event, Stage
from millm.jobs import Job, Lane
from millm.records import ModelRecord, Status
from millm.resident import Resident

RECORD = ModelRecord(id=1, name="one", status=Status.READY, error_message="old")


def make() -> tuple[Activity, Lane]:
    return Activity(Resident(lambda record, options, report: None)), Lane("work")  # type: ignore[arg-type, return-value]


def notices(activity: Activity) -> list[tuple[str, str | None]]:
    activity.feed.close()
    return [(n.kind, n.error.message if n.error else None) for n in activity.feed.read() if n]


def test_the_registry_is_settled_before_the_notice_of_the_end() -> None:
    activity, lane = make()
    heard: list[object] = []

    def settle(error: BaseException | None) -> ModelRecord:
        heard.append(activity.feed.newest)
        return RECORD

    activity.submit("load", RECORD, lane, lambda job: RECORD, settle)
    lane.call(lambda: None)
    assert "complete" not in str(heard)
    assert notices(activity)[-1] == ("model:load:complete", None)
    assert activity.job(1) is None


def test_a_settle_that_fails_does_not_leave_the_model_busy() -> None:
    activity, lane = make()

    def settle(error: BaseException | None) -> ModelRecord:
        raise OSError("disk full")

    activity.submit("load", RECORD, lane, lambda job: RECORD, settle)
    lane.call(lambda: None)
    assert activity.job(1) is None
    kind, message = notices(activity)[-1]
    assert kind == "model:load:error"
    assert "Something went wrong" in str(message)


def test_the_live_record_shows_the_job_instead_of_the_stored_error() -> None:
    activity, lane = make()

    def work(job: Job[ModelRecord]) -> ModelRecord:
        job.report(Event(Stage.DOWNLOADING, 12.34, 5, 10))
        live = activity.live(RECORD)
        assert (live.status, live.download_progress, live.downloaded_bytes) == (Status.DOWNLOADING, 12.3, 5)
        assert live.error_message is None
        assert activity.states()[0].stage == "downloading"
        raise LoadFailed("no")

    activity.submit("download", RECORD, lane, work, lambda error: RECORD)
    lane.call(lambda: None)
    assert notices(activity)[-1] == ("model:download:error", "no")
    assert activity.live(RECORD) == RECORD


def test_a_model_is_ready_only_when_its_unload_is_over() -> None:
    activity, lane = make()
    seen: list[Status] = []

    def settle(error: BaseException | None) -> ModelRecord:
        seen.append(activity.live(RECORD).status)  # nothing is in memory any more
        return RECORD

    activity.submit("unload", RECORD, lane, lambda job: RECORD, settle)
    lane.call(lambda: None)
    assert seen == [Status.LOADED]
    assert (activity.live(RECORD).status, activity.job(1)) == (Status.READY, None)
