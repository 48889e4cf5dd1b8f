"""The process that speaks with Ray for miLLM: Ray ends a process that has lost its node or its head.

It deploys the replicas, passes on what they are asked and what they answer, a JSON object a line, and takes all of it
away again as soon as nobody is at its standard input any more.
"""

import asyncio
import importlib
import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from millm.child import voice
from millm.engines.plain import plain_error
from millm.engines.ray import INSTALL
from millm.errors import LoadFailed, MiLLMError, RemoteUnavailable
from millm.loops import in_own_loop
from millm.ray_requests import Requests, Say
from millm.ray_status import described, details, first_line, messages, open_error, problem, replicas
from millm.replica import AT_ONCE, Replica

UP_S = 900.0  # for the replicas to come up; where a cluster grows, nodes are started meanwhile
LOOK_S = 1.0  # between two looks at the replicas
HEAD_S = 5.0  # for Ray's head to answer such a look
CONNECT_S = 120.0  # for Ray to start or to be reached, and for Serve to take the application
STEP_S = 12.0  # for a step of the opening to end before that
LEAVE_S = 12.0  # to take everything away
TARGET = 17  # requests at a replica, ours to listen among them, above which another is started if there may be more
CONTROL_S = "0.5"  # between two looks of our own Ray's controller; at its usual 0.1 s it takes 4 % of a core for ever
OWN_STORE = 100_000_000  # bytes of Ray's object store, which nothing of ours goes through
LONGEST_LINE = 1 << 30  # bytes


class Driver:
    """One application on Ray Serve.

    asked: its name, the cluster's address ("" for one of our own), the fewest and the most replicas, cpus and gpus of
    each, their environment, and what each of them is told.
    """

    def __init__(self, asked: dict[str, Any], say: Say) -> None:
        self._asked = asked
        self._say = say
        self._name: str = asked["name"]
        self._handle: Any = None
        self._requests: Requests | None = None
        self._began_serve = False
        self._stepping: asyncio.Task[None] | None = None
        self._look: asyncio.Task[dict[str, Any]] | None = None

    async def open(self) -> None:
        """Deploys and waits until the fewest replicas are up. Raises `MiLLMError`."""
        await _reach(self._asked["address"])
        for step in (self._connect, self._deploy):
            self._stepping = asyncio.create_task(asyncio.to_thread(step))
            done, _ = await asyncio.wait({self._stepping}, timeout=CONNECT_S)  # half a step could not be taken back
            if not done:
                raise RemoteUnavailable(f"Ray did not answer within {CONNECT_S:.0f} s. Is it the right token?")
            self._stepping.result()
        loop, fewest = asyncio.get_running_loop(), self._asked["fewest"]
        deadline = loop.time() + UP_S
        while (found := await self._application()).get("status") != "RUNNING":
            up = sum(replica["state"] == "RUNNING" for replica in replicas(found))
            self._say({"up": up, "of": fewest})
            if found.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise open_error(messages(found))
            if loop.time() > deadline:
                raise LoadFailed(f"Only {up} of {fewest} replicas came up in {UP_S:.0f} s. {messages(found)}"[:1000])
            await asyncio.sleep(LOOK_S / 4)
        self._requests = Requests(self._handle, self._say)
        self._say({"opened": json.loads(await self._handle.about.remote())})

    def hear(self, told: dict[str, Any]) -> None:
        """Begins a request, or cancels one. Called once it is open."""
        assert self._requests is not None
        self._requests.hear(told)

    async def watch(self) -> None:
        """Says how the replicas are, as long as it runs. Called once it is open."""
        requests = self._requests
        assert requests is not None
        while True:
            try:
                found = await self._application()
                each = [described(replica, requests.running()) for replica in replicas(found)]
                self._say({"replicas": each, "problem": problem(each, self._asked["fewest"])})
                requests.lines.away = False
            except Exception as error:  # noqa: BLE001  (whatever Ray raises, the person sees it, and the next look may do)
                requests.lines.away = True
                why = "does not answer" if isinstance(error, TimeoutError) else f"fails: {first_line(error)}"
                self._say({"problem": f"Ray's head {why}. If it does not come back, load the model again."})
            await asyncio.sleep(LOOK_S)

    async def leave(self) -> None:
        """Takes the application away, and Ray itself where it is our own, after a step of the opening that runs."""
        if self._stepping:
            await asyncio.wait({self._stepping}, timeout=STEP_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._take_away), LEAVE_S)

    def _take_away(self) -> None:
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        away = self._requests is not None and self._requests.lines.away
        if self._asked["address"] and not away:  # a head that is gone took it along
            with suppress(Exception):
                serve.delete(self._name)
                if self._began_serve and not serve.status().applications:
                    serve.shutdown()
        ray.shutdown()

    def _connect(self) -> None:
        address = self._asked["address"]
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not address:  # a key of its own for each start, which nobody has to keep
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", CONTROL_S)
        try:
            ray = importlib.import_module("ray")
            from ray import serve
        except ImportError as error:
            raise LoadFailed(INSTALL) from error
        modules = {"py_modules": [str(Path(__file__).parent)]}
        own = {"num_cpus": self._cores(), "include_dashboard": False, "object_store_memory": OWN_STORE}
        try:
            ray.init(address=address or "local", runtime_env=modules, log_to_driver=False, **({} if address else own))
        except Exception as error:
            where = f"be reached at {address} with this token" if address else "start here"
            raise RemoteUnavailable(f"Ray cannot {where}: {first_line(error)}") from error
        needed = self._asked["fewest"] * self._asked["gpus"]
        if not address and needed > (there := ray.cluster_resources().get("GPU", 0)):
            raise LoadFailed(f"The replicas need {needed:g} GPUs; this machine has {there:g}.")
        self._began_serve = not serve.status().applications
        serve.start(proxy_location="Disabled")

    def _cores(self) -> int:
        """What a Ray of our own says it has: as much as the replicas are to have, or they would never start."""
        return max(os.cpu_count() or 1, int(self._asked["most"] * self._asked["cpus"] + 1))

    def _deploy(self) -> None:
        import ray
        from ray import serve
        from ray.serve.config import RequestRouterConfig

        from millm.ray_router import FewestFirst

        asked = self._asked
        fewest, most = asked["fewest"], asked["most"]
        bounds = {"min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": TARGET}
        environment = {"OMP_NUM_THREADS": str(max(1, int(asked["cpus"]))), **asked["environment"]}
        modules = ray.get_runtime_context().runtime_env["py_modules"]  # where the cluster keeps our code by now
        deployment = serve.deployment(
            Replica,
            name="model",
            **({"num_replicas": fewest} if fewest == most else {"autoscaling_config": bounds}),
            max_ongoing_requests=AT_ONCE + 1,  # this process listens to each
            request_router_config=RequestRouterConfig(request_router_class=FewestFirst),
            max_constructor_retry_count=1,  # what cannot be opened once cannot be opened twice
            health_check_period_s=2,
            graceful_shutdown_timeout_s=1,  # whoever closes has let the requests finish
            graceful_shutdown_wait_loop_s=0.2,
            ray_actor_options={
                "num_cpus": asked["cpus"],
                "num_gpus": asked["gpus"],
                "runtime_env": {"py_modules": modules, "env_vars": environment},
            },
        )
        target = serve.RunTarget(deployment.bind(json.dumps(asked["told"])), name=self._name, route_prefix=None)
        self._handle = serve.run_many([target], wait_for_applications_running=False)[0]

    async def _application(self) -> dict[str, Any]:
        """What Serve's controller knows of ours. Raises `TimeoutError`, and `LookupError` if it knows nothing."""
        self._look = self._look or asyncio.create_task(asyncio.to_thread(details))
        done, _ = await asyncio.wait({self._look}, timeout=HEAD_S)
        if not done:
            raise TimeoutError
        self._look = None
        found: dict[str, Any] = done.pop().result()["applications"][self._name]
        return found


async def _reach(address: str) -> None:
    """Raises `RemoteUnavailable` if nobody listens at a head's address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), HEAD_S)
    except OSError as error:  # TimeoutError is one
        raise RemoteUnavailable(
            f"Nobody answers at {address}. Start Ray's head there, or set RAY_ADDRESS."
        ) from error
    writer.close()


async def _drive(say: Say) -> None:
    """Does what standard input says until it ends."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    driver = Driver(json.loads(await lines.readline()), say)
    work = asyncio.create_task(_run(driver, say))
    try:
        while line := await lines.readline():
            driver.hear(json.loads(line))
    finally:
        work.cancel()
        await driver.leave()


async def _run(driver: Driver, say: Say) -> None:
    """Opens and watches; an error of the opening is for the one who asked to raise."""
    try:
        await driver.open()
    except Exception as error:  # noqa: BLE001
        known = error if isinstance(error, MiLLMError) else LoadFailed(f"Ray failed: {first_line(error)}")
        return say({"failed": plain_error(known)})
    return await driver.watch()


def main() -> None:
    """Runs until standard input ends; then nothing of it is left, and no thread that waits for Ray holds it up."""
    in_own_loop(_drive(voice()))
    os._exit(0)


if __name__ == "__main__":
    main()
