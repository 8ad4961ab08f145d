"""Reads a plan file back: maps it, checks digests and fields. It links nothing and runs nothing."""

from __future__ import annotations

import json
import os

import numpy as np

from planish.base import knobs
from planish.base.dtypes import DType
from planish.base.errors import PlanFileError
from planish.base.shapes import Dim
from planish.plan.check import check_plan
from planish.plan.container import Container, open_container
from planish.plan.fields import Field
from planish.plan.records import (
    FACTS,
    HeapBuffer,
    HostStep,
    HostTensor,
    NativeStep,
    PhaseCall,
    Plan,
    Profile,
    Ref,
    Step,
    TensorInfo,
)
from planish.plan.write import WEIGHT_ALIGN


def read_plan(path: str | os.PathLike[str], *, verify_weights: bool | None = None) -> Plan:
    """Read a plan. Its weights stay in the file and are mapped read-only, shared by all processes.

    Args:
        path: A file that `write_plan` made.
        verify_weights: Check the weights' digest too, at about 1 to 2 GB/s a core; None: as
            PLANISH_VERIFY_WEIGHTS says, by default yes. Everything else is always checked.

    Raises:
        PlanFileError: The file is foreign, truncated, altered, malformed or of a newer format.
    """
    file = open_container(path)
    for name in ("record", "code", "host"):
        file.view(name)
        file.verify(name)
    if knobs.VERIFY_WEIGHTS.value if verify_weights is None else verify_weights:
        file.view("weights")
        file.verify("weights")
    try:
        plan = _plan(_parse(file), file)
    except RecursionError:
        raise PlanFileError(f"{file.path}: the plan's record is nested too deep") from None
    except PlanFileError as error:
        raise PlanFileError(f"{file.path}: {error.message}", hint=error.hint) from None
    check_plan(plan, file.path)
    return plan


def _parse(file: Container) -> Field:
    try:
        return Field(json.loads(bytes(file.view("record"))), "")
    except ValueError as error:  # malformed JSON, bad UTF-8, an absurdly long number
        raise PlanFileError(f"the plan's record is not JSON: {error}") from None


def _plan(record: Field, file: Container) -> Plan:
    code, host, weights = file.view("code"), file.view("host"), file.view("weights")
    return Plan(
        name=record["name"].text(),
        inputs=record["inputs"].each(_tensor),
        outputs=record["outputs"].each(_tensor),
        profiles=record["profiles"].each(_profile),
        steps=record["steps"].each(lambda field: _step(field, host)),
        objects=record["objects"].each(lambda field: _blob(field, code)),
        weights=record["weights"].each(lambda field: _weight(field, weights)),
        arena=record["arena"].integer(),
        worker_scratch=record["worker_scratch"].integer(),
        heap=record["heap"].each(lambda field: HeapBuffer(field["size"].dim())),
        threads=record["threads"].integer(1, 1 << 16),
        target=record["target"].mapping(),
        provenance=record["provenance"].mapping(),
        stages=record["stages"].each(_stage),
        memory=record["memory"].integers(),
        history=record["history"].each(_event),
        facts=record["facts"].each(_fact),
        folded=record["folded"].texts(),
    )


def _tensor(field: Field) -> TensorInfo:
    return TensorInfo(field["name"].text(), field["dtype"].dtype(), field["shape"].shape())


def _profile(field: Field) -> Profile:
    return Profile(field["dims"].each(_profile_dim))


def _profile_dim(field: Field) -> tuple[str, int, int, int]:
    name, low, opt, high = field.row(4)
    return name.text(), low.integer(), opt.integer(), high.integer()


def _stage(field: Field) -> tuple[str, int]:
    name, count = field.row(2)
    return name.text(), count.integer()


def _event(field: Field) -> tuple[str, str, tuple[str, ...]]:
    name, note, origin = field.row(3)
    return name.text(), note.text(), origin.texts()


def _fact(field: Field) -> tuple[str, Dim, Dim]:
    kind, a, b = field.row(3)
    if kind.text() not in FACTS:
        kind.wrong(f"one of {FACTS}")
    return kind.text(), a.dim(), b.dim()


def _ref(field: Field) -> Ref:
    return Ref(
        kind=field["kind"].text(),
        number=field["number"].integer(),
        offset=field["offset"].dim(),
        span=field["span"].optional(Field.dim),
    )


def _step(field: Field, host: memoryview) -> Step:
    tag = field.tag()
    if tag == "native":
        return _native(field["native"])
    if tag == "host":
        return _host(field["host"], host)
    return field.wrong("a native or a host step")


def _native(field: Field) -> NativeStep:
    return NativeStep(
        name=field["name"].text(),
        origin=field["origin"].texts(),
        args=field["args"].each(lambda item: item.optional(_ref)),
        params=field["params"].shape(),
        phases=field["phases"].each(_phase),
        group=field["group"].integer(),
        weight=field["weight"].number(),
        kernel=field["kernel"].text(),
        tactic=field["tactic"].text(),
        reason=field["reason"].texts(),
        workload=field["workload"].text(),
        micros=field["micros"].number(),
        flops=field["flops"].integer(high=2**63),
        bytes=field["bytes"].integer(high=2**63),
        precision=field["precision"].text(),
    )


def _phase(field: Field) -> PhaseCall:
    return PhaseCall(field["symbol"].text(), field["units"].dim(), field["barrier"].flag())


def _host(field: Field, host: memoryview) -> HostStep:
    return HostStep(
        name=field["name"].text(),
        origin=field["origin"].texts(),
        op=field["op"].text(),
        model=_blob(field["model"], host),
        inputs=field["inputs"].each(lambda item: item.optional(_host_tensor)),
        outputs=field["outputs"].each(lambda item: item.optional(_host_tensor)),
        reason=field["reason"].text(),
        micros=field["micros"].number(),
    )


def _host_tensor(field: Field) -> HostTensor:
    return HostTensor(
        _ref(field["ref"]), field["dtype"].dtype(), field["shape"].optional(Field.shape)
    )


def _blob(field: Field, section: memoryview) -> bytes:
    offset, size = (item.integer() for item in field.row(2))
    if offset + size > len(section):
        field.wrong(f"a piece of a section of {len(section)} bytes")
    return bytes(section[offset : offset + size])


def _weight(field: Field, section: memoryview) -> np.ndarray:
    dtype, offset = field["dtype"].dtype(), field["offset"].integer()
    shape = field["shape"].each(Field.integer)
    count = 1
    for extent in shape:
        count *= extent
    if dtype in (DType.STRING, DType.OBJECT) or offset % WEIGHT_ALIGN or len(shape) > 64:
        field.wrong(f"a weight at a multiple of {WEIGHT_ALIGN}")
    if offset + count * dtype.size > len(section):
        field.wrong(f"a weight inside a section of {len(section)} bytes")
    if not count:
        return np.empty(shape, dtype.numpy)
    raw = np.frombuffer(section, np.uint8, count * dtype.size, offset)
    return np.ndarray(shape, dtype.numpy, raw.data)
