"""Operators that run on the host: their types, as far as they follow from shapes.

Sizes that depend on contents are `unknown`. Operators whose types only a body, a sequence or a
model's own annotations tell give no results; their values keep the types that the model states.
"""

from __future__ import annotations

from planish.base.dtypes import DType
from planish.base.shapes import Dim, Shape, floordiv, product
from planish.ops.checks import (
    axis_of,
    broadcast,
    dtype_attr,
    expect_rank,
    given,
    int_attr,
    ints_attr,
    require,
    str_attr,
)
from planish.ops.contraction import infer_conv
from planish.ops.op import Args, Attrs, Op, Result, unknown
from planish.ops.sizes import Sizes, known_sizes
from planish.ops.windows import kernel_of, pads_attr


def _infer_open(args: Args, attrs: Attrs) -> list[Result]:
    """Nothing follows from the inputs."""
    return []


def _infer_has_element(args: Args, attrs: Attrs) -> list[Result]:
    return [Result(DType.BOOL, ())]


def _infer_sequence_length(args: Args, attrs: Attrs) -> list[Result]:
    return [Result(DType.I64, ())]


# ---- results whose size depends on contents -----------------------------------------------------


def _infer_non_zero(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    rank: Dim = unknown(1) if shape is None else len(shape)
    return [Result(DType.I64, (rank, unknown(0)))]


def _infer_compress(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if attrs.get("axis") is None:
        return [Result(x.dtype, (unknown(0),))]
    if x.shape is None:
        return [Result(x.dtype, None)]
    axis = axis_of(int_attr(attrs, "axis"), len(x.shape))
    return [Result(x.dtype, (*x.shape[:axis], unknown(0), *x.shape[axis + 1 :]))]


def _infer_unique(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    count = unknown(0)
    one = Result(DType.I64, (count,))
    if attrs.get("axis") is None:
        total = unknown(1) if x.shape is None else product(x.shape)
        return [Result(x.dtype, (count,)), one, Result(DType.I64, (total,)), one]
    if x.shape is None:
        return [Result(x.dtype, None), one, Result(DType.I64, (unknown(1),)), one]
    axis = axis_of(int_attr(attrs, "axis"), len(x.shape))
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return [Result(x.dtype, shape), one, Result(DType.I64, (x.shape[axis],)), one]


def _infer_boxes(args: Args, attrs: Attrs) -> list[Result]:
    expect_rank(require(args, 0).shape, 3, 0, 3)
    return [Result(DType.I64, (unknown(0), 3))]


# ---- images and windows -------------------------------------------------------------------------


def _infer_roi_align(args: Args, attrs: Attrs) -> list[Result]:
    x, rois = require(args, 0), require(args, 1)
    size = (int_attr(attrs, "output_height", 1), int_attr(attrs, "output_width", 1))
    if x.shape is None or rois.shape is None:
        return [Result(x.dtype, (unknown(0), unknown(1), *size))]
    return [Result(x.dtype, (rois.shape[0], x.shape[1], *size))]


def _infer_max_roi_pool(args: Args, attrs: Attrs) -> list[Result]:
    x, rois = require(args, 0), require(args, 1)
    pooled = ints_attr(attrs, "pooled_shape") or ()
    if x.shape is None or rois.shape is None:
        return [Result(x.dtype, (unknown(0), unknown(1), *pooled))]
    return [Result(x.dtype, (rois.shape[0], x.shape[1], *pooled))]


def _infer_deform_conv(args: Args, attrs: Attrs) -> list[Result]:
    return [infer_conv(args, attrs)]


def _infer_max_unpool(args: Args, attrs: Attrs) -> list[Result]:
    x, wanted = require(args, 0), known_sizes(given(args, 2))
    if wanted is not None:
        return [Result(x.dtype, wanted)]
    if x.shape is None or given(args, 2) is not None:
        rank = len(kernel_of(attrs, None, "MaxUnpool")) + 2
        return [Result(x.dtype, tuple(unknown(n) for n in range(rank)))]
    kernel = kernel_of(attrs, None, "MaxUnpool")
    strides = ints_attr(attrs, "strides") or (1,) * len(kernel)
    begin, end = pads_attr(attrs, len(kernel))
    spatial = tuple(
        (x.shape[n + 2] - 1) * strides[n] + kernel[n] - begin[n] - end[n]
        for n in range(len(kernel))
    )
    return [Result(x.dtype, (*x.shape[:2], *spatial))]


def _infer_image(args: Args, attrs: Attrs) -> list[Result]:
    grey = str_attr(attrs, "pixel_format", "RGB", ("RGB", "BGR", "Grayscale")) == "Grayscale"
    return [Result(DType.U8, (unknown(0), unknown(1), 1 if grey else 3))]


# ---- algebra and signals ------------------------------------------------------------------------


def _infer_det(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    expect_rank(x.shape, 2, 0)
    return [Result(x.dtype, None if x.shape is None else x.shape[:-2])]


def _infer_dft(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    if x.shape is None:
        return [Result(x.dtype, None)]
    axis, length = known_sizes(given(args, 2)), known_sizes(given(args, 1))
    if given(args, 2) is not None and axis is None:
        return [Result(x.dtype, tuple(unknown(n) for n in range(len(x.shape))))]
    at = int_attr(attrs, "axis", -2)
    if axis is not None and isinstance(axis[0], int):
        at = axis[0]
    place, shape = axis_of(at, len(x.shape)), list(x.shape)
    if given(args, 1) is not None:
        shape[place] = unknown(0) if length is None else length[0]
    if int_attr(attrs, "onesided", 0):
        if int_attr(attrs, "inverse", 0):
            shape[place] = (shape[place] - 1) * 2 if given(args, 1) is None else shape[place]
        else:
            shape[place] = floordiv(shape[place], 2) + 1
    complex_out = not (int_attr(attrs, "onesided", 0) and int_attr(attrs, "inverse", 0))
    return [Result(x.dtype, (*shape[:-1], 2 if complex_out else 1))]


def _infer_stft(args: Args, attrs: Attrs) -> list[Result]:
    x, step = require(args, 0), known_sizes(require(args, 1))
    window, frame = given(args, 2), known_sizes(given(args, 3))
    length = frame[0] if frame is not None else None
    if length is None and window is not None and window.shape is not None:
        length = window.shape[0]
    if x.shape is None or step is None or length is None:
        return [Result(x.dtype, (unknown(0), unknown(1), unknown(2), 2))]
    bins = floordiv(length, 2) + 1 if int_attr(attrs, "onesided", 1) else length
    return [Result(x.dtype, (x.shape[0], floordiv(x.shape[1] - length, step[0]) + 1, bins, 2))]


def _infer_mel(args: Args, attrs: Attrs) -> list[Result]:
    bins, length = known_sizes(require(args, 0)), known_sizes(require(args, 1))
    dtype = dtype_attr(attrs, "output_datatype", DType.F32)
    rows = unknown(0) if length is None else floordiv(length[0], 2) + 1
    return [Result(dtype, (rows, unknown(1) if bins is None else bins[0]))]


# ---- random numbers, losses, strings ------------------------------------------------------------


def _infer_random(args: Args, attrs: Attrs) -> list[Result]:
    return [Result(dtype_attr(attrs, "dtype", DType.F32), ints_attr(attrs, "shape") or ())]


def _infer_random_like(args: Args, attrs: Attrs) -> list[Result]:
    x = require(args, 0)
    return [Result(dtype_attr(attrs, "dtype", x.dtype), x.shape)]


def _infer_multinomial(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    batch: Dim = unknown(0) if shape is None else shape[0]
    dtype = dtype_attr(attrs, "dtype", DType.I32)
    return [Result(dtype, (batch, int_attr(attrs, "sample_size", 1)))]


def _infer_loss(args: Args, attrs: Attrs) -> list[Result]:
    scores, labels = require(args, 0), require(args, 1)
    plain = str_attr(attrs, "reduction", "mean", ("none", "sum", "mean")) == "none"
    return [
        Result(scores.dtype, labels.shape if plain else ()),
        Result(scores.dtype, scores.shape),
    ]


def _infer_likelihood(args: Args, attrs: Attrs) -> list[Result]:
    return _infer_loss(args, attrs)[:1]


def _infer_strings(args: Args, attrs: Attrs) -> list[Result]:
    left, right = require(args, 0).shape, require(args, 1).shape
    if left is None or right is None:
        return [Result(DType.STRING, None)]
    shape, facts = broadcast((left, right))
    return [Result(DType.STRING, shape, facts=facts)]


def _infer_normalizer(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    if shape is None or not attrs.get("stopwords"):
        return [Result(DType.STRING, shape)]
    return [Result(DType.STRING, (*shape[:-1], unknown(0)))]


def _infer_string_split(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    parts: Shape | None = None if shape is None else (*shape, unknown(0))
    return [Result(DType.STRING, parts), Result(DType.I64, shape)]


def _infer_match(args: Args, attrs: Attrs) -> list[Result]:
    return [Result(DType.BOOL, require(args, 0).shape)]


def _infer_tf_idf(args: Args, attrs: Attrs) -> list[Result]:
    shape = require(args, 0).shape
    indexes: Sizes = ints_attr(attrs, "ngram_indexes") or (0,)
    width = max(int(i) for i in indexes if isinstance(i, int)) + 1
    return [Result(DType.F32, None if shape is None else (*shape[:-1], width))]


_OPEN = (
    *("If", "Loop", "Scan", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
    *("SequenceInsert", "SequenceMap", "SplitToSequence", "ConcatFromSequence"),
    *("Optional", "OptionalGetElement"),
    *("LinearAttention", "CausalConvWithState"),
)

HOST: tuple[Op, ...] = (
    *(Op(name, _infer_open) for name in _OPEN),
    Op("OptionalHasElement", _infer_has_element, opaque=True),
    Op("SequenceLength", _infer_sequence_length, opaque=True),
    Op("NonZero", _infer_non_zero),
    Op("Compress", _infer_compress),
    Op("Unique", _infer_unique),
    Op("NonMaxSuppression", _infer_boxes),
    Op("RoiAlign", _infer_roi_align),
    Op("MaxRoiPool", _infer_max_roi_pool),
    Op("DeformConv", _infer_deform_conv),
    Op("MaxUnpool", _infer_max_unpool),
    Op("ImageDecoder", _infer_image),
    Op("Det", _infer_det),
    Op("DFT", _infer_dft),
    Op("STFT", _infer_stft),
    Op("MelWeightMatrix", _infer_mel),
    Op("RandomNormal", _infer_random),
    Op("RandomUniform", _infer_random),
    Op("RandomNormalLike", _infer_random_like),
    Op("RandomUniformLike", _infer_random_like),
    Op("Bernoulli", _infer_random_like),
    Op("Multinomial", _infer_multinomial),
    Op("SoftmaxCrossEntropyLoss", _infer_loss),
    Op("NegativeLogLikelihoodLoss", _infer_likelihood),
    Op("StringConcat", _infer_strings),
    Op("StringNormalizer", _infer_normalizer),
    Op("StringSplit", _infer_string_split),
    Op("RegexFullMatch", _infer_match),
    Op("TfIdfVectorizer", _infer_tf_idf),
)
