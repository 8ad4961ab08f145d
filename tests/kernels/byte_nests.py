"""Nests over 8-bit data as quantised graphs bring them: pools, copies, sums, the input."""

from __future__ import annotations

import itertools

import numpy as np
from nests import image, nest, pointwise, tensor

from planish.base.dtypes import DType
from planish.base.expr import Expr, Load, Temp, Var, call, const, parse_expr, print_expr
from planish.kernels.workload import Operand, Workload, dense_strides

F32, I32, U8, I8 = DType.F32, DType.I32, DType.U8, DType.I8
SIXTH = float(np.float32(0.1679))  # a scale that is no power of two


def quantized(x: Expr, scale: float, zero: int | None, dtype: DType = U8) -> Expr:
    """QuantizeLinear as the operator declares it; None for a zero point that is left out."""
    limits = np.iinfo(dtype.numpy)
    whole = call("round", call("div", x, const(scale, F32)))
    if zero is None:
        low, high = const(float(limits.min), F32), const(float(limits.max), F32)
        return call("cast", call("min", call("max", whole, low), high), dtype=dtype)
    span = const(255.0, F32)
    held = call("min", call("max", whole, call("neg", span)), span)
    total = call("add", call("cast", held, dtype=I32), const(zero, I32))
    low, high = const(int(limits.min), I32), const(int(limits.max), I32)
    return call("cast", call("min", call("max", total, low), high), dtype=dtype)


def real(x: Expr, scale: float, zero: int | None) -> Expr:
    """DequantizeLinear as the operator declares it."""
    if zero is None:
        return call("mul", call("cast", x, dtype=F32), const(scale, F32))
    distance = call("sub", call("cast", x, dtype=I32), const(zero, I32))
    return call("mul", call("cast", distance, dtype=F32), const(scale, F32))


def relu(x: Expr) -> Expr:
    return call("max", x, const(0.0, F32))


def _at(shape: tuple[int, ...]) -> tuple[Expr, ...]:
    return (*(Var(f"o{n}") for n in range(len(shape) - 1)), Var("m0"))


def bytes_of(shape: tuple[int, ...], dtype: DType = U8, number: int = 0) -> Load:
    return Load(number, _at(shape), dtype)


def add_requantized(
    shape: tuple[int, ...], zeros: tuple[int, int, int] = (3, 7, 0), dtype: DType = U8
) -> Workload:
    """relu(a + b) of two tensors with scales of their own."""
    a = real(bytes_of(shape, dtype), 0.125 * SIXTH, zeros[0])
    b = real(bytes_of(shape, dtype, 1), 0.3 * SIXTH, zeros[1])
    total = quantized(relu(call("add", a, b)), 0.21 * SIXTH, zeros[2], dtype)
    x = tensor(*shape, dtype=dtype)
    return pointwise(print_expr(total), x, x)


def unary(fn: str, shape: tuple[int, ...], dtype: DType = U8) -> Workload:
    """A function of a quantised tensor, quantised."""
    x = real(bytes_of(shape, dtype), 0.05, 100 if dtype is U8 else -5)
    if fn == "hardswish":
        gate = call("div", call("add", x, const(3.0, F32)), const(6.0, F32))
        value = call("mul", x, call("min", relu(gate), const(1.0, F32)))
    else:
        value = call("mul", x, call("sigmoid", x)) if fn == "silu" else call(fn, x)
    return pointwise(print_expr(quantized(value, 0.03, 11, dtype)), tensor(*shape, dtype=dtype))


def quantize(shape: tuple[int, ...], scale: float, zero: int | None, dtype: DType) -> Workload:
    value = quantized(Load(0, _at(shape), F32), scale, zero, dtype)
    return pointwise(print_expr(value), tensor(*shape), output=tensor(*shape, dtype=dtype))


def dequantize(shape: tuple[int, ...], zero: int | None, dtype: DType) -> Workload:
    value = real(bytes_of(shape, dtype), SIXTH, zero)
    return pointwise(print_expr(value), tensor(*shape, dtype=dtype), output=tensor(*shape))


def requantize(shape: tuple[int, ...], clip: bool = True) -> Workload:
    """What ends an integer layer: accumulators times a factor a channel."""
    total = call("add", Load(0, _at(shape), I32), Load(1, (Var("m0"),), I32))
    value = call("mul", call("cast", total, dtype=F32), Load(2, (Var("m0"),), F32))
    value = quantized(relu(value) if clip else value, 1.0, 0 if clip else 121)
    return pointwise(
        print_expr(value),
        tensor(*shape, dtype=I32), tensor(shape[-1], dtype=I32), tensor(shape[-1]),
        output=tensor(*shape, dtype=U8),
    )  # fmt: skip


def input_image(
    n: int, c: int, h: int, w: int, border: int = 0, channels: int = 0, zero: int = 114
) -> Workload:
    """A picture in f32, channels first → u8, channels last, padded with the zero point."""
    out = (n, channels or c, h + 2 * border, w + 2 * border)
    x = quantized(
        parse_expr(f"(load:f32 0 o0 m0 (sub o1 {border}) (sub o2 {border}))"), 0.0186, zero
    )
    checks = [f"(lt m0 {c})"] * (channels > c)
    for name, extent in (("o1", h), ("o2", w)):
        at = f"(sub {name} {border})"
        checks += [f"(ge {at} 0)", f"(lt {at} {extent})"] * (border > 0)
    for check in checks:
        x = call("select", parse_expr(check), x, const(zero, U8))
    return nest(
        [tensor(n, c, h, w)],
        image(*out, dtype=U8),
        f"o0<{n} o1<{out[2]} o2<{out[3]}",
        f"t0:u8 = map m0<{out[1]} : {print_expr(x)} -> 0[ o0 m0 o1 o2 ]",
    )


def max_pool(channels: int, size: int, out: int, kernel: int, stride: int, pad: int,
             dtype: DType = U8) -> Workload:  # fmt: skip
    h = f"(sub (add (mul o1 {stride}) r0) {pad})"
    w = f"(sub (add (mul o2 {stride}) r1) {pad})"
    x = f"(load:{dtype} 0 o0 m0 {h} {w})"
    if pad:
        inside = f"(and (and (ge {h} 0) (lt {h} {size})) (and (ge {w} 0) (lt {w} {size})))"
        x = f"(select {inside} {x} {0 if dtype is U8 else -128}:{dtype})"
    return nest(
        [image(2, channels, size, size, dtype=dtype)],
        image(2, channels, out, out, dtype=dtype),
        f"o0<2 o1<{out} o2<{out}",
        f"t0:{dtype} = max m0<{channels} r0<{kernel} r1<{kernel} : {x} -> 0[ o0 m0 o1 o2 ]",
    )


def average_pool(
    channels: int, size: int, kernel: int, pad: int, zero: int = 9, scale: float = 0.125
) -> Workload:
    """AveragePool of what is dequantised, quantised; windows count their padding."""
    out = size + 2 * pad - kernel + 1
    h, w = f"(sub (add o1 r0) {pad})", f"(sub (add o2 r1) {pad})"
    x = print_expr(real(parse_expr(f"(load:u8 0 o0 m0 {h} {w})"), scale, zero))
    if pad:
        inside = f"(and (and (ge {h} 0) (lt {h} {size})) (and (ge {w} 0) (lt {w} {size})))"
        x = f"(select {inside} {x} 0x0p+0:f32)"
    mean = call("div", Temp(0, (Var("m0"),), F32), const(float(kernel * kernel), F32))
    final = print_expr(quantized(mean, scale, zero))
    return nest(
        [image(2, channels, size, size, dtype=U8)],
        image(2, channels, out, out, dtype=U8),
        f"o0<2 o1<{out} o2<{out}",
        f"t0:f32 = sum m0<{channels} r0<{kernel} r1<{kernel} : {x}",
        f"t1:u8 = map m0<{channels} : {final} -> 0[ o0 m0 o1 o2 ]",
    )


def global_average(channels: int, size: int, zero: int = 0) -> Workload:
    x = print_expr(real(parse_expr("(load:u8 0 o0 m0 r0 r1)"), 0.125, zero))
    mean = call("div", Temp(0, (Var("m0"),), F32), const(float(size * size), F32))
    return nest(
        [image(2, channels, size, size, dtype=U8)],
        image(2, channels, 1, 1, dtype=U8),
        "o0<2",
        f"t0:f32 = sum m0<{channels} r0<{size} r1<{size} : {x}",
        f"t1:u8 = map m0<{channels} : {print_expr(quantized(mean, 0.0625, zero))}"
        " -> 0[ o0 m0 0 0 ]",
    )


def copy(
    shape: tuple[int, ...], source: tuple[int, ...] | None = None, target: tuple[int, ...] = (),
    dtype: DType = U8,
) -> Workload:  # fmt: skip
    """A copy between two layouts, given by their strides."""
    x = Operand(dtype, shape, source or dense_strides(shape))
    y = Operand(dtype, shape, target or dense_strides(shape))
    return pointwise(print_expr(bytes_of(shape, dtype)), x, output=y)


def shuffle(pixels: int, groups: int, channels: int) -> Workload:
    """Channel shuffle, channels last: [pixel, group, channel] → [pixel, channel, group]."""
    shape = (pixels, channels, groups)
    return copy(shape, source=(channels * groups, 1, channels))


def upsample(channels: int, size: int) -> Workload:
    return nest(
        [image(1, channels, size, size, dtype=U8)],
        image(1, channels, 2 * size, 2 * size, dtype=U8),
        f"o0<{2 * size} o1<{2 * size}",
        f"t0:u8 = map m0<{channels} : (load:u8 0 0 m0 (floordiv o0 2) (floordiv o1 2))"
        " -> 0[ 0 m0 o0 o1 ]",
    )


def pad(channels: int, size: int, border: int, zero: int = 114) -> Workload:
    """A border of zero points around pixels, channels last."""
    out = size + 2 * border
    y, x = f"(sub o0 {border})", f"(sub o1 {border})"
    inside = f"(and (and (ge {y} 0) (lt {y} {size})) (and (ge {x} 0) (lt {x} {size})))"
    return nest(
        [image(1, channels, size, size, dtype=U8)],
        image(1, channels, out, out, dtype=U8),
        f"o0<{out} o1<{out}",
        f"t0:u8 = map m0<{channels} : (select {inside} (load:u8 0 0 m0 {y} {x}) {zero}:u8)"
        " -> 0[ 0 m0 o0 o1 ]",
    )


def _sizes() -> dict[str, Workload]:
    """Rows of every length around the vectors."""
    made = {}
    for length in (1, 3, 7, 15, 16, 17, 24, 33, 63, 64, 65, 130):
        made[f"add_{length}"] = add_requantized((3, length))
        made[f"copy_{length}"] = copy((3, length), target=(150, 1))
        made[f"max_{length}"] = max_pool(length, 5, 3, 3, 2, 1)
        made[f"quantize_{length}"] = quantize((2, length), SIXTH, 77, U8)
    return made


def _quantized() -> dict[str, Workload]:
    made = {}
    cases = itertools.product((U8, I8), (None, 0, 1, 100, 127), (1.0, 0.25, SIXTH))
    for dtype, zero, scale in cases:
        made[f"quantize_{dtype}_{zero}_{scale:.2f}"] = quantize((5, 67), scale, zero, dtype)
    for dtype, zero in itertools.product((U8, I8), (None, 0, 100)):
        made[f"dequantize_{dtype}_{zero}"] = dequantize((5, 67), zero, dtype)
    return made


BYTE_NESTS: dict[str, Workload] = {
    "add": add_requantized((7, 96)),
    "add_zero_points": add_requantized((7, 40), (128, 0, 99)),
    "add_signed": add_requantized((7, 40), (-3, 0, 5), I8),
    "requantize": requantize((9, 72)),
    "requantize_signed": requantize((9, 72), clip=False),
    **{f"{fn}_{d}": unary(fn, (5, 150), d) for fn in ("hardswish", "sigmoid", "silu", "tanh")
       for d in (U8, I8)},
    "max_pool": max_pool(96, 9, 4, 3, 2, 0),
    "max_pool_signed": max_pool(24, 9, 5, 3, 2, 1, I8),
    "average_pool": average_pool(40, 7, 3, 1),
    "average_pool_plain": average_pool(24, 6, 2, 0),
    "global_average": global_average(72, 7),
    "global_average_zero_point": global_average(33, 5, 12),
    "shuffle": shuffle(20, 3, 40),
    "shuffle_2": shuffle(20, 2, 29),
    "transpose": copy((1, 50, 70), source=(0, 1, 50)),
    "slice": copy((9, 24), source=(60, 1)),
    "strided": copy((9, 24), source=(60, 2), target=(80, 3)),
    "upsample": upsample(24, 5),
    "upsample_odd": upsample(13, 5),
    "pad": pad(24, 5, 1),
    "input": input_image(1, 3, 20, 22),
    "input_batch": input_image(2, 3, 9, 37),
    "input_border": input_image(1, 3, 15, 17, border=2),
    "input_four": input_image(1, 3, 15, 37, channels=4),
    "input_four_border": input_image(2, 3, 15, 35, border=1, channels=4),
    "input_one": input_image(1, 1, 15, 37, zero=0),
    **_quantized(),
    **_sizes(),
}  # fmt: skip
