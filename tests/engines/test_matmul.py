"""Every way of multiplying computes the same; which is the fastest is found by measuring."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from torch.nn import functional

from millm.engines import matmul
from millm.engines.matmul import Multiply, Way, fastest, linear

pytestmark = pytest.mark.slow

FAST = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
WAYS = [
    matmul.plain,
    matmul.by_row,
    matmul.copied,
    pytest.param(matmul.packed, marks=pytest.mark.skipif(not FAST, reason="this processor has no fast bfloat16")),
]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


@pytest.mark.parametrize("lacks", [False, True], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("shape", [(1, 1, 96), (1, 96), (2, 1, 96), (1, 5, 96), (3, 40, 96)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_compute_the_same(
    monkeypatch: pytest.MonkeyPatch, way: Way, shape: tuple[int, ...], biased: bool, lacks: bool
) -> None:
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: lacks)
    monkeypatch.setattr(matmul, "FEW_BLOCK", 1000)  # ten rows, and what is left over
    monkeypatch.setattr(matmul, "MANY_BLOCK", 2000)
    x, weight, bias = numbers(*shape), numbers(64, 96), numbers(64) if biased else None
    expected = functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    found = way(weight)(x, bias)
    assert (found.shape, found.dtype) == (expected.shape, torch.bfloat16)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.2)


def test_float32_is_exact_but_for_the_last_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: True)
    x, weight, bias = numbers(5, 96), numbers(64, 96), numbers(64)
    expected = functional.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(linear(x, weight, bias).double(), expected, rtol=2**-8, atol=1e-4)


def test_only_copies_are_copies() -> None:
    x, weight = numbers(1, 96), numbers(64, 96)
    ways = [way(weight) for way in (matmul.plain, matmul.by_row, matmul.copied)]
    weight.zero_()
    assert [bool(multiply(x, None).any()) for multiply in ways] == [False, False, True]


@pytest.mark.parametrize(("lacks", "may_copy", "copies"), [(0, 1, True), (0, 0, False), (1, 1, False), (1, 0, False)])
def test_weights_are_copied_where_that_helps(
    monkeypatch: pytest.MonkeyPatch, lacks: bool, may_copy: bool, copies: bool
) -> None:
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: lacks)
    assert (set(matmul.ways(may_copy)) <= set(matmul.COPY)) is copies


def slowed(by: float, weight: torch.Tensor) -> Multiply:
    def multiply(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        time.sleep(by)
        return functional.linear(x, weight, bias)

    return multiply


def test_the_fastest_is_found_by_measuring(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(matmul, "TIMED_BYTES", 1)
    slow, fast = partial(slowed, 0.2), partial(slowed, 0.0)
    slow.__name__, fast.__name__ = "slow", "fast"  # type: ignore[attr-defined]
    weights = [numbers(64, 96)] * 2
    with caplog.at_level("INFO"):
        assert fastest([slow, fast], weights) is fast
        assert fastest([fast, slow], weights) is fast
    assert "multiplying: slow " in caplog.text


def test_one_that_is_hardly_faster_is_not_worth_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {matmul.plain: 1.0, matmul.by_row: 0.9, matmul.copied: 0.8}
    monkeypatch.setattr(matmul, "_time", lambda way, sample: seconds[way])
    monkeypatch.setattr(matmul, "TIMED_BYTES", 1)
    assert fastest([matmul.plain, matmul.by_row], [numbers(8, 8)]) is matmul.plain
    assert fastest([matmul.plain, matmul.by_row, matmul.copied], [numbers(8, 8)]) is matmul.copied


def test_as_many_weights_are_timed_as_no_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []
    monkeypatch.setattr(matmul, "TIMED_BYTES", 300)
    monkeypatch.setattr(matmul, "_time", lambda way, sample: timed.append(len(sample)) or 1.0)
    fastest([matmul.plain], [numbers(8, 8)] * 9)  # of 128 bytes
    assert timed == [3]
    assert fastest([matmul.plain, matmul.by_row], [numbers(8, 8)] * 2) is matmul.plain
    assert timed == [3], "what fits into caches says little"


@pytest.mark.skipif("avx2" not in torch.backends.cpu.get_cpu_capability().lower() and not FAST, reason="not an x86")
def test_a_processor_without_bfloat16_is_known_by_measuring() -> None:
    program = "from millm.engines.matmul import lacks_bfloat16; print(lacks_bfloat16())"
    older = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | older, capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "True\n", found.stderr
