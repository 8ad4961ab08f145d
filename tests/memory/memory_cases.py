"""Memory problems to test with: drawn at random, and shaped like networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from planish.memory.problem import Buffer, Group, Problem

MINIMALLOC = Path(__file__).resolve().parents[3] / "shared" / "data" / "minimalloc"
MEBI = 1_048_576


def minimalloc_file(name: str) -> Path:
    """A file of the minimalloc problems; skips the test where they are absent."""
    path = MINIMALLOC / name
    if not path.exists():
        pytest.skip(f"needs the minimalloc problems in ../shared/data/minimalloc: no {name}")
    return path


@st.composite
def buffers(draw: st.DrawFn, most: int, aligns: tuple[int, ...] = (1,)) -> tuple[Buffer, ...]:
    """Up to `most` small buffers with lifetimes inside ten steps."""
    count = draw(st.integers(1, most))
    made = []
    for number in range(count):
        lower = draw(st.integers(0, 8))
        upper = draw(st.integers(lower + 1, 10))
        size, align = draw(st.integers(0, 9)), draw(st.sampled_from(aligns))
        made.append(Buffer(f"b{number}", lower, upper, size, align))
    return tuple(made)


@st.composite
def problems(draw: st.DrawFn, most: int = 20) -> Problem:
    """Problems with alignments and, now and then, a group."""
    made = draw(buffers(most, (1, 1, 2, 4, 8)))
    names = draw(st.lists(st.sampled_from([b.id for b in made]), unique=True, max_size=3))
    distances = [draw(st.integers(0, 2)) * 8 for _ in names]
    group = Group("g", tuple(zip(names, distances, strict=True)))
    return Problem(made, None, (group,) if names else ())


def residual_chain(blocks: int) -> tuple[Buffer, ...]:
    """Bottleneck blocks: the input lives on until it is added to the block's output."""
    made = []
    carried, born = "input", 0
    wide, narrow = 1 << 16, 1 << 14
    for block in range(blocks):
        step = 1 + 4 * block
        made.append(Buffer(carried, born, step + 4, wide, 64))
        made.append(Buffer(f"reduce{block}", step, step + 2, narrow, 64))
        made.append(Buffer(f"middle{block}", step + 1, step + 3, narrow, 64))
        made.append(Buffer(f"expand{block}", step + 2, step + 4, wide, 64))
        carried, born = f"sum{block}", step + 3
        if block % 4 == 3:
            wide, narrow = wide // 2, narrow // 2
    return (*made, Buffer(carried, born, born + 2, wide, 64))


def dense_blocks(lengths: tuple[int, ...]) -> tuple[Buffer, ...]:
    """Blocks that write slices of one wide buffer, with two temporaries a layer."""
    made = []
    step = 0
    for block, length in enumerate(lengths):
        pixels = 3136 >> (2 * block)
        channels = 64 + 32 * length
        made.append(Buffer(f"wide{block}", step, step + 2 * length + 2, channels * pixels, 64))
        for layer in range(length):
            now = step + 1 + 2 * layer
            size = (64 + 32 * layer) * pixels
            made.append(Buffer(f"norm{block}.{layer}", now, now + 2, size, 64))
            made.append(Buffer(f"squeeze{block}.{layer}", now + 1, now + 3, 128 * pixels, 64))
        step += 2 * length + 1
    return tuple(made)


def encoder_decoder(depth: int) -> tuple[Buffer, ...]:
    """Skips that live from an encoder stage to the decoder stage of the same size."""
    made = []
    for level in range(depth):
        size = (1 << 20) >> level
        down, up = 2 * level, 4 * depth - 2 * level - 2
        made.append(Buffer(f"skip{level}", down, up + 1, size, 64))
        made.append(Buffer(f"down{level}", down + 1, down + 3, size, 64))
        made.append(Buffer(f"join{level}", up, up + 2, size, 64))
        made.append(Buffer(f"up{level}", up + 1, up + 3, size, 64))
    return tuple(made)


NETWORKS = {
    "residual": residual_chain(60),
    "dense": dense_blocks((6, 12, 24, 16)),
    "encoder-decoder": encoder_decoder(6),
}
