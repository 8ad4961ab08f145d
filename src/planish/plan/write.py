"""Turns a plan into a file. Equal plans give equal bytes; nothing but data goes in.

    record   JSON: every field of the plan, keys sorted
    code     object code
    host     ONNX models of the steps that run on the host
    weights  packed constants, each at a multiple of 64

A record is written field by field from its dataclass, so a field added to it needs no line here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError
from planish.base.shapes import Sym
from planish.plan.container import write_container

if TYPE_CHECKING:
    from planish.plan.records import Plan

WEIGHT_ALIGN = 64  # bytes
CODE_ALIGN = 16
STEP_TAGS = {"NativeStep": "native", "HostStep": "host"}


class Blob:
    """A section that collects buffers; each is named by its offset and size."""

    def __init__(self, align: int) -> None:
        self.parts: list[Any] = []
        self.size = 0
        self._align = align

    def add(self, data: bytes | memoryview | np.ndarray) -> tuple[int, int]:
        """Append a buffer; gives its offset and its bytes."""
        gap = -self.size % self._align
        if gap:
            self.parts.append(bytes(gap))
        if isinstance(data, np.ndarray):
            data = data.reshape(-1).view(np.uint8).data
        raw = memoryview(data)
        offset = self.size + gap
        self.parts.append(raw)
        self.size = offset + raw.nbytes
        return offset, raw.nbytes


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file, atomically.

    Raises:
        PlanFileError: A field holds something that is not data, or the system refused to write.
    """
    host, code, weights = Blob(CODE_ALIGN), Blob(CODE_ALIGN), Blob(WEIGHT_ALIGN)
    record: dict[str, Any] = {}
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        if field.name == "objects":
            record[field.name] = [code.add(data) for data in value]
        elif field.name == "weights":
            record[field.name] = [
                _weight(number, data, weights) for number, data in enumerate(value)
            ]
        else:
            record[field.name] = _encode(value, host, field.name)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    sections = {"record": [text.encode()], "code": code.parts, "host": host.parts}
    write_container(path, {**sections, "weights": weights.parts})


def _weight(number: int, data: np.ndarray, weights: Blob) -> dict[str, Any]:
    if not data.flags.c_contiguous:
        data = np.array(data, order="C")
    try:
        dtype = DType.from_numpy(data.dtype)
    except KeyError:
        raise PlanFileError(f"weights[{number}]: {data.dtype} is no element type") from None
    if dtype in (DType.STRING, DType.OBJECT):
        raise PlanFileError(f"weights[{number}]: text cannot be a weight of a plan")
    offset, _ = weights.add(data)
    return {"dtype": dtype.value, "shape": list(data.shape), "offset": offset}


def _encode(value: Any, host: Blob, where: str) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            if not math.isfinite(value):
                raise PlanFileError(f"{where}: {value} is not a finite number")
            return float(value)
        case DType():
            return value.value
        case Sym():
            return encode_sym(value)
        case bytes():
            return host.add(value)
        case tuple() | list():
            return [_encode(item, host, f"{where}[{n}]") for n, item in enumerate(value)]
        case Mapping():
            return {_key(k, where): _encode(v, host, f"{where}.{k}") for k, v in value.items()}
    if not dataclasses.is_dataclass(value):
        raise PlanFileError(f"{where}: a plan holds plain data, not {type(value).__name__}")
    fields = {
        field.name: _encode(getattr(value, field.name), host, f"{where}.{field.name}")
        for field in dataclasses.fields(value)
    }
    tag = STEP_TAGS.get(type(value).__name__)
    return {tag: fields} if tag else fields


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise PlanFileError(f"{where}: keys are text, not {key!r}")
    return key


def encode_sym(dim: Sym) -> list[Any]:
    """A symbolic size as JSON: terms, each a factor followed by atoms; a call is [fn, a, b]."""
    terms: list[Any] = []
    for monomial, factor in dim.terms:
        atoms: list[Any] = []
        for atom in monomial:
            if isinstance(atom, str):
                atoms.append(atom)
            else:
                sides = (atom.a, atom.b)
                atoms.append(
                    [atom.fn, *(encode_sym(s) if isinstance(s, Sym) else s for s in sides)]
                )
        terms.append([factor, *atoms])
    return terms
