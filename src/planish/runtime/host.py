"""Steps that run on the host through `onnx.reference`, because no kernel takes them.

They are slow and always announced; they exist so that nothing is unsupported. A host step may give
shapes that depend on data: its outputs' sizes then define symbols for the steps after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import PlanFileError, PlanishError
from planish.base.shapes import name_of
from planish.plan.records import HostStep, HostTensor, Ref
from planish.runtime.schedule import size_of

Place = tuple[str, int]  # (kind, number) of a reference
Memory = Callable[[Ref], np.ndarray]  # the bytes from a reference to the end of its memory


class HostCall:
    """A host step, ready to run; for one context.

    Args:
        number: Of the step in the plan.
        step: The step.
    """

    def __init__(self, number: int, step: HostStep) -> None:
        self.number = number
        self.step = step
        self._evaluator: Any = None
        self._names: list[str] = []

    def compute(
        self, env: Mapping[str, int], memory: Memory, loose: Mapping[Place, Any]
    ) -> list[tuple[HostTensor, Any]]:
        """Run the operator; gives each output with where the plan wants it.

        Args:
            env: Values of the symbols known so far.
            memory: Where references point to.
            loose: Values of loose operands.

        Raises:
            PlanishError: The operator refused its operands; names the node.
        """
        feeds: dict[str, Any] = {}
        self._load()
        operands = [operand for operand in self.step.inputs if operand is not None]
        if len(operands) != len(self._names):
            raise PlanFileError(
                f"{self._who()}: its model takes {len(self._names)} inputs, the plan has "
                f"{len(operands)}"
            )
        for name, operand in zip(self._names, operands, strict=True):
            if operand.loose:
                place = (operand.ref.kind, operand.ref.number)
                if place not in loose:
                    raise PlanFileError(
                        f"{self._who()}: no step before makes {place[0]} {place[1]}"
                    )
                feeds[name] = loose[place]
            else:
                feeds[name] = self.operand(operand, env, memory)
        try:
            with np.errstate(all="ignore"):  # kernels do not warn of overflow and 0/0 either
                results = self._evaluator.run(None, feeds)
        except Exception as error:  # an operator may fail in any way
            raise self._failed(error) from error
        wanted = [operand for operand in self.step.outputs if operand is not None]
        if len(results) != len(wanted):
            raise PlanFileError(
                f"{self._who()}: its model gives {len(results)} outputs, the plan has {len(wanted)}"
            )
        return [
            (operand, self._result(n, operand, value))
            for n, (operand, value) in enumerate(zip(wanted, results, strict=True))
        ]

    def define(self, operand: HostTensor, value: np.ndarray, env: dict[str, int]) -> None:
        """Learn the symbols that an output's shape defines; hold the known sizes against it.

        Raises:
            PlanishError: The shape is not what the plan says.
        """
        shape = operand.shape or ()
        fits = len(shape) == value.ndim
        if fits:
            for dim, size in zip(shape, value.shape, strict=True):
                env.setdefault(name_of(dim), size)
            env.pop("", None)
            fits = all(size_of(d, env) == s for d, s in zip(shape, value.shape, strict=True))
        if not fits:
            raise PlanishError(
                f"{self._who()}: gave shape {list(value.shape)}, the plan expects "
                f"[{', '.join(map(str, shape))}]"
            )

    def operand(self, operand: HostTensor, env: Mapping[str, int], memory: Memory) -> np.ndarray:
        """An array over an operand's memory.

        Raises:
            PlanFileError: The operand leaves its memory.
        """
        shape = tuple([size_of(dim, env) for dim in operand.shape or ()])
        count = 1
        for size in shape:
            count *= size
        raw, size = memory(operand.ref), count * operand.dtype.size
        if min(shape, default=0) < 0 or size > len(raw):
            raise PlanFileError(
                f"{self._who()}: {size} bytes of shape {list(shape)} do not fit the {len(raw)} of "
                f"{operand.ref.kind} {operand.ref.number}"
            )
        view = raw[:size].view(operand.dtype.numpy).reshape(shape)
        if operand.ref.kind in ("input", "weight"):
            view.flags.writeable = False
        return view

    def _load(self) -> None:
        if self._evaluator is not None:
            return
        import onnx  # here, since only plans with host steps need it, and it is slow to import

        from planish.reference.evaluator import make_evaluator

        try:
            model = onnx.load_from_string(self.step.model)
            self._names = [value.name for value in model.graph.input]
            self._evaluator = make_evaluator(model)
        except Exception as error:  # a model that is no model may fail in any way
            raise self._failed(error) from error

    def _result(self, number: int, operand: HostTensor, value: Any) -> Any:
        if operand.dtype is DType.OBJECT:
            return value
        if operand.dtype is DType.STRING and isinstance(value, np.ndarray):
            return value.astype(object)
        if not isinstance(value, np.ndarray | np.generic):
            raise PlanishError(
                f"{self._who()}: output {number} is a {type(value).__name__}, not a tensor"
            )
        array = np.asarray(value)
        expected = operand.dtype.numpy
        if array.dtype != expected:
            # The reference computes some operators in a wider type than ONNX declares.
            if not np.can_cast(array.dtype, expected, "same_kind"):
                raise PlanishError(
                    f"{self._who()}: output {number} is {array.dtype}, expected {expected}"
                )
            array = array.astype(expected)
        return array

    def _failed(self, error: Exception) -> PlanishError:
        return PlanishError(
            f"{self._who()}: {type(error).__name__}: {error}",
            hint="this operator runs on the host through onnx.reference, which refused it",
        )

    def _who(self) -> str:
        origin = ", ".join(self.step.origin)
        return f"host step {self.step.name!r} ({self.step.op}; ONNX {origin or 'node unknown'})"
