from __future__ import annotations

import pytest

from planish.base.errors import BuildError, PlanFileError
from planish.targets import cpu, requirements
from planish.targets.cpu import CpuTarget, compile_object, host_target
from planish.targets.ir import Module, Val

HASWELL = frozenset(("sse2", "avx2", "fma", "bmi2", "f16c"))
ALDER_LAKE = HASWELL | {"avxvnni"}
SKYLAKE = HASWELL | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}
ICE_LAKE = SKYLAKE | {"avx512vnni"}


def _target(monkeypatch: pytest.MonkeyPatch, features: frozenset[str], isa: str = "") -> CpuTarget:
    monkeypatch.setattr(cpu, "host_features", lambda: features)
    monkeypatch.setattr(requirements, "host_features", lambda: features)
    monkeypatch.setattr(cpu, "_machine", lambda: "x86_64")
    return host_target(isa=isa, threads=1)


@pytest.mark.parametrize(
    ("features", "isa", "expected"),
    [
        (ICE_LAKE, "", ("avx512", "bytes")),
        (ICE_LAKE, "avx2", ("avx2", "pairs")),
        (ICE_LAKE, "generic", ("generic", "pairs")),
        (SKYLAKE, "", ("avx512", "pairs")),
        (ALDER_LAKE, "", ("avx2", "bytes")),
        (ALDER_LAKE, "generic", ("generic", "pairs")),
        (HASWELL, "", ("avx2", "pairs")),
    ],
)
def test_the_best_that_isa_and_host_have(
    monkeypatch: pytest.MonkeyPatch,
    features: frozenset[str],
    isa: str,
    expected: tuple[str, str],
) -> None:
    target = _target(monkeypatch, features, isa)
    assert (target.isa, target.dot) == expected
    assert f"/{target.dot}/" in str(target)


def test_code_of_a_capped_target_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The capped CPU of AVX2 code lacks the byte products unless they are named."""
    target = _target(monkeypatch, ALDER_LAKE)
    if not target.triple.startswith("x86_64"):
        pytest.skip("LLVM compiles for another architecture here")
    module = Module()
    f = module.function("run", [("ptr", "at")])
    total, byte = f.load("<8 x i32>", f.params["at"]), f.load("<32 x i8>", f.params["at"])
    made = f.call("llvm.x86.avx512.vpdpbusd.256", total.ty, [total, byte, byte])
    f.store(Val(total.ty, made.ref), f.params["at"])
    f.ret()
    assert compile_object(module.text(), target)


def test_a_plan_that_uses_it_is_refused_where_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = requirements.requirements(_target(monkeypatch, ALDER_LAKE))
    assert "avxvnni" in needed["needs"]
    requirements.check_host(needed, "m.plan")
    _target(monkeypatch, HASWELL)
    with pytest.raises(PlanFileError, match="avxvnni"):
        requirements.check_host(needed, "m.plan")


def test_a_plan_without_it_runs_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = requirements.requirements(_target(monkeypatch, HASWELL))
    assert "avxvnni" not in needed["needs"]
    _target(monkeypatch, ALDER_LAKE)
    requirements.check_host(needed, "m.plan")


def test_the_cap_still_asks_for_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="avx512f"):
        _target(monkeypatch, ALDER_LAKE, "avx512")
