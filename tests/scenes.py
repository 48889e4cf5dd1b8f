"""The page over fakes in this process: a hub with four models, an engine that talks, and what is to be seen of them.

    with Scene(folder) as scene:
        scene.arrange(QWEN, PHI, loaded=QWEN)
        scene.open(page, "models")  # a page of Playwright's

To try it by hand: `python tests/scenes.py FOLDER PORT`.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from running import PATIENCE_S

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent)]

from app import LIBRARY_ENVIRONMENT

os.environ.update(LIBRARY_ENVIRONMENT)  # gradio reads it while it is imported

import uvicorn
from fakes import FakeEngine, FakeFetcher, FakeOpener, make_manager

from millm import ui
from millm.api import GuardPolicy, create_app
from millm.devices import Device
from millm.engines.base import WELL, ChatRequest, Completion, Health, LoadOptions
from millm.errors import DownloadFailed, RepoNotFound
from millm.events import Event, Report, Stage
from millm.jobs import Lane
from millm.records import ModelRecord, Quantization, Source
from millm.settings import read_settings
from millm.sources.base import Origin, Plan, PlannedFile

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent
SOON = PATIENCE_S * 1000  # milliseconds
DIGEST = "sha256:" + "0" * 64  # given, so that nobody reads gigabytes of nothing
GPU = Device("cuda", "NVIDIA GeForce RTX 4090", 24 * 10**9, 19 * 10**9)

FREE_DISK = 400 * 10**9

ANSWER = """Quantization stores each weight with fewer bits. **Q4** keeps 4 bits instead of 16, so a model takes \
about a quarter of the memory, and it reads those bytes faster too.

| form | bits | memory of a 4B model |
|---|---|---|
| FP16 | 16 | 8.0 GB |
| Q8 | 8 | 4.3 GB |
| Q4 | 4 | 2.6 GB |

```python
from openai import OpenAI

client = OpenAI(base_url="http://localhost:7860/v1", api_key="none")
print(client.models.list().data[0].id)
```

The price is a little precision: answers differ now and then, mostly in small details.
"""

QWEN, PHI, GEMMA, MISTRAL = (
    "Qwen/Qwen3-4B-Instruct-2507",
    "microsoft/Phi-4-mini-instruct",
    "google/gemma-3-4b-it",
    "mistralai/Mistral-Small-3.2-24B",
)
REPOS = {  # parameters, hidden size, layers, heads, key-value heads, context
    QWEN: (4_022_468_096, 2560, 36, 32, 8, 262_144),
    PHI: (3_836_021_760, 3072, 32, 24, 8, 131_072),
    GEMMA: (4_300_079_472, 2560, 34, 8, 4, 131_072),
    MISTRAL: (23_572_403_200, 5120, 40, 32, 8, 131_072),
}


class Shop(FakeFetcher):
    """A hub with four repositories, whose files are holes. One download stays where it is, one fails."""

    stuck = GEMMA
    broken = MISTRAL

    def plan(self, origin: Origin, token: str | None) -> Plan:
        if origin.repo_id not in REPOS:
            raise RepoNotFound(f"Model not found: '{origin.repo_id}' does not exist on HuggingFace.")
        count, hidden, layers, heads, groups, context = REPOS[origin.repo_id]
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "intermediate_size": 4 * hidden,
            "vocab_size": 151_936,
            "max_position_embeddings": context,
        }
        files = (PlannedFile("config.json", 2, None), PlannedFile("model.safetensors", 2 * count, DIGEST))
        return Plan(
            origin=origin,
            title=origin.repo_id,
            suggested_name=origin.repo_id.split("/")[1],
            files=files,
            commit="c0ffee" + "0" * 34,
            param_count=count,
            config=config,
            license="apache-2.0",
            link=f"https://huggingface.co/{origin.repo_id}",
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        total, repo = plan.total_bytes, plan.origin.repo_id
        part = Event(Stage.DOWNLOADING, 67, total * 67 // 100, total, 50.2e6, 31)
        report(part if repo in (self.stuck, self.broken) else replace(part, progress=100.0))
        while repo == self.stuck:
            time.sleep(0.05)
            report(part)
        if repo == self.broken:
            raise DownloadFailed("The connection to huggingface.co broke off. What has arrived is kept.")
        for file in plan.files:
            with (folder / file.path).open("wb") as hole:
                hole.write(b"{}")
                hole.truncate(file.size)


class Talker(FakeEngine):
    """Writes a hundred tokens a second: what a message asks it to repeat, or the same answer; or without an end."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        asked = request.messages[-1].content
        said = asked.removeprefix("Repeat: ") if asked.startswith("Repeat: ") else ANSWER
        words = re.findall(r"\S+\s*", said)
        if "on and on" in asked:
            words *= 1000
        self.running += 1
        try:
            for count, word in enumerate(words, 1):
                report(Event(Stage.GENERATING, text=word, tokens=count))
                time.sleep(self.pause_s)
        finally:
            self.running -= 1
        return Completion("".join(words), "stop", 12, len(words), 0.04, 99.2)


class Opening(FakeOpener):
    """Opens talkers; the model in `held` stays on its way."""

    held = ""
    health = WELL

    def __call__(self, record: ModelRecord, options: LoadOptions, report: Report) -> FakeEngine:
        report(Event(Stage.LOADING_WEIGHTS, 62))
        while record.name == self.held:
            time.sleep(0.05)
            report(Event(Stage.LOADING_WEIGHTS, 62))
        return Talker(self.engine_pause_s, 2_600_000_000, health=self.health)


class Scene:
    """A server over fakes, and its manager to arrange things with. The built-in model is in its list."""

    def __init__(self, folder: Path, port: int = 0, pause_s: float = 0.01) -> None:
        """port: 0 takes a free one. pause_s: seconds between two tokens."""
        self._opening = Opening(engine_pause_s=pause_s)
        self.manager = make_manager(
            folder,
            Shop(),
            self._opening,
            guide=ROOT / "models" / "millm-guide",
            quantizer=lambda *_: None,
            devices=(GPU,),
            free_disk=FREE_DISK,
        )
        settings = read_settings(["--model-cache-dir", str(folder)], {"HF_TOKEN": "hf_secret"})
        app = ui.mount(create_app(self.manager, GuardPolicy()), self.manager, settings)
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
        self._lane = Lane("server")

    def __enter__(self) -> "Scene":
        self._serving = self._lane.submit(lambda _: self._server.run())
        while not self._server.started:
            assert not self._serving.done, self._serving.error
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._serving.wait(PATIENCE_S)
        self.manager.close(5)

    def arrange(
        self, *repos: str, loaded: str = "", loading: str = "", health: Health = WELL
    ) -> dict[str, ModelRecord]:
        """Makes the list exactly these repositories and the built-in model; gives the records by repository."""
        self._opening.held, self._opening.health = "", health
        for record in self.manager.records():
            if self.manager.job(record.id):
                self.manager.cancel(record.id)
        if self.manager.loaded():
            self._settle(lambda: self.manager.unload(self.manager.loaded().id))
        for record in self.manager.records():
            if not record.built_in and record.repo_id not in repos:
                self.manager.delete(record.id)
        for repo in repos:
            if not any(record.repo_id == repo for record in self.manager.records()):
                self._bring(repo)
        found = {record.repo_id or record.name: record for record in self.manager.records()}
        if loaded:
            self._settle(lambda: self.manager.load(found[loaded].id))
        if loading:
            self._opening.held = found[loading].name
            self.manager.load(found[loading].id)
        return found

    def _bring(self, repo: str) -> None:
        record = self.manager.download(Origin(Source.HUGGINGFACE, repo), quantization=Quantization.FP16)
        if repo == Shop.stuck:
            return
        job = self.manager.job(record.id)
        assert job is None or job.wait(PATIENCE_S)
        if repo == QWEN:  # as if it had been quantized
            form = {"quantization": Quantization.Q4, "disk_size_mb": 2610.0, "estimated_memory_mb": 3420.0}
            self.manager._registry.update(record.id, **form)

    def _settle(self, order: Callable[[], ModelRecord]) -> None:
        job = self.manager.job(order().id)
        assert job is None or job.wait(PATIENCE_S)

    def open(self, page: "Page", tab: str = "download") -> None:
        """Loads the page afresh and shows a tab."""
        page.goto(self.url)
        page.locator("#status-live .mi-status").wait_for()
        page.locator("p.loading").wait_for(state="detached")  # gradio's own, which is there for some moments
        page.locator(f"#tab-{tab}-button").click()
        page.locator(f"#tab-{tab}-button[aria-selected=true]").wait_for()


if __name__ == "__main__":
    with Scene(Path(sys.argv[1]), int(sys.argv[2])) as scene:
        scene.arrange(QWEN, PHI, loaded=QWEN)
        sys.stdout.write(f"{scene.url}\n")
        sys.stdout.flush()
        while True:
            time.sleep(1)
