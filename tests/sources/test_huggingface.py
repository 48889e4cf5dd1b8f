import inspect
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import huggingface_hub.errors
import pytest
from hub import GRANTED, PLAIN, Hub
from making import CONFIG, FAST, Watcher, content, make_repo, safetensors
from serving import AT_ONCE_S

from millm.errors import (
    Cancelled,
    DownloadFailed,
    GatedModel,
    HubUnavailable,
    InvalidRepoId,
    InvalidToken,
    MiLLMError,
    RepoNotFound,
    RevisionNotFound,
    UnsupportedModel,
)
from millm.records import ModelType, Source
from millm.sources.base import Origin, Plan
from millm.sources.hubfaults import translated
from millm.sources.huggingface import HuggingFace, parse_repo
from millm.tensors import TensorInfo

SECRET = "hf_a_token_nobody_knows"


def origin(repo_id: str = "acme/tiny", revision: str | None = None, code: bool = False) -> Origin:
    return Origin(Source.HUGGINGFACE, repo_id=repo_id, revision=revision, trust_remote_code=code)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(hub: Hub, cache: Path) -> HuggingFace:
    return HuggingFace(hub.url, FAST, plan_s=2, cache=cache, rest_s=0.5)


def plan(source: HuggingFace, repo_id: str = "acme/tiny", token: str | None = None, **more: object) -> Plan:
    return source.plan(origin(repo_id, **more), token)  # type: ignore[arg-type]


def test_a_plan_tells_everything_without_moving_weights(source: HuggingFace, hub: Hub, repo: Path) -> None:
    found = plan(source)
    assert [file.path for file in found.files] == ["README.md", "config.json", "tokenizer.json", "model.safetensors"]
    assert found.total_bytes == sum((repo / file.path).stat().st_size for file in found.files)
    assert (found.title, found.suggested_name, found.config) == ("acme/tiny", "tiny", CONFIG)
    assert (found.param_count, found.license, found.gated) == (150_000, "mit", False)
    assert found.commit == hub.repos.commit(repo)
    assert found.link == f"{hub.url}/acme/tiny"
    assert not found.warnings
    assert [request.kind for request in hub.requests] == ["api", "resolve"]


def test_headers_are_read_without_the_weights(source: HuggingFace, hub: Hub) -> None:
    found = plan(source)
    hub.requests.clear()
    assert source.tensors(found, None) == {"weight": TensorInfo("F16", (150_000,))}
    assert all(request.range for request in hub.requests)
    with pytest.raises(UnsupportedModel):
        source.tensors(replace(found, files=()), None)


def test_headers_of_a_hub_in_trouble_are_an_error(source: HuggingFace, hub: Hub, repo: Path) -> None:
    found = plan(source)
    hub.fault("resolve", "acme/tiny/*", status=503)
    with pytest.raises(HubUnavailable):
        source.tensors(found, None)
    gone = replace(found, origin=replace(found.origin, repo_id="acme/gone"))
    with pytest.raises(MiLLMError):
        source.tensors(gone, None)


def test_every_file_has_a_digest(source: HuggingFace) -> None:
    kinds = {file.path: (file.digest or "").partition(":")[0] for file in plan(source).files}
    assert kinds.pop("model.safetensors") == "sha256"
    assert set(kinds.values()) == {"git-sha1"}


def test_brings_what_was_planned(source: HuggingFace, repo: Path, tmp_path: Path) -> None:
    found, watcher = plan(source), Watcher()
    source.fetch(found, None, tmp_path / "out", watcher)
    for file in found.files:
        assert (tmp_path / "out" / file.path).read_bytes() == (repo / file.path).read_bytes()
    assert watcher.events[-1].bytes_done == found.total_bytes


def test_a_revision_is_pinned(source: HuggingFace, hub: Hub, repo: Path, tmp_path: Path) -> None:
    old = make_repo(repo.parent / "tiny@v1", config__json=CONFIG, model__safetensors=safetensors(content(100)))
    found = plan(source, revision="v1")
    assert (found.commit, found.origin.revision) == (hub.repos.commit(old), "v1")
    source.fetch(found, None, tmp_path, Watcher())
    assert (tmp_path / "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()
    assert {request.revision for request in hub.requests if request.kind != "api"} == {found.commit}
    assert plan(source, revision=found.commit).commit == found.commit


def test_a_pasted_address_is_understood(source: HuggingFace, hub: Hub, repo: Path) -> None:
    make_repo(repo.parent / "tiny@v1", config__json=CONFIG, model__safetensors=safetensors(content(100)))
    found = plan(source, f"{hub.url}/acme/tiny/tree/v1")
    assert (found.origin.repo_id, found.origin.revision) == ("acme/tiny", "v1")
    assert found.param_count == 50


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        (" google/gemma-2-2b ", "google/gemma-2-2b", None),
        ("https://huggingface.co/google/gemma-2-2b", "google/gemma-2-2b", None),
        ("https://huggingface.co/google/gemma-2-2b/", "google/gemma-2-2b", None),
        ("http://HuggingFace.co/a/b?library=transformers#use", "a/b", None),
        ("huggingface.co/a/b/tree/main", "a/b", "main"),
        ("https://hf.co/a/b/tree/refs%2Fpr%2F3/sub", "a/b", "refs/pr/3"),
        ("https://huggingface.co/a/b/blob/v1.0/config.json", "a/b", "v1.0"),
        ("https://huggingface.co/a/b/resolve/main/model.safetensors?download=true", "a/b", "main"),
        ("https://huggingface.co/a/b/discussions/4", "a/b", None),
        ("https://mirror.example/a/b/tree/x", "a/b", "x"),
    ],
)
def test_repository_ids(text: str, repo_id: str, revision: str | None) -> None:
    assert parse_repo(text, "https://mirror.example") == (repo_id, revision)


@pytest.mark.parametrize(
    "text",
    [
        *("", "gemma", "a/b/c", "a b/c", "../etc", "a/..", "a/b..c", ".hidden/x", "a/b\nc", "/a/b", "a/", "ä/b"),
        *("https://example.com/a/b", "https://huggingface.co/gemma", "https://huggingface.co/datasets/a/b"),
        *("https://huggingface.co/spaces/a/b", "https://huggingface.co/../..", "file:///a/b", "a/b?x=1"),
    ],
)
def test_what_is_no_repository_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRepoId):
        parse_repo(text, "https://huggingface.co")


def test_an_id_that_only_the_library_refuses(source: HuggingFace, hub: Hub) -> None:
    with pytest.raises(InvalidRepoId):
        plan(source, "a/" + 100 * "b")
    assert not hub.requests


def test_what_the_hub_does_not_have(source: HuggingFace, hub: Hub) -> None:
    with pytest.raises(RepoNotFound) as missing:
        plan(source, "acme/nothing")
    assert missing.value.message == "Model not found: 'acme/nothing' does not exist on HuggingFace."
    with pytest.raises(RepoNotFound):
        plan(source, "acme/nothing", token=PLAIN)
    with pytest.raises(RevisionNotFound, match="no branch, tag or commit 'v9'"):
        plan(source, revision="v9")
    hub.private.add("acme/tiny")
    with pytest.raises(RepoNotFound):
        plan(source, token=PLAIN)
    assert plan(source, token=GRANTED).title == "acme/tiny"


def test_a_gated_model_asks_for_a_token(source: HuggingFace, hub: Hub) -> None:
    hub.gated.add("acme/tiny")
    looked_at = plan(source)
    assert looked_at.gated
    assert looked_at.refusal is not None
    assert looked_at.refusal.message == (
        "Model 'acme/tiny' is gated. Accept its licence on HuggingFace and enter an access token."
    )
    assert (looked_at.license, looked_at.total_bytes > 300_000) == ("mit", True)
    assert plan(source, token=GRANTED).refusal is None


def test_a_wrong_token_is_said_and_never_shown(
    source: HuggingFace, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    found = plan(source)
    for wrong in (SECRET, f"{SECRET}\nx", f"{SECRET} ü"):
        with pytest.raises(InvalidToken) as planning:
            plan(source, token=wrong)
        with pytest.raises(InvalidToken) as fetching:
            source.fetch(found, wrong, tmp_path, Watcher())
        for error in (planning.value, fetching.value):
            assert SECRET not in f"{error!r} {error.details} {error.__cause__!r}"
    assert SECRET not in caplog.text + repr(source) + repr(vars(source))
    assert "invalid" in {request.auth for request in hub.requests}


def test_no_token_means_no_token(
    source: HuggingFace, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", GRANTED)
    for token in (None, "", "  "):
        source.fetch(plan(source, token=token), token, tmp_path, Watcher())
    assert {request.auth for request in hub.requests} == {"none"}


def test_the_token_goes_to_the_hub_only(source: HuggingFace, hub: Hub, tmp_path: Path) -> None:
    source.fetch(plan(source, token=f" {GRANTED}\n"), GRANTED, tmp_path, Watcher())
    assert {(request.kind, request.auth) for request in hub.requests} == {
        ("api", "granted"),
        ("resolve", "granted"),
        ("cdn", "none"),
    }


@pytest.mark.parametrize("status", [200, 429, 500, 503])
@pytest.mark.parametrize("kind", ["api", "resolve"])
def test_a_hub_in_trouble(source: HuggingFace, hub: Hub, kind: str, status: int) -> None:
    hub.fault(kind, status=status)
    with pytest.raises(HubUnavailable, match="does not answer"):
        plan(source)


@pytest.mark.parametrize(
    ("kind", "trouble"), [("api", {"hang_after": 0}), ("resolve", {"hang_after": 0}), ("resolve", {"throttle": 50})]
)
def test_a_plan_never_takes_long(hub: Hub, kind: str, trouble: dict[str, int]) -> None:
    hub.fault(kind, **trouble)
    start = time.monotonic()
    with pytest.raises(HubUnavailable):
        plan(HuggingFace(hub.url, plan_s=0.3))
    assert time.monotonic() - start < AT_ONCE_S


def test_a_hub_that_is_not_there(repo: Path) -> None:
    with Hub(repo) as gone:
        url = gone.url
    for endpoint in (url, "http://hub.invalid", "ftp://127.0.0.1", "http://127.0.0.1:1:2"):
        with pytest.raises(HubUnavailable):
            plan(HuggingFace(endpoint, plan_s=2))


def test_repositories_that_are_no_model(source: HuggingFace, repo: Path) -> None:
    make_repo(repo.parent / "empty", config__json=CONFIG, model__gguf=b"x", training_args__bin=b"x")
    with pytest.raises(UnsupportedModel, match="no safetensors or PyTorch weights"):
        plan(source, "acme/empty")
    make_repo(repo.parent / "bare", model__safetensors=safetensors(b""))
    with pytest.raises(UnsupportedModel, match=r"no config\.json"):
        plan(source, "acme/bare")
    make_repo(repo.parent / "odd", config__json="[]", model__safetensors=safetensors(b""))
    with pytest.raises(UnsupportedModel, match="not a JSON object"):
        plan(source, "acme/odd")
    make_repo(repo.parent / "huge", config__json="{}" + 10_000_000 * " ", model__safetensors=safetensors(b""))
    with pytest.raises(UnsupportedModel, match="too large"):
        plan(source, "acme/huge")


def test_warnings(source: HuggingFace, repo: Path) -> None:
    config = {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}
    make_repo(repo.parent / "own", config__json=config, modeling_mine__py="", pytorch_model__bin=b"pickle")
    found = plan(source, "acme/own")
    assert found.code_files == ("modeling_mine.py",)
    assert [warning.split()[0:3] for warning in found.warnings] == [["The", "weights", "are"]]
    assert "modeling_mine.py" not in [file.path for file in found.files]
    trusted = plan(source, "acme/own", code=True)
    assert "modeling_mine.py" in [file.path for file in trusted.files]


def test_access_lost_between_plan_and_fetch(source: HuggingFace, hub: Hub, repo: Path, tmp_path: Path) -> None:
    found = plan(source)
    hub.gated.add("acme/tiny")
    with pytest.raises(GatedModel):
        source.fetch(found, PLAIN, tmp_path, Watcher())
    hub.private.add("acme/tiny")
    with pytest.raises(RepoNotFound):
        source.fetch(found, None, tmp_path, Watcher())
    hub.gated.clear()
    hub.private.clear()
    (repo / "model.safetensors").unlink()
    with pytest.raises(DownloadFailed, match="has changed on HuggingFace"):
        source.fetch(found, None, tmp_path, Watcher())


# Errors of things we never ask of the library: its cache, command line, uploads, inference, sign-in, other formats.
NEVER_MET = {
    *("CacheNotFound", "CorruptedCacheException", "CachedRepoTreeNotFoundError", "RevisionResolutionError"),
    *("CLIError", "ConfirmationError", "CLIExtensionInstallError", "OIDCError", "DeviceCodeError", "OAuthErrorCode"),
    *("InferenceEndpointError", "InferenceEndpointTimeoutError", "SandboxError", "SandboxCommandError"),
    *("SafetensorsParsingError", "NotASafetensorsRepoError", "XetDownloadError", "FileDuplicationError"),
    *("DDUFError", "DDUFCorruptedFileError", "DDUFExportError", "DDUFInvalidEntryNameError", "EntryNotFoundError"),
    *("StrictDataclassError", "StrictDataclassDefinitionError", "StrictDataclassFieldValidationError"),
    *("StrictDataclassClassValidationError", "HfUriError"),
}
EXPECTED = {
    "GatedRepoError": GatedModel,
    "RepositoryNotFoundError": RepoNotFound,
    "DisabledRepoError": RepoNotFound,
    "RevisionNotFoundError": RevisionNotFound,
    "HFValidationError": InvalidRepoId,
}
LIBRARY = [
    kind
    for _, kind in inspect.getmembers(huggingface_hub.errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == huggingface_hub.errors.__name__
]
CLIENT = [
    kind
    for _, kind in inspect.getmembers(httpx2, inspect.isclass)
    if issubclass(kind, (httpx2.HTTPError, httpx2.InvalidURL))
]


def make_error(kind: type[Exception], status: int = 500) -> Exception:
    request = httpx2.Request("GET", "http://hub")
    if issubclass(kind, huggingface_hub.errors.HfHubHTTPError):
        return kind("no", response=httpx2.Response(status, request=request))
    if issubclass(kind, httpx2.HTTPStatusError):
        return kind("no", request=request, response=httpx2.Response(status, request=request))
    return kind("no")


@pytest.mark.parametrize(
    "kind", [k for k in LIBRARY + CLIENT if k.__name__ not in NEVER_MET], ids=lambda k: k.__name__
)
def test_every_error_of_the_library_is_translated(kind: type[Exception]) -> None:
    with pytest.raises(MiLLMError) as caught, translated("acme/tiny", "main"):
        raise make_error(kind)
    assert type(caught.value) is EXPECTED.get(kind.__name__, HubUnavailable)


def test_the_list_of_errors_never_met_is_exact() -> None:
    assert NEVER_MET - {"OAuthErrorCode"} <= {kind.__name__ for kind in LIBRARY}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, InvalidToken), (403, InvalidToken), (404, RepoNotFound), (429, HubUnavailable), (502, HubUnavailable)],
)
def test_answers_without_an_error_code_are_told_apart_by_status(status: int, kind: type[MiLLMError]) -> None:
    with pytest.raises(kind), translated("acme/tiny", None):
        raise make_error(huggingface_hub.errors.HfHubHTTPError, status)


def test_our_own_errors_and_bugs_pass() -> None:
    for error in (UnsupportedModel("x"), AttributeError("x")):
        with pytest.raises(type(error)), translated("acme/tiny", None):
            raise error


def fill_cache(hub: Hub, cache: Path) -> Path:
    """Downloads acme/tiny with huggingface_hub itself; returns the folder of its blobs."""
    huggingface_hub.snapshot_download("acme/tiny", endpoint=hub.url, cache_dir=cache, token=False)
    return cache / "models--acme--tiny" / "blobs"


def test_files_of_the_hugging_face_cache_are_not_downloaded_again(
    source: HuggingFace, hub: Hub, cache: Path, repo: Path, tmp_path: Path
) -> None:
    blobs = fill_cache(hub, cache)
    found, out, watcher = plan(source), tmp_path / "out", Watcher()
    before = len(hub.requests)
    source.fetch(found, None, out, watcher)
    assert len(hub.requests) == before
    assert watcher.events[-1].bytes_done == found.total_bytes
    for file in found.files:
        assert (out / file.path).read_bytes() == (repo / file.path).read_bytes()
    assert any((out / "model.safetensors").samefile(blob) for blob in blobs.iterdir())
    for file in found.files:
        (out / file.path).unlink()
    source.fetch(found, None, out, Watcher())
    assert len(hub.requests) == before


def test_a_damaged_cache_does_not_spread_and_is_not_written_to(
    source: HuggingFace, hub: Hub, cache: Path, repo: Path, tmp_path: Path
) -> None:
    blobs = fill_cache(hub, cache)
    weights = max(blobs.iterdir(), key=lambda blob: blob.stat().st_size).resolve()
    weights.chmod(0o644)
    damaged = b"?" + weights.read_bytes()[1:]
    weights.write_bytes(damaged)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").hardlink_to(weights)  # as an earlier try, before the damage, would have left it
    source.fetch(plan(source), None, out, Watcher())
    assert (out / "model.safetensors").read_bytes() == (repo / "model.safetensors").read_bytes()
    assert weights.read_bytes() == damaged


def test_reading_a_large_cache_can_be_cancelled(source: HuggingFace, hub: Hub, cache: Path, tmp_path: Path) -> None:
    fill_cache(hub, cache)
    with pytest.raises(Cancelled):
        source.fetch(plan(source), None, tmp_path / "out", Watcher(lambda: True))


def test_a_hub_that_does_not_answer_is_left_in_peace_for_a_while(source: HuggingFace, hub: Hub) -> None:
    hub.fault("api", status=503, times=5)
    for _ in range(5):
        with pytest.raises(HubUnavailable):
            plan(source)
    asked = len(hub.requests)
    with pytest.raises(HubUnavailable, match="asked again in 1 second") as refused:
        plan(source)
    assert refused.value.details["seconds"] == 1
    assert len(hub.requests) == asked
    time.sleep(0.5)
    assert plan(source).title == "acme/tiny"


def test_answers_that_say_no_never_close_the_way_to_the_hub(source: HuggingFace, hub: Hub) -> None:
    hub.gated.add("acme/tiny")
    for _ in range(4):
        with pytest.raises(RepoNotFound):
            plan(source, "acme/nothing")
        assert isinstance(plan(source).refusal, GatedModel)
        with pytest.raises(InvalidToken):
            plan(source, token=SECRET)
    assert plan(source, token=GRANTED).gated


def test_no_token_and_no_licence_are_told_apart(source: HuggingFace, hub: Hub) -> None:
    hub.gated.add("acme/tiny")
    refusals = [plan(source).refusal, plan(source, token=PLAIN).refusal]
    assert [bool(each and each.details.get("token_is_valid")) for each in refusals] == [False, True]
    assert all(each and each.details["link"] == f"{hub.url}/acme/tiny" for each in refusals)
    assert "not accepted with this access token" in str(refusals[1])


def test_a_plan_tells_what_a_person_decides_on(source: HuggingFace, hub: Hub, cache: Path, repo: Path) -> None:
    bare = plan(source)
    assert (bare.format, bare.chat_template, bare.code_files, bare.cached_bytes) == ("safetensors", False, (), 0)
    fill_cache(hub, cache)
    (repo / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (repo / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModelForCausalLM": "modeling.X"}}')
    (repo / "modeling.py").write_text("class X: ...")
    full = plan(source)
    assert (full.chat_template, full.code_files) == (True, ("modeling.py",))
    assert full.cached_bytes == sum(
        (repo / name).stat().st_size for name in ("model.safetensors", "tokenizer.json", "README.md")
    )
    (repo / "model.safetensors").rename(repo / "pytorch_model.bin")
    assert plan(source).format == "pickle"


def typed(model_type: ModelType, repo_id: str) -> Origin:
    return Origin(Source.HUGGINGFACE, repo_id=repo_id, model_type=model_type)


def make_pipeline(repo: Path) -> Path:
    """A diffusers pipeline beside the small model: two folders that it names, one that it does not."""
    folder = make_repo(
        repo.parent / "pipeline",
        model_index__json={
            "_class_name": "P",
            "unet": ["diffusers", "U"],
            "vae": ["diffusers", "V"],
            "extra": [None, None],
        },
        all_in_one__safetensors=safetensors(content(90_000)),
    )
    for name in ("unet", "vae", "extra"):
        make_repo(folder / name, config__json={"_class_name": name})
        (folder / name / "model.safetensors").write_bytes(safetensors(content(80_000)))
    (folder / "unet" / "model.fp16.safetensors").write_bytes(safetensors(content(40_000)))
    return folder


def test_a_pipeline_comes_with_its_folders(source: HuggingFace, hub: Hub, repo: Path, tmp_path: Path) -> None:
    there = make_pipeline(repo)
    found = source.plan(typed(ModelType.IMAGE_GEN, "acme/pipeline"), None)
    weights = {"unet/model.fp16.safetensors", "vae/model.safetensors"}
    assert {file.path for file in found.files} == weights | {
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
    }
    assert "variant 'fp16'" in " ".join(found.warnings)
    source.fetch(found, None, tmp_path / "out", Watcher())
    brought = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.suffix}
    assert brought == {file.path for file in found.files}
    assert all((tmp_path / "out" / name).read_bytes() == (there / name).read_bytes() for name in brought)


def test_files_of_the_same_name_are_gone_on_with_apart(
    source: HuggingFace, hub: Hub, repo: Path, tmp_path: Path
) -> None:
    make_pipeline(repo)
    found = source.plan(typed(ModelType.IMAGE_GEN, "acme/pipeline"), None)
    hub.fault("cdn", "*vae/model.safetensors", status=503, times=8)
    with pytest.raises(DownloadFailed):
        source.fetch(found, None, tmp_path / "out", Watcher())
    asked = len(hub.requests)
    source.fetch(found, None, tmp_path / "out", Watcher())
    assert not [each for each in hub.requests[asked:] if each.kind == "cdn" and "unet" in each.target]
    assert (tmp_path / "out/vae/config.json").read_bytes() != (tmp_path / "out/unet/config.json").read_bytes()


def test_a_voice_needs_no_config_of_ours(source: HuggingFace, repo: Path) -> None:
    make_repo(repo.parent / "voice", model_file__pth__tar=b"pickle" * 99, config__json="{}", demo__wav=b"la")
    found = source.plan(typed(ModelType.TTS, "acme/voice"), None)
    assert ({file.path for file in found.files}, found.format) == ({"config.json", "model_file.pth.tar"}, "pickle")
    make_repo(repo.parent / "bare", model__pth=b"pickle" * 99)
    assert len(source.plan(typed(ModelType.LIP_SYNC, "acme/bare"), None).files) == 1
    with pytest.raises(UnsupportedModel, match=r"no config\.json"):
        plan(source, "acme/bare")


def test_the_hub_is_searched_by_name(source: HuggingFace, hub: Hub, repo: Path) -> None:
    for name in ("tiny-chat", "tiny-chat-long", "other"):
        make_repo(repo.parent / name, config__json="{}")
    hub.gated.add("acme/tiny-chat")
    found = source.search("TINY")
    assert [each.repo_id for each in found] == ["acme/tiny-chat-long", "acme/tiny-chat", "acme/tiny"]
    assert [each.gated for each in found] == [False, True, False]
    assert source.search("nothing like it") == ()
    hub.fault("api", status=500)
    with pytest.raises(HubUnavailable):
        source.search("tiny")


def test_what_does_not_open_is_not_fetched(source: HuggingFace, hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("acme/tiny")
    closed = plan(source)
    asked = len(hub.requests)
    with pytest.raises(GatedModel):
        source.fetch(closed, None, tmp_path / "out", Watcher())
    assert len(hub.requests) == asked
