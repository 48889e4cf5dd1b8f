"""A real Ray of two nodes on this machine: two `ray start` processes with ports and folders of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from running import PATIENCE_S, free_ports

RAY = str(Path(sys.executable).with_name("ray"))
MARK = "RAY_OF_A_TEST"  # which every process of a node inherits
ALIKE = [
    "--num-cpus=1",
    "--object-store-memory=100000000",
    "--disable-usage-stats",
    "--min-worker-port=0",  # any that is free
    "--max-worker-port=0",
]


class RayCluster:
    """Two nodes with one core each, up between `start` and `close`. Only programs with `environment` may connect."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # names of sockets must be short
        self._port, self._client_port = free_ports(2)
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.urandom(16).hex(),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self) -> None:
        """Starts head and worker, and returns when both are up."""
        self.start_head()
        self.start_worker()

    def start_head(self) -> None:
        """Starts the node without which there is no other."""
        head = [f"--port={self._port}", f"--ray-client-server-port={self._client_port}", "--include-dashboard=false"]
        self._run("start", "--head", f"--temp-dir={self._folder}", *head, *ALIKE)

    def start_worker(self) -> None:
        """Starts the other node."""
        self._run("start", f"--address=127.0.0.1:{self._port}", *ALIKE)

    def close(self) -> None:
        """Ends it all and removes what it wrote."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Ends every process of it at once, head and workers, as if the machines had lost their power."""
        found = self.processes()
        for process in found:
            process.kill()
        psutil.wait_procs(found, 20)

    def processes(self) -> list[psutil.Process]:
        """Everything that its nodes run."""
        return processes_with(MARK, str(self._folder))

    def _run(self, *arguments: str) -> None:
        environment = {**os.environ, **self.environment, MARK: str(self._folder)}
        del environment["RAY_ADDRESS"]
        run = subprocess.run([RAY, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert run.returncode == 0, run.stdout + run.stderr


def processes_with(name: str, value: str) -> list[psutil.Process]:
    """The living processes with this variable in their environment, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            given = process.environ().get(name) == value and process.pid != os.getpid()
            if given and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def replicas_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of them that hold a model."""
    return [process for process in processes if "ServeReplica" in title(process)]


def title(process: psutil.Process) -> str:
    """Its command line; "" once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
