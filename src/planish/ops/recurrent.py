"""RNN, GRU, LSTM: types only; they run on the host."""

from __future__ import annotations

from collections.abc import Callable

from planish.ops.checks import FLOATS, expect_dtype, expect_rank, int_attr, require, str_attr
from planish.ops.op import Args, Attrs, Op, Result, unknown

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def _infer(states: int) -> Callable[[Args, Attrs], list[Result]]:
    """Y, and one last state for each kind of state."""

    def infer(args: Args, attrs: Attrs) -> list[Result]:
        dtype = expect_dtype(args, 0, FLOATS)
        x, recurrence = require(args, 0).shape, require(args, 2).shape
        expect_rank(x, 3, 0, 3)
        expect_rank(recurrence, 3, 2, 3)
        direction = str_attr(attrs, "direction", "forward", tuple(_DIRECTIONS))
        ways = _DIRECTIONS[direction]
        hidden = recurrence[2] if recurrence is not None else unknown(2)
        hidden = int_attr(attrs, "hidden_size", 0) or hidden
        tokens, batch = (unknown(0), unknown(1)) if x is None else x[:2]
        if int_attr(attrs, "layout", 0):
            tokens, batch = batch, tokens
            y = Result(dtype, (batch, tokens, ways, hidden))
            state = Result(dtype, (batch, ways, hidden))
        else:
            y = Result(dtype, (tokens, ways, batch, hidden))
            state = Result(dtype, (ways, batch, hidden))
        return [y, *[state] * states]

    return infer


RECURRENT: tuple[Op, ...] = (
    Op("RNN", _infer(1)),
    Op("GRU", _infer(1)),
    Op("LSTM", _infer(2)),
)
