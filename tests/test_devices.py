"""What the machine has left, within the limits of its container."""

from pathlib import Path

from millm.devices import container_limits, cpu, list_devices, process_bytes, ram

GB = 10**9


def group(folder: Path, limit: str, used: int, cache: int = 0, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\nactive_file {cache}\ninactive_file 0\n")


def limits(tmp_path: Path, membership: str) -> list[tuple[int, int]]:
    (tmp_path / "cgroup").write_text(membership)
    return container_limits(tmp_path / "cgroup", tmp_path / "tree")


def test_the_devices_of_this_machine_are_plausible() -> None:
    for device in list_devices():
        assert 0 < device.free <= device.total
    assert 10_000_000 < process_bytes() < 64 * GB


def test_ram_and_processor_are_named(tmp_path: Path) -> None:
    assert 0 < ram().free <= ram().total
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: Another\n")
    assert cpu(tmp_path / "cpuinfo").name == "A CPU @ 2 GHz"
    assert cpu(tmp_path / "nothing").name
    assert cpu().threads >= 1


def test_a_limit_of_version_two_and_reclaimable_cache(tmp_path: Path) -> None:
    group(tmp_path / "tree" / "box", f"{4 * GB}", 3 * GB, cache=GB)
    assert limits(tmp_path, "0::/box\n") == [(4 * GB, 2 * GB)]


def test_an_ancestor_may_hold_the_limit(tmp_path: Path) -> None:
    group(tmp_path / "tree" / "pod", f"{2 * GB}", GB)
    group(tmp_path / "tree" / "pod" / "box", "max", GB)
    assert limits(tmp_path, "0::/pod/box\n") == [(2 * GB, GB)]


def test_version_one_and_its_number_for_no_limit(tmp_path: Path) -> None:
    group(tmp_path / "tree" / "memory" / "box", f"{8 * GB}", GB, version=1)
    group(tmp_path / "tree" / "memory", f"{2**63 - 4096}", GB, version=1)
    assert limits(tmp_path, "9:cpu:/x\n5:memory:/box\n") == [(8 * GB, GB)]


def test_no_control_groups_no_limits(tmp_path: Path) -> None:
    assert container_limits(tmp_path / "none", tmp_path) == []
    assert limits(tmp_path, "0::/\n") == []
