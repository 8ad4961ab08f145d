"""Loop, which `onnx.reference` runs otherwise than the ONNX specification says."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_loop import Loop as ReferenceLoop


class Loop(ReferenceLoop):
    """Loop, as every version of the specification has it.

    The reference joins scan outputs along an axis that they have, where the specification asks for
    a new one; it fails on them when the body never ran, and it takes a condition that is left out
    for a false one.
    """

    op_domain = ""
    body: Any  # what onnx puts there, and
    _run_body: Any  # how to run it

    def _run(
        self,
        trips: np.ndarray | None,
        condition: np.ndarray | None,
        *carried: Any,
        context: dict[str, Any] | None = None,
        body: Any = None,
        attributes: dict[str, Any] | None = None,
        bindings: dict[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        names = self.body.input_names
        outer = dict(context or {})
        state = list(carried)
        scans: list[list[Any]] = [[] for _ in range(self.K)]
        count, limit = 0, None if trips is None else int(np.asarray(trips).reshape(()))
        going = condition is None or bool(np.asarray(condition).reshape(()))
        while going and (limit is None or count < limit):
            feeds = {**outer, names[0]: np.array(count, np.int64), names[1]: np.array(True)}
            feeds.update(zip(names[2:], state, strict=True))
            made = self._run_body(feeds, attributes=attributes, bindings=bindings)
            going = bool(np.asarray(made[0]).reshape(()))
            state = list(made[1 : 1 + self.N])
            for scan, value in zip(scans, made[1 + self.N :], strict=True):
                scan.append(value)
            count += 1
        outputs = [*state]
        for number, scan in enumerate(scans):
            outputs.append(np.stack(scan) if scan else self._nothing(1 + self.N + number))
        return self._check_and_fix_outputs(tuple(outputs))

    def _nothing(self, number: int) -> np.ndarray:
        """What a scan output is after no iteration; sizes that the body leaves open count as 0."""
        from onnx.helper import tensor_dtype_to_np_dtype

        tensor = self.body.proto_.output[number].type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        dtype = tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else np.float32
        return np.zeros((0, *dims), dtype)
