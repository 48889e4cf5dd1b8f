"""How fast the page is, what it moves, and what it costs the server and the browser.

    python bench/page.py [--rounds 5] [--idle 20]

The page is `app.py`'s own, in a process of its own, with twelve models in its list; Chromium opens it. To compare: a
page of the same look that does nothing (`bench/bare_page.py`), opened in turn with it. Cold: a browser that was never
there. Warm: the same browser again. Click to change: from the click to the change of the page, both measured in the
page. Truth: from the answer of the API until the last of eight pages shows it. Idle: processor time of the server,
with so many open pages and a download under way. Streaming: an engine that writes a hundred tokens a second, and the
share of the time that the main thread of the browser is busy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import httpx  # noqa: E402
import psutil  # noqa: E402
from browsing import DESK, launch  # noqa: E402
from hub import Hub  # noqa: E402
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright  # noqa: E402
from running import App, free_port, start_app, wait_until_up  # noqa: E402
from serving import until  # noqa: E402
from tiny_models import build  # noqa: E402

from millm.records import ModelRecord, Status  # noqa: E402

CARDS = 12
CARD = ".model-card h2"
# When a card can be seen first, and when it is gradio's and can be pressed, in ms since the navigation began; asked
# for before anything of the page runs. What is seen before gradio is there stands in a shadow tree.
WATCH = """
sessionStorage.setItem('millm-tab', 'models');
const attach = Element.prototype.attachShadow;
let early = null;
Element.prototype.attachShadow = function (how) { const root = attach.call(this, how); early ??= root; return root; };
const visible = (root) => root?.querySelector('.model-card h2')?.checkVisibility({ visibilityProperty: true });
const first = (...roots) => new Promise((seen) => {
  const look = () => {
    document.getElementById('tab-models-button')?.getAttribute('aria-selected') === 'false'
      && document.getElementById('tab-models-button').click();
    if (roots.some((root) => visible(root()))) requestAnimationFrame(() => seen(performance.now()));
    else setTimeout(look, 5);
  };
  look();
});
window.cardSeen = first(() => document, () => early);
window.cardLive = first(() => document);"""
# From a click to the first change that matters, in ms.
CLICK = """([button, changed]) => new Promise((done) => {
  const start = performance.now();
  const look = () => { if (eval(changed)) { watching.disconnect(); done(performance.now() - start); } };
  const watching = new MutationObserver(look);
  watching.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  document.querySelector(button).click();
})"""


def fill(cache: Path) -> None:
    """A list of twelve models."""
    rows = {
        str(n): ModelRecord(
            id=n,
            name=f"model-{n}",
            repo_id=f"acme/model-{n}",
            params="4.0B",
            disk_size_mb=2600.0,
            status=Status.ERROR,
        ).to_dict()
        for n in range(1, CARDS + 1)
    }
    cache.mkdir()
    (cache / "registry.json").write_text(json.dumps({"models": rows}))


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A program of Python that runs as long as the context lasts."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def bare_page() -> Iterator[str]:
    """The page that does nothing; gives its address."""
    port = free_port()
    with running(ROOT / "bench" / "bare_page.py", str(port)):
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url), 60)
        yield url


def answers(url: str) -> bool:
    """Whether a server is up."""
    with suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


@contextmanager
def scene_of_its_own(folder: Path) -> Iterator[str]:
    """The server over fakes, in a process of its own; gives its address."""
    with running(ROOT / "tests" / "scenes.py", folder, str(free_port())) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def busy(session: CDPSession) -> float:
    """Seconds that the main thread of a page has worked."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


def opened(context: BrowserContext, url: str) -> dict[str, float]:
    """Opens the page; seconds until the first card can be seen and pressed, and what was sent for it."""
    page = context.new_page()
    page.add_init_script(WATCH)
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    moved = {"requests": 0, "bytes": 0}

    def count(event: dict[str, Any]) -> None:
        moved["requests"] += 1
        moved["bytes"] += event["encodedDataLength"]

    session.on("Network.loadingFinished", count)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # so that other programs do not count
    page.goto(url)
    seen, live = (page.evaluate(f"window.{name}") / 1000 for name in ("cardSeen", "cardLive"))
    page.wait_for_load_state("load")
    found = {"seen": seen, "live": live, "busy": busy(session), **moved}
    page.close()
    return found


def first_card(browser: Browser, pages: dict[str, str], rounds: int) -> None:
    """Opens the pages in turn. pages: addresses by what they are called."""
    for name in ("cold", "warm"):
        found: dict[str, list[dict[str, float]]] = {called: [] for called in pages}
        for called, url in [*pages.items()] * rounds:
            context = browser.new_context(viewport=DESK)
            if name == "warm":
                opened(context, url)
            found[called].append(opened(context, url))
            context.close()
        for called, each in found.items():
            seen, live = ([one[what] for one in each] for what in ("seen", "live"))
            print(
                f"first card, {name}, {called}: seen after {statistics.median(seen):.2f} s "
                f"({min(seen):.2f} to {max(seen):.2f}), to be pressed after {statistics.median(live):.2f} s "
                f"({min(live):.2f} to {max(live):.2f}), main thread "
                f"{statistics.median(one['busy'] for one in each):.2f} s, "
                f"{statistics.median(one['bytes'] for one in each) / 1000:.0f} kB in "
                f"{statistics.median(one['requests'] for one in each):.0f} requests"
            )


def clicks(browser: Browser, pages: dict[str, str], rounds: int) -> None:
    """From a click to the change, in turn: in the page alone, through the server, and through gradio's queue too."""
    open_pages = {called: browser.new_page(viewport=DESK) for called in pages}
    for called, page in open_pages.items():
        page.goto(pages[called])
        page.locator("#tab-models-button").click()
        page.locator(CARD).first.wait_for()
    shown = "document.querySelector('#tab-{}-button').ariaSelected === 'true'"
    tabs = [(f"#tab-{name}-button", shown.format(name)) for name in ("download", "models")]
    cards = "document.querySelector('.model-card')"
    filters = [("#filter-status input[value=Ready]", f"!{cards}"), ("#filter-status input[value=Error]", cards)]
    toast = [("[id^=retry-btn-]", "document.querySelector('.toast-body')")]
    for way, moves in (("in the page", tabs), ("not queued", filters), ("queued", toast)):
        found: dict[str, list[float]] = {called: [] for called in pages}
        for called, page in [*open_pages.items()] * rounds:
            page.bring_to_front()
            for button, changed in moves:
                found[called].append(page.evaluate(CLICK, [button, changed]))
                page.wait_for_timeout(300)
                for close in page.locator(".toast-close").all():
                    close.click()
                page.locator(".toast-body").first.wait_for(state="detached")
        for called, times in found.items():
            print(f"click to change, {way}, {called}: {statistics.median(times):.0f} ms (most {max(times):.0f})")
    for page in open_pages.values():
        page.close()


def idle(browser: Browser, app: App, seconds: float, while_: str) -> None:
    """What open pages cost the server. while_: what else it does."""
    server = psutil.Process(app.process.pid)
    pages: list[Page] = []
    context = browser.new_context(viewport=DESK)
    for count in (0, 1, 5):
        while len(pages) < count:
            pages.append(context.new_page())
            pages[-1].goto(app.url)
            pages[-1].locator("#tab-models-button").click()
            pages[-1].locator(CARD).first.wait_for()
        time.sleep(2)
        before = server.cpu_times()
        time.sleep(seconds)
        after = server.cpu_times()
        used = (after.user + after.system - before.user - before.system) / seconds
        print(f"server with {count} open pages, {while_}: {100 * used:.1f} % of a core")
    context.close()


def streaming(browser: Browser, url: str, seconds: float) -> None:
    """What an answer at a hundred tokens a second costs the browser."""
    page = browser.new_page(viewport=DESK)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # so that other programs do not count
    page.goto(url)
    page.locator("#tab-playground-button").click()
    page.locator("#no-model .mi-start").wait_for()
    page.evaluate(
        "window.long = []; new PerformanceObserver((list) => list.getEntries().forEach("
        "(each) => window.long.push(each.duration))).observe({ entryTypes: ['longtask'] })"
    )
    page.locator("#chat-input textarea").fill("Explain quantization, on and on.")
    page.locator("#send-btn").click()
    page.locator("#chat-log table").first.wait_for()

    for part in ("first", "next"):
        began, before = time.monotonic(), busy(session)
        page.wait_for_timeout(1000 * seconds)
        share = (busy(session) - before) / (time.monotonic() - began)
        told = page.locator("#chat-stats b").all_inner_texts()
        long = page.evaluate("window.long.splice(0)")
        print(
            f"streaming, {part} {seconds:.0f} s: main thread {100 * share:.0f} %, {len(long)} tasks over 50 ms"
            f"{f' (longest {max(long):.0f} ms)' if long else ''}; {told[0]} tok/s, {told[2]} tokens so far"
        )
    page.locator("#stop-btn").click()
    page.close()


def truth(browser: Browser, url: str, rounds: int) -> None:
    """How long eight pages of one browser take to show what the API did."""
    context = browser.new_context(viewport=DESK)
    number = httpx.get(f"{url}/api/models").json()["data"][0]["id"]
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(url)
        page.locator("#tab-models-button").click()
        page.locator(CARD).first.wait_for()
        page.evaluate("""window.seen = {}; new MutationObserver(() => document.querySelectorAll('.model-card h2')
          .forEach((each) => window.seen[each.innerText] ??= Date.now()))
          .observe(document.body, { subtree: true, childList: true, characterData: true })""")
    found = []
    for turn in range(rounds):
        name = f"renamed-{turn}"
        httpx.patch(f"{url}/api/models/{number}", json={"name": name})
        done = time.time() * 1000
        for page in pages:
            page.wait_for_function("name => window.seen[name]", arg=name)
            found.append(page.evaluate("name => window.seen[name]", name) - done)
        time.sleep(0.37)
    print(f"eight pages show a change: median {statistics.median(found):.0f} ms, last {max(found):.0f} ms")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(f"load of this machine before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        fill(folder / "cache")
        build("llama", folder / "repos" / "acme" / "bigger", size="bigger")
        browser = launch(playwright)
        with Hub(folder / "repos") as hub:
            hub.fault("cdn", "*", throttle=20_000)
            app = wait_until_up(start_app(folder / "cache", folder / "log", HF_ENDPOINT=hub.url, LOG_LEVEL="WARNING"))
            try:
                time.sleep(10)  # until torch is imported
                with bare_page() as bare:
                    pages = {"ours": app.url, "bare": bare}
                    first_card(browser, pages, options.rounds)
                    clicks(browser, pages, 2 * options.rounds)
                truth(browser, app.url, options.rounds)
                idle(browser, app, options.idle, "nothing under way")
                origin = {"source": "huggingface", "repo_id": "acme/bigger", "quantization": "FP16"}
                httpx.post(f"{app.url}/api/models", json=origin).raise_for_status()
                idle(browser, app, options.idle, "a download under way")
            finally:
                app.process.kill()
        with scene_of_its_own(folder / "scene") as url:
            streaming(browser, url, options.idle)
        browser.close()


if __name__ == "__main__":
    main()
