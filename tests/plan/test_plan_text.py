"""Plans as text."""

from __future__ import annotations

from full_plan import full_plan

from planish.plan import plan_text

TEXT = """\
plan tiny
  target avx2, 2 threads
  input  data: f32[N,3,H,8]
  input  k: i64[]
  output y: i64[2,M]
  profile N 1..2..8, H 4..4..64
  memory arena 4,096, scratch 128 a worker, weights 38 in 5, code 22, lower_bound 4,000, \
naive 9,999, planned 4,096, heap 16*M, heap 0
  stages import 57, fuse_epilogue 21
     0 [*] g0 conv_1 = cpu.conv_f32.direct mr=6 nr=4 (input0, weight1, arena+64, -; \
N, floordiv(H+1,2)) units floordiv(N+3,4)+7 f32 12.2 us from Conv_0, Relu_1
         - fastest of 4
         - winograd: refused, stride 2
     1 [*] nonzero_2 = host NonZero(arena+64: f32[N,2], -) -> heap0: i64[2,M], heap1: i64[?] \
100.0 us from NonZero_3
         - its size depends on data
     2 [*] g1 last = cpu.conv_f32.direct mr=6 nr=4 (heap0, output0; M) \
units floordiv(N+3,4)+7 f32 12.2 us from Conv_0, Relu_1
         - fastest of 4
         - winograd: refused, stride 2
"""


def test_text() -> None:
    assert plan_text(full_plan(name="tiny"), reasons=True, times=True) == TEXT
    short = plan_text(full_plan(name="tiny"))
    assert " us" not in short and "fastest" not in short
