"""Nests that the tests run: shapes of loops, layouts, dtypes and index arithmetic in few words."""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.nest import COMBINERS, parse_nest
from planish.base.shapes import Dim, symbol
from planish.kernels.workload import (
    Operand,
    Workload,
    channels_last_strides,
    dense_strides,
)

F32, I64 = DType.F32, DType.I64
N = symbol("N")
ENVS = ({"N": 1}, {"N": 37}, {"N": 100})  # values of N that symbolic nests are run with


def tensor(*shape: Dim, dtype: DType = F32, strides: tuple[Dim, ...] | None = None) -> Operand:
    """An operand, dense unless strides are given."""
    return Operand(dtype, shape, dense_strides(shape) if strides is None else strides)


def image(*shape: Dim, dtype: DType = F32) -> Operand:
    """[N, C, *spatial] stored channels last."""
    return Operand(dtype, shape, channels_last_strides(shape))


def nest(inputs: list[Operand], output: Operand | list[Operand], *rows: str) -> Workload:
    """A nest from its text."""
    outputs = output if isinstance(output, list) else [output]
    text = "\n".join(["nest " + rows[0], *rows[1:]])
    return Workload("nest", tuple(inputs), tuple(outputs), nest=parse_nest(text), threads=2)


def softmax(rows: int, length: Dim) -> Workload:
    return nest(
        [tensor(rows, length)],
        tensor(rows, length),
        f"o0<{rows}",
        f"t0:f32 = max r0<{length} : (load:f32 0 o0 r0)",
        f"t1:f32 = map m0<{length} : (exp (sub (load:f32 0 o0 m0) (temp:f32 0)))",
        f"t2:f32 = sum r0<{length} : (temp:f32 1 r0)",
        f"t3:f32 = map m0<{length} : (div (temp:f32 1 m0) (temp:f32 2)) -> 0[ o0 m0 ]",
    )


def softmax_over_rows(rows: int, length: int) -> Workload:
    """Along the axis that is not contiguous, so that lanes are outer points."""
    return nest(
        [tensor(rows, length)],
        tensor(rows, length),
        f"o0<{length}",
        f"t0:f32 = max r0<{rows} : (load:f32 0 r0 o0)",
        f"t1:f32 = map m0<{rows} : (exp (sub (load:f32 0 m0 o0) (temp:f32 0)))",
        f"t2:f32 = sum r0<{rows} : (temp:f32 1 r0)",
        f"t3:f32 = map m0<{rows} : (div (temp:f32 1 m0) (temp:f32 2)) -> 0[ m0 o0 ]",
    )


def layer_norm(rows: int, length: int) -> Workload:
    scale = (1 / length).hex()
    return nest(
        [tensor(rows, length), tensor(length), tensor(length)],
        tensor(rows, length),
        f"o0<{rows}",
        f"t0:f32 = sum r0<{length} : (load:f32 0 o0 r0)",
        f"t1:f32 = map : (mul (temp:f32 0) {scale}:f32)",
        f"t2:f32 = sum r0<{length} : (mul (sub (load:f32 0 o0 r0) (temp:f32 1))"
        " (sub (load:f32 0 o0 r0) (temp:f32 1)))",
        f"t3:f32 = map : (rsqrt (add (mul (temp:f32 2) {scale}:f32) 0x1p-17:f32))",
        f"t4:f32 = map m0<{length} : (add (mul (mul (sub (load:f32 0 o0 m0) (temp:f32 1))"
        " (temp:f32 3)) (load:f32 1 m0)) (load:f32 2 m0)) -> 0[ o0 m0 ]",
    )


def pool(channels: int, size: int, out: int, kernel: int, stride: int, pad: int, how: str):
    h = f"(sub (add (mul o1 {stride}) r0) {pad})"
    w = f"(sub (add (mul o2 {stride}) r1) {pad})"
    inside = (
        f"(and (and (ge {h} 0) (lt {h} {size})) (and (ge {w} 0) (lt {w} {size})))"
        if pad
        else "1:bool"
    )
    other = "-inf:f32" if how == "max" else "0x0p+0:f32"
    return nest(
        [image(2, channels, size, size)],
        image(2, channels, out, out),
        f"o0<2 o1<{out} o2<{out}",
        f"t0:f32 = {how} m0<{channels} r0<{kernel} r1<{kernel} :"
        f" (select {inside} (load:f32 0 o0 m0 {h} {w}) {other})",
        f"t1:f32 = map m0<{channels} : (temp:f32 0 m0) -> 0[ o0 m0 o1 o2 ]",
    )


def transpose(n: int, c: int, h: int, w: int, dtype: DType = F32, back: bool = False) -> Workload:
    dense, last = tensor(n, c, h, w, dtype=dtype), image(n, c, h, w, dtype=dtype)
    return nest(
        [last if back else dense],
        dense if back else last,
        f"o0<{n} o1<{c} o2<{h}",
        f"t0:{dtype} = map m0<{w} : (load:{dtype} 0 o0 o1 o2 m0) -> 0[ o0 o1 o2 m0 ]",
    )


def pointwise(expr: str, *inputs: Operand, output: Operand | None = None) -> Workload:
    """A map over o0, o1 and m0 for three axes, fewer for fewer."""
    target = output or inputs[0]
    names = [*(f"o{n}" for n in range(len(target.shape) - 1)), "m0"]
    outer = " ".join(f"{v}<{e}" for v, e in zip(names[:-1], target.shape, strict=False))
    row = f"t0:{target.dtype} = map m0<{target.shape[-1]} : {expr} -> 0[ {' '.join(names)} ]"
    return nest(list(inputs), target, outer, row)


def reduction(combiner: str, dtype: DType, along: int, rows: int, length: int) -> Workload:
    """Along axis 0 (lanes are outer points) or 1 (lanes share a reduction)."""
    result = I64 if combiner.startswith("arg") else dtype
    keep, gone = (rows, length) if along else (length, rows)
    place = "o0 r0" if along else "r0 o0"
    return nest(
        [tensor(rows, length, dtype=dtype)],
        tensor(keep, dtype=result),
        f"o0<{keep}",
        f"t0:{result} = {combiner} r0<{gone} : (load:{dtype} 0 {place}) -> 0[ o0 ]",
    )


def _types() -> dict[str, Workload]:
    made = {}
    for d in (d for d in DType if d.llvm and d is not F32):
        made[f"copy_{d}"] = pointwise(f"(load:{d} 0 o0 m0)", tensor(7, 29, dtype=d))
        made[f"transpose_{d}"] = transpose(1, 37, 1, 29, d)
        if d is not DType.BOOL:
            made[f"sum_{d}"] = reduction("sum", d, 1, 5, 129)
            made[f"max_{d}"] = reduction("max", d, 0, 5, 33)
    return made


def _combiners() -> dict[str, Workload]:
    made = {}
    for combiner in COMBINERS:
        dtype = DType.BOOL if combiner == "or" else F32
        for along in (0, 1):
            made[f"{combiner}_axis{along}"] = reduction(combiner, dtype, along, 9, 77)
    return made


_INDEX = "(min (max (load:i64 1 {}) 0) 49)"
NESTS: dict[str, Workload] = {
    "add": pointwise("(add (load:f32 0 m0) (load:f32 1 m0))", tensor(1000), tensor(1000)),
    "one_element": pointwise("(neg (load:f32 0 m0))", tensor(1)),
    "scalar": nest([tensor()], tensor(), "", "t0:f32 = map : (neg (load:f32 0)) -> 0[ ]"),
    "three_channels": pointwise("(max (load:f32 0 o0 o1 m0) 0x0p+0:f32)", tensor(30, 30, 3)),
    "bias": pointwise(
        "(exp (add (load:f32 0 o0 o1 m0) (load:f32 1 m0)))", tensor(7, 7, 40), tensor(40)
    ),
    "broadcast": pointwise(
        "(mul (load:f32 0 o0 o1 m0) (load:f32 1 o1))", tensor(7, 6, 40), tensor(6)
    ),
    "strided_output": pointwise(
        "(neg (load:f32 0 o0 o1 m0))",
        tensor(5, 7, 24),
        output=tensor(5, 7, 24, strides=(7 * 40, 40, 1)),
    ),
    "strided_both": pointwise(
        "(load:f32 0 o0 (add (mul m0 2) 1))", tensor(5, 80), output=tensor(5, 39, strides=(90, 2))
    ),
    "reversed": pointwise("(load:f32 0 o0 (sub 79 m0))", tensor(5, 80)),
    "negative_strides": pointwise(
        "(load:f32 0 o0 m0)", tensor(5, 80, strides=(80, -1)), output=tensor(5, 80)
    ),
    "to_channels_last": transpose(2, 37, 25, 19),
    "to_channels_first": transpose(2, 37, 25, 19, back=True),
    "rgb_to_channels_last": transpose(1, 3, 20, 21),
    "small_transpose": transpose(1, 5, 3, 2),
    "transposed_operand": pointwise(
        "(max (mul (load:f32 1 o0) (add (load:f32 0 m0 o0) (load:f32 2 o0 m0))) 0x0p+0:f32)",
        tensor(50, 40), tensor(40), tensor(40, 50), output=tensor(40, 50),
    ),
    "softmax": softmax(15, 100),
    "softmax_short": softmax(300, 10),
    "softmax_over_rows": softmax_over_rows(21, 50),
    "layer_norm": layer_norm(6, 192),
    "max_pool": pool(70, 15, 8, 3, 2, 1, "max"),
    "sum_pool": pool(64, 9, 9, 3, 1, 1, "sum"),
    "wide_pool": pool(5, 14, 14, 5, 1, 2, "max"),
    "plain_pool": pool(33, 8, 4, 2, 2, 0, "max"),
    "global_sum": nest(
        [image(2, 70, 7, 7)],
        image(2, 70, 1, 1),
        "o0<2",
        "t0:f32 = sum m0<70 r0<7 r1<7 : (load:f32 0 o0 m0 r0 r1)",
        "t1:f32 = map m0<70 : (mul (temp:f32 0 m0) 0x1p-5:f32) -> 0[ o0 m0 0 0 ]",
    ),
    "sum_of_all": nest(
        [tensor(7, 11, 13)],
        tensor(1),
        "",
        "t0:f32 = sum r0<7 r1<11 r2<13 : (load:f32 0 r0 r1 r2)",
        "t1:f32 = map : (temp:f32 0) -> 0[ 0 ]",
    ),
    "two_outputs": nest(
        [tensor(6, 50)],
        [tensor(6, 50), tensor(6)],
        "o0<6",
        "t0:f32 = max r0<50 : (load:f32 0 o0 r0)",
        "t1:f32 = map m0<50 : (sub (load:f32 0 o0 m0) (temp:f32 0)) -> 0[ o0 m0 ]",
        "t2:f32 = map : (temp:f32 0) -> 1[ o0 ]",
    ),
    "upsample": nest(
        [image(1, 20, 5, 5)],
        image(1, 20, 10, 10),
        "o0<10 o1<10",
        "t0:f32 = map m0<20 : (load:f32 0 0 m0 (floordiv o0 2) (floordiv o1 2)) -> 0[ 0 m0 o0 o1 ]",
    ),
    "depth_to_space": nest(
        [tensor(1, 20, 5, 5)],
        tensor(1, 5, 10, 10),
        "o0<5 o1<10",
        "t0:f32 = map m0<10 : (load:f32 0 0 (add (mul (mod o1 2) 10) (add (mul (mod m0 2) 5) o0))"
        " (floordiv o1 2) (floordiv m0 2)) -> 0[ 0 o0 o1 m0 ]",
    ),
    "pad": pointwise(
        "(select (and (and (ge (sub o0 2) 0) (lt (sub o0 2) 3)) (and (ge (sub m0 11) 0)"
        " (lt (sub m0 11) 10))) (load:f32 0 (sub o0 2) (sub m0 11)) 0x1p+0:f32)",
        tensor(3, 10), output=tensor(7, 33),
    ),
    "gather_rows": pointwise(
        f"(load:f32 0 {_INDEX.format('o0')} m0)",
        tensor(50, 33), tensor(20, dtype=I64), output=tensor(20, 33),
    ),
    "gather_lanes": pointwise(
        f"(load:f32 0 {_INDEX.format('m0')})",
        tensor(50), tensor(21, dtype=I64), output=tensor(21),
    ),
    "running_sum": pointwise(
        "(select (eq m0 0) (load:f32 0 o0 m0)"
        " (add (load:f32 0 o0 m0) (load:f32 1 o0 (sub m0 1))))",
        tensor(4, 9),
    ),
    "scatter": nest(
        [tensor(50), tensor(9, dtype=I64), tensor(9)],
        tensor(50),
        "",
        "t0:f32 = map m0<50 : (load:f32 0 m0) -> 0[ m0 ]",
        f"t1:f32 = map m0<9 : (load:f32 2 m0) -> 0[ {_INDEX.format('m0')} ]",
    ),
    "empty": pointwise("(load:f32 0 o0 m0)", tensor(0, 5)),
    "sum_of_none": reduction("sum", F32, 1, 5, 0),
    "symbolic_batch": pointwise(
        "(add (load:f32 0 o0 o1 m0) (load:f32 1 o1))", tensor(N, 3, 50), tensor(3)
    ),
    "symbolic_length": pointwise("(exp (load:f32 0 o0 m0))", tensor(3, N)),
    "symbolic_softmax": softmax(3, N),
    "symbolic_sum": nest(
        [tensor(N, 40)], tensor(40), "o0<40", "t0:f32 = sum r0<N : (load:f32 0 r0 o0) -> 0[ o0 ]"
    ),
    **_combiners(),
    **_types(),
}  # fmt: skip
