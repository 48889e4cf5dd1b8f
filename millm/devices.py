"""What this machine has left: memory of each GPU, or RAM within the limits of its container."""

import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """Memory that a model can be put in. kind: "cuda" or "cpu". total, free: bytes."""

    kind: str
    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """What calculates where there is no GPU. threads: how many this process may use; cores: None where unknown."""

    name: str
    threads: int
    cores: int | None


def list_devices() -> tuple[Device, ...]:
    """Every NVIDIA GPU, or the RAM of this machine when it has none."""
    return _gpus() or (ram(),)


def cpu(described: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The processor of this machine."""
    try:
        lines = described.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = next(named, "") or platform.processor() or platform.machine()
    return Cpu(name, threads, psutil.cpu_count(logical=False))


def process_bytes() -> int:
    """Bytes of RAM that belong to this process alone (resident, without shared and file-backed pages)."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _gpus() -> tuple[Device, ...]:
    """Asked through NVML, because asking CUDA itself would take some 400 MB on each GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(Device("cuda", str(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)))
        return tuple(found)
    except pynvml.NVMLError as error:
        log.warning("the NVIDIA driver does not say how much memory its GPUs have: %s", error)
        return ()
    finally:
        pynvml.nvmlShutdown()


def ram() -> Device:
    """The RAM of this machine, or of its container where that is less."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    for limit, used in container_limits():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Device("cpu", "RAM", total, free)


def container_limits(
    membership: Path = Path("/proc/self/cgroup"), tree: Path = Path("/sys/fs/cgroup")
) -> list[tuple[int, int]]:
    """The memory limits this process runs under: (limit, used without reclaimable page cache), in bytes.

    Reads control groups of version 2 and 1, of this process's own group and all its ancestors, because any of
    them may hold the limit. Empty where there are none.
    """
    if not membership.exists():
        return []
    found = []
    for line in membership.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = tree / "memory" if controllers else tree
        limit_name, used_name = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        folder = base / group.lstrip("/")
        while True:
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < 1 << 62:
                found.append((limit, max(0, used - _page_cache(folder / "memory.stat"))))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return found


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _page_cache(path: Path) -> int:
    try:
        rows = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
    except OSError:
        return 0
    return sum(int(rows.get(name, 0)) for name in ("active_file", "inactive_file"))
