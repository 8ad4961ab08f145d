"""Small ONNX models, one for each way in which graphs are odd, as text.

Inputs whose name starts with `w` become random constants.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

FLOAT_WEIGHT = 0.4  # their deviation, so that sums stay small


def model(text: str) -> onnx.ModelProto:
    """A checked model of a graph's text; inputs named w… turned into constants."""
    graph = parser.parse_graph(text)
    opset = 18 if "num_outputs" in text else 13 if "axes = [" in text else 17
    random = np.random.default_rng(7)
    kept = []
    for info in graph.input:
        if not info.name.startswith("w"):
            kept.append(info)
            continue
        kind = info.type.tensor_type
        shape = [d.dim_value for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        data = np.asarray(random.standard_normal(shape) * FLOAT_WEIGHT).astype(dtype)
        if info.name.startswith("wp"):  # variances
            data = np.abs(data) + np.asarray(0.5, dtype)
        graph.initializer.append(numpy_helper.from_array(data, info.name))
    del graph.input[:]
    graph.input.extend(kept)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def feeds_of(
    made: onnx.ModelProto, sizes: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Seeded inputs: normal floats, small integers, truth values."""
    random = np.random.default_rng(seed)
    feeds = {}
    for info in made.graph.input:
        kind = info.type.tensor_type
        shape = [(sizes or {})[d.dim_param] if d.dim_param else d.dim_value for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind == "f":
            data = np.asarray(random.standard_normal(shape))
        else:
            data = np.asarray(random.integers(0, 2 if dtype.kind == "b" else 3, shape))
        feeds[info.name] = data.astype(dtype)
    return feeds


def expected(made: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX's own reference makes of it."""
    names = [info.name for info in made.graph.output]
    results = ReferenceEvaluator(made).run(None, dict(feeds))
    return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}


def assert_close(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float = 2e-5
) -> None:
    """Equal within a share of each output's largest magnitude; whole numbers exactly."""
    assert list(found) == list(wanted)
    for name, want in wanted.items():
        got = found[name]
        assert got.shape == want.shape and got.dtype == want.dtype, (name, got.shape, got.dtype)
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want, name)
            continue
        scale = float(np.max(np.abs(want), initial=1e-6, where=np.isfinite(want)))
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=name)


INCEPTION = """
inception (float[1,6,7,7] x, float[4,6,1,1] wa, float[3,6,1,1] wb, float[2,6,1,1] wc,
           float[5,3,3,3] wd, float[4,2,5,5] we, float[3,6,1,1] wf) => (float[1,16,7,7] y) {
  a = Conv (x, wa)
  ra = Relu (a)
  b = Conv (x, wb)
  rb = Relu (b)
  c = Conv (x, wc)
  rc = Relu (c)
  d = Conv <pads = [1,1,1,1]> (rb, wd)
  rd = Relu (d)
  e = Conv <pads = [2,2,2,2]> (rc, we)
  re = Relu (e)
  p = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)
  f = Conv (p, wf)
  rf = Relu (f)
  y = Concat <axis = 1> (ra, rd, re, rf)
}
"""

DENSENET = """
densenet (float[1,4,5,5] x, float[3,4,3,3] wa, float[3,7,3,3] wb, float[3,10,1,1] wc)
  => (float[1,13,5,5] y) {
  a = Conv <pads = [1,1,1,1]> (x, wa)
  c1 = Concat <axis = 1> (x, a)
  r1 = Relu (c1)
  b = Conv <pads = [1,1,1,1]> (r1, wb)
  c2 = Concat <axis = 1> (c1, b)
  r2 = Sigmoid (c2)
  c = Conv (r2, wc)
  c3 = Concat <axis = 1> (c2, c)
  y = Tanh (c3)
}
"""

# name -> text; sizes of symbolic dims are N=2, M=3 unless a test says otherwise
MODELS: dict[str, str] = {
    "inception": INCEPTION,
    "densenet": DENSENET,
    "residual": """
g (float[1,4,6,6] x, float[4,4,3,3] wa, float[4] wba, float[4,4,3,3] wb) => (float[1,4,6,6] y) {
  a = Conv <pads = [1,1,1,1]> (x, wa, wba)
  ra = Relu (a)
  b = Conv <pads = [1,1,1,1]> (ra, wb)
  s = Add (b, x)
  y = Relu (s)
}""",
    "batchnorm": """
g (float[2,4,6,6] x, float[8,4,3,3] wa, float[8] ws, float[8] wb, float[8] wm, float[8] wpv)
  => (float[2,8] y) {
  a = Conv <strides = [2,2]> (x, wa)
  n = BatchNormalization (a, ws, wb, wm, wpv)
  r = Relu (n)
  p = GlobalAveragePool (r)
  y = Flatten (p)
}""",
    "concat_of_output": """
g (float[2,3] x, float[2,4] z) => (float[2,3] a, float[2,7] y) {
  a = Relu (x)
  b = Sigmoid (z)
  y = Concat <axis = 1> (a, b)
}""",
    "concat_same_twice": """
g (float[2,3] x) => (float[2,9] y) {
  a = Sigmoid (x)
  b = Exp (x)
  y = Concat <axis = 1> (a, b, a)
}""",
    "concat_with_constant": """
g (float[2,3] x, float[2,2] wc) => (float[2,8] y) {
  a = Exp (x)
  y = Concat <axis = -1> (a, wc, x)
}""",
    "concat_in_two": """
g (float[2,3] x, float[2,2] z) => (float[2,5] y, float[2,5] u) {
  a = Exp (x)
  b = Neg (z)
  y = Concat <axis = 1> (a, b)
  u = Concat <axis = 1> (b, a)
}""",
    "views": """
g (float[2,3,4] x) => (float[4,6] y, float[2,2,2] u, float[4,3,2] v) {
  t = Transpose <perm = [2,0,1]> (x)
  s1 = Constant <value = int64[2] {4, 6}> ()
  y = Reshape (t, s1)
  starts = Constant <value = int64[2] {-1, 1}> ()
  ends = Constant <value = int64[2] {-3, 4}> ()
  axes = Constant <value = int64[2] {1, 2}> ()
  steps = Constant <value = int64[2] {-1, 2}> ()
  s = Slice (x, starts, ends, axes, steps)
  u = Neg (s)
  v = Transpose (x)
}""",
    "expand": """
g (float[3,1] x) => (float[2,3,4] y, float[2,3,4] z) {
  shape = Constant <value = int64[3] {2, 3, 4}> ()
  y = Expand (x, shape)
  z = Add (y, x)
}""",
    "split": """
g (float[2,7] x) => (float[2,3] a, float[2,2] b, float[2,2] c) {
  sizes = Constant <value = int64[3] {3, 2, 2}> ()
  p, q, r = Split <axis = 1> (x, sizes)
  a = Exp (p)
  b = Add (q, r)
  c = Identity (r)
}""",
    "split_to_outputs": """
g (float[2,6] x) => (float[2,3] a, float[2,3] b) {
  t = Exp (x)
  a, b = Split <axis = 1, num_outputs = 2> (t)
}""",
    "split_of_constant": """
g (float[2,3] x, float[2,6] wc) => (float[2,3] a, float[2,3] b) {
  p, q = Split <axis = 1> (wc)
  a = Add (x, p)
  b = Mul (x, q)
}""",
    "outputs_of_all_kinds": """
g (float[2,3] x, float[2,3] wc) => (float[2,3] x, float[2,3] wc, float[3,2] t, float[2,3] y,
                                    float[2,3] again) {
  t = Transpose (x)
  y = Exp (x)
  again = Identity (y)
}""",
    "only_inputs": """
g (float[2,3] x) => (float[2,3] y) {
  y = Identity (x)
}""",
    "empty": """
g (float[0,3] x, float[2,3] z) => (float[0,3] y, float[2,3] u, float[2] s) {
  y = Exp (x)
  u = Concat <axis = 0> (y, z)
  axes = Constant <value = int64[1] {1}> ()
  s = ReduceSum <keepdims = 0> (u, axes)
}""",
    "scalars": """
g (float x, float[1] z) => (float y, float[1] u, float s) {
  a = Exp (x)
  y = Add (a, x)
  u = Mul (y, z)
  s = ReduceSum <keepdims = 0> (u)
}""",
    "whole_numbers": """
g (int32[2,3] x, int64[3] z, bool[2,3] m) => (int32[2,3] y, int64[2,3] u, bool[2,3] v, bool[2] w0) {
  y = Add (x, x)
  c = Cast <to = 7> (x)
  s = Mul (c, z)
  u = Where (m, s, c)
  g0 = Greater (u, c)
  v = And (g0, m)
  n = Cast <to = 1> (v)
  r = ReduceMax <axes = [1], keepdims = 0> (n)
  w0 = Cast <to = 9> (r)
}""",
    "softmax": """
g (float[2,3,5] x) => (float[2,3,5] y, float[2,3,5] z) {
  a = Mul (x, x)
  y = Softmax <axis = -1> (a)
  z = Softmax <axis = 1> (x)
}""",
    "reductions": """
g (float[2,3,5] x) => (float[2,5] a, float[1,1,1] b, float[2,3,1] c, int64[2,3] d) {
  e = Exp (x)
  a = ReduceMax <axes = [1], keepdims = 0> (e)
  b = ReduceMean (x)
  c = ReduceL2 <axes = [2]> (x)
  d = ArgMax <axis = 2, keepdims = 0> (x)
}""",
    "gemm": """
g (float[3,5] x, float[4,5] wb, float[4] wc) => (float[3,4] y) {
  a = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, wb, wc)
  y = LeakyRelu <alpha = 0.1> (a)
}""",
    "matmul_batched": """
g (float[2,3,4,5] x, float[3,5,2] z, float[2] wc) => (float[2,3,4,2] y) {
  a = MatMul (x, z)
  b = Add (a, wc)
  y = Tanh (b)
}""",
    "attention": """
g (float[1,4,8] x, float[8,8] wq, float[8,8] wk, float[8,8] wv) => (float[1,4,8] y) {
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  s = Constant <value = int64[4] {1, 4, 2, 4}> ()
  q4 = Reshape (q, s)
  k4 = Reshape (k, s)
  v4 = Reshape (v, s)
  qt = Transpose <perm = [0,2,1,3]> (q4)
  kt = Transpose <perm = [0,2,3,1]> (k4)
  vt = Transpose <perm = [0,2,1,3]> (v4)
  qk = MatMul (qt, kt)
  half = Constant <value = float {0.5}> ()
  sc = Mul (qk, half)
  p = Softmax <axis = -1> (sc)
  o = MatMul (p, vt)
  ot = Transpose <perm = [0,2,1,3]> (o)
  s3 = Constant <value = int64[3] {1, 4, 8}> ()
  y = Reshape (ot, s3)
}""",
    "dropout_with_mask": """
g (float[2,3] x) => (float[2,3] y, bool[2,3] m) {
  a = Exp (x)
  y, m = Dropout (a)
}""",
    "pool_with_indices": """
g (float[1,2,6,6] x) => (float[1,2,3,3] y, int64[1,2,3,3] i) {
  y, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
}""",
    "topk": """
g (float[3,7] x) => (float[3,2] v, int64[3,2] i) {
  k = Constant <value = int64[1] {2}> ()
  v, i = TopK <axis = 1> (x, k)
}""",
    "depthwise": """
g (float[1,4,6,6] x, float[4,1,3,3] wa, float[4] wb) => (float[1,4,6,6] y) {
  a = Conv <group = 4, pads = [1,1,1,1]> (x, wa, wb)
  lo = Constant <value = float {0.0}> ()
  hi = Constant <value = float {6.0}> ()
  y = Clip (a, lo, hi)
}""",
    "shuffle": """
g (float[1,4,3,3] x, float[4,4,1,1] wa) => (float[1,4,3,3] y) {
  a = Conv (x, wa)
  s5 = Constant <value = int64[5] {1, 2, 2, 3, 3}> ()
  r = Reshape (a, s5)
  t = Transpose <perm = [0,2,1,3,4]> (r)
  s4 = Constant <value = int64[4] {1, 4, 3, 3}> ()
  b = Reshape (t, s4)
  y = Relu (b)
}""",
    "gather_pad": """
g (float[4,3] x) => (float[3,5] y) {
  i = Constant <value = int64[3] {2, 0, -1}> ()
  a = Gather <axis = 0> (x, i)
  p = Constant <value = int64[4] {0, 1, 0, 1}> ()
  b = Pad (a, p)
  y = Exp (b)
}""",
    "squeeze_excite": """
g (float[1,4,5,5] x, float[2,4,1,1] wa, float[4,2,1,1] wb) => (float[1,4,5,5] y) {
  m = GlobalAveragePool (x)
  a = Conv (m, wa)
  r = Relu (a)
  b = Conv (r, wb)
  h = HardSigmoid (b)
  y = Mul (x, h)
}""",
    "layer_norm": """
g (float[2,3,8] x, float[8] ws, float[8] wb) => (float[2,3,8] y) {
  m = ReduceMean <axes = [-1]> (x)
  d = Sub (x, m)
  two = Constant <value = float {2.0}> ()
  p = Pow (d, two)
  v = ReduceMean <axes = [-1]> (p)
  eps = Constant <value = float {0.00001}> ()
  ve = Add (v, eps)
  q = Sqrt (ve)
  n = Div (d, q)
  s = Mul (n, ws)
  y = Add (s, wb)
}""",
    "conv_transpose": """
g (float[1,3,4,4] x, float[3,2,3,3] wa) => (float[1,2,9,9] y) {
  a = ConvTranspose <strides = [2,2]> (x, wa)
  y = Relu (a)
}""",
    "cumsum_scatter": """
g (float[3,4] x, float[2,4] u) => (float[3,4] y, float[3,4] z) {
  ax = Constant <value = int64 {1}> ()
  y = CumSum (x, ax)
  i = Constant <value = int64[2,1] {2, 0}> ()
  z = ScatterND (x, i, u)
}""",
    "dynamic": """
g (float[N,3,M] x, float[3,1] z, float[3,4] wa) => (float[N,4,M] y, float[N,M,3] t) {
  a = Add (x, z)
  t = Transpose <perm = [0,2,1]> (a)
  b = MatMul (t, wa)
  y = Transpose <perm = [0,2,1]> (b)
}""",
    "dynamic_conv": """
g (float[N,3,6,6] x, float[4,3,3,3] wa, float[10,16] wf) => (float[N,10] y) {
  a = Conv (x, wa)
  r = Relu (a)
  p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
  f = Flatten (p)
  y = Gemm <transB = 1> (f, wf)
}""",
    "dynamic_reshape": """
g (float[N,M,4] x, float[N,M,4] z) => (float[K,2] y, float[N,P] u) {
  a = Concat <axis = 1> (x, z)
  s = Constant <value = int64[2] {-1, 2}> ()
  y = Reshape (a, s)
  s2 = Constant <value = int64[2] {0, -1}> ()
  b = Exp (a)
  u = Reshape (b, s2)
}""",
    "dynamic_shape_of": """
g (float[N,M] x) => (float[N,M] y, int64[2] s) {
  s = Shape (x)
  z = ConstantOfShape (s)
  y = Add (x, z)
}""",
    "host_in_the_middle": """
g (float[3,3] x) => (float[3,3] y, float u) {
  a = Exp (x)
  d = Det (a)
  b = Mul (a, d)
  y = Relu (b)
  u = Identity (d)
}""",
    "data_dependent": """
g (float[3,4] x) => (int64[2,K] i, float[L] y, float[4] s) {
  zero = Constant <value = float {0.0}> ()
  m = Greater (x, zero)
  n = Cast <to = 6> (m)
  i = NonZero (n)
  flat = Constant <value = int64[1] {-1}> ()
  m1 = Reshape (m, flat)
  c = Compress (x, m1)
  y = Exp (c)
  ax = Constant <value = int64[1] {0}> ()
  s = ReduceSum <keepdims = 0> (x, ax)
}""",
    "transposed_to_host": """
g (float[2,3,3] x) => (float[3] d) {
  t = Transpose <perm = [2,1,0]> (x)
  u = Transpose <perm = [0,1,2]> (t)
  starts = Constant <value = int64[1] {0}> ()
  ends = Constant <value = int64[1] {2}> ()
  axes = Constant <value = int64[1] {1}> ()
  e = Slice (u, starts, ends, axes)
  f = Transpose <perm = [0,1,2]> (e)
  d = Det (f)
}""",
    "if_of_data": """
g (float[2,3] x, bool c) => (float[2,3] y) {
  a = Exp (x)
  b = If (c) <
    then_branch = t () => (float[2,3] p) { p = Neg (a) },
    else_branch = e () => (float[2,3] q) { q = Sqrt (a) }
  >
  y = Add (a, b)
}""",
    "long_chain_in_place": """
g (float[4,8] x, float[4,8] z, float[8,8] wm) => (float[4,8] y) {
  a = MatMul (x, wm)
  b = Softmax (a)
  c = MatMul (b, wm)
  d = Softmax (c)
  e = Add (d, b)
  one = Constant <value = int64 {1}> ()
  f = CumSum (e, one)
  y = Add (f, z)
}""",
}

SIZES = {"N": 2, "M": 3}
