"""The boundary to the caller: checks and takes inputs, makes and checks outputs, finds the symbols.

Everything is checked here once; behind this module arrays are known to be right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from planish.base.dtypes import DType
from planish.base.errors import InputError, PlanishError, ShapeError
from planish.base.shapes import Shape, name_of, symbols_of
from planish.plan.records import Plan, TensorInfo
from planish.runtime.address import address_of
from planish.runtime.schedule import size_of

LOOSE = (DType.STRING, DType.OBJECT)  # what only host steps touch, and the plan has no memory for

Shapes = tuple[tuple[int, ...], ...]


class Interface:
    """What a plan takes and gives.

    Args:
        plan: The plan; only its inputs, outputs and profiles are looked at.
    """

    def __init__(self, plan: Plan) -> None:
        self.inputs = plan.inputs
        self.outputs = plan.outputs
        self.profiles = plan.profiles
        self._facts = plan.facts
        self._folded = plan.folded
        self._takes = tuple((tensor.name, tensor.dtype.numpy) for tensor in plan.inputs)
        self._loose = {t.name: t.dtype for t in plan.inputs if t.dtype in LOOSE}
        self._order = {tensor.name: n for n, tensor in enumerate(plan.outputs)}

    # ---- inputs ---------------------------------------------------------------------------------

    def take(self, feeds: Mapping[str, Any]) -> list[np.ndarray]:
        """The caller's inputs in the plan's order: right dtype, dense rows, aligned to the element.

        An array that is so already is taken as it is, without a copy.

        Raises:
            InputError: One is missing, unknown, or not an array of the right dtype.
        """
        taken = []
        loose = self._loose
        try:
            for name, dtype in self._takes:
                array = feeds[name]
                if dtype.kind == "O":
                    taken.append(_as_object(name, array, loose[name]))
                    continue
                if type(array) is not np.ndarray:
                    array = _as_array(array, f"input {name!r}")
                if array.dtype != dtype:
                    raise self._wrong_dtype(name, dtype, array.dtype)
                flags = array.flags
                if not (flags.c_contiguous and flags.aligned):
                    array = np.array(array, order="C")
                taken.append(array)
        except (KeyError, TypeError, IndexError):
            raise self._wrong_names(feeds) from None
        if len(feeds) != len(taken):
            raise self._wrong_names(feeds)
        return taken

    def positional(self, values: Sequence[Any]) -> dict[str, Any]:
        """Inputs given in the plan's order, by name.

        Raises:
            InputError: There are too many or too few.
        """
        if len(values) != len(self.inputs):
            raise InputError(
                f"expected {len(self.inputs)} inputs, {self._names(self.inputs)}; "
                f"found {len(values)}"
            )
        return {tensor.name: value for tensor, value in zip(self.inputs, values, strict=True)}

    def _wrong_names(self, feeds: Any) -> InputError:
        if not isinstance(feeds, Mapping):
            return InputError(
                f"expected inputs as a mapping of name to array, found {type(feeds).__name__}",
                hint=f"the inputs are {self._names(self.inputs)}",
            )
        known = {tensor.name for tensor in self.inputs}
        missing = [tensor.name for tensor in self.inputs if tensor.name not in feeds]
        folded = [name for name in feeds if name not in known and name in self._folded]
        if folded:
            return InputError(
                f"the inputs {folded} are constants of this plan: the model has values for them, "
                "which were folded into it",
                hint=f"build it with inputs={folded} (--input on the command line) to give them",
            )
        unknown = [name for name in feeds if name not in known]
        parts = [f"missing inputs {missing}"] if missing else []
        parts += [f"unknown inputs {unknown}"] if unknown else []
        parts = parts or [f"the inputs cannot be read from {type(feeds).__name__}"]
        return InputError("; ".join(parts), hint=f"the inputs are {self._names(self.inputs)}")

    def _wrong_dtype(self, name: str, expected: np.dtype, found: np.dtype) -> InputError:
        return InputError(
            f"input {name!r}: expected dtype {expected}, found {found}",
            hint=f"convert it with array.astype({expected.name!r})",
        )

    def _names(self, tensors: Sequence[TensorInfo]) -> str:
        return ", ".join(f"{t.name}: {t.dtype}[{_shape_text(t.shape)}]" for t in tensors) or "none"

    # ---- symbols --------------------------------------------------------------------------------

    def symbols(self, shapes: Shapes) -> dict[str, int]:
        """The symbols' values that these input shapes mean.

        Raises:
            ShapeError: A shape does not fit, shapes contradict each other, or no profile covers
                them.
        """
        env: dict[str, int] = {}
        given: dict[str, str] = {}
        for tensor, shape in zip(self.inputs, shapes, strict=True):
            if len(shape) != len(tensor.shape):
                raise self._wrong_shape(tensor, shape, f"rank {len(shape)}")
            for axis, (dim, size) in enumerate(zip(tensor.shape, shape, strict=True)):
                name = name_of(dim)
                if name and env.setdefault(name, size) != size:
                    raise self._wrong_shape(
                        tensor,
                        shape,
                        f"{name} = {size}, but {given[name]} has {name} = {env[name]}",
                    )
                if name:
                    given.setdefault(name, f"axis {axis} of input {tensor.name!r}")
        for tensor, shape in zip(self.inputs, shapes, strict=True):
            for axis, (dim, size) in enumerate(zip(tensor.shape, shape, strict=True)):
                if size_of(dim, env) != size:
                    expected = size_of(dim, env)
                    raise self._wrong_shape(
                        tensor, shape, f"axis {axis} has {size}, expected {expected}"
                    )
        self._check_profiles(env)
        self.check_facts(env)
        return env

    def check_facts(self, env: Mapping[str, int], before: Collection[str] = ()) -> None:
        """Hold sizes against each other that must fit for the results to be right.

        Args:
            env: The symbols known now.
            before: Those known at the last check; what they alone decide is not checked again.

        Raises:
            ShapeError: Two sizes do not fit.
        """
        for kind, a, b in self._facts:
            names = symbols_of(a) | symbols_of(b)
            if names <= env.keys() and not (before and names <= set(before)):
                left, right = size_of(a, env), size_of(b, env)
                if left != right and not (kind == "broadcast" and 1 in (left, right)):
                    rule = "be equal" if kind == "equal" else "be equal, or one of them 1"
                    given = ", ".join(f"{name} = {env[name]}" for name in sorted(names))
                    raise ShapeError(
                        f"the sizes {a} and {b} must {rule}; they are {left} and {right}, "
                        f"where {given or 'both are fixed'}",
                        hint="give inputs whose sizes fit each other",
                    )

    def _wrong_shape(self, tensor: TensorInfo, shape: Sequence[int], what: str) -> ShapeError:
        return ShapeError(
            f"input {tensor.name!r}: expected shape [{_shape_text(tensor.shape)}], "
            f"found [{_shape_text(tuple(shape))}]: {what}"
        )

    def _check_profiles(self, env: Mapping[str, int]) -> None:
        outside = []
        for profile in self.profiles:
            wrong = [row for row in profile.dims if not row[1] <= env[row[0]] <= row[3]]
            if not wrong:
                return
            outside.append(
                ", ".join(
                    f"{n} = {env[n]} is not from {low} to {high}" for n, low, _, high in wrong
                )
            )
        if outside:
            raise ShapeError(
                "the input shapes are outside the plan's profiles: " + "; or ".join(outside),
                hint="build the plan with a profile that covers them (--profile name=min:opt:max)",
            )

    # ---- outputs --------------------------------------------------------------------------------

    def given_outputs(
        self, outputs: Mapping[str, Any] | None, inputs: Sequence[np.ndarray]
    ) -> list[np.ndarray | None]:
        """The caller's output buffers in the plan's order; None where the plan makes one.

        Raises:
            InputError: A buffer is unknown, read-only, not dense, of a wrong dtype, or shares
                memory with an input or another output.
        """
        made: list[np.ndarray | None] = [None] * len(self.outputs)
        if not outputs:
            return made
        if not isinstance(outputs, Mapping):
            raise InputError(
                f"expected outputs as a mapping of name to array, found {type(outputs).__name__}"
            )
        taken = [(begin, begin + a.nbytes) for a in inputs for begin in (address_of(a),)]
        for name, value in outputs.items():
            if name not in self._order:
                raise InputError(
                    f"unknown output {name!r}", hint=f"they are {self._names(self.outputs)}"
                )
            number = self._order[name]
            if isinstance(value, np.generic):
                raise InputError(f"output {name!r}: expected a buffer, found a NumPy scalar")
            if self.outputs[number].dtype in LOOSE:
                raise InputError(f"output {name!r} is text or no tensor, so it takes no buffer")
            array = _as_array(value, f"output {name!r}")
            _check_buffer(name, array, self.outputs[number])
            begin = address_of(array)
            end = begin + array.nbytes
            if any(begin < other_end and other < end for other, other_end in taken):
                raise InputError(
                    f"output {name!r}: its buffer shares memory with an input or another output",
                    hint="give each output memory of its own",
                )
            taken.append((begin, end))
            made[number] = array
        return made

    def output(self, number: int, buffer: np.ndarray | None, env: Mapping[str, int]) -> np.ndarray:
        """The array that an output goes to, with all of its sizes known.

        Raises:
            ShapeError: The caller's buffer has another shape.
            PlanishError: There is no memory for it.
        """
        tensor = self.outputs[number]
        shape = tuple([size_of(dim, env) for dim in tensor.shape])
        if buffer is None:
            return new_output(tensor, shape)
        if buffer.shape != shape:
            raise ShapeError(
                f"output {tensor.name!r}: expected a buffer of shape [{_shape_text(shape)}], "
                f"found [{_shape_text(buffer.shape)}]"
            )
        return buffer


def new_output(tensor: TensorInfo, shape: tuple[int, ...]) -> np.ndarray:
    """A fresh array for an output.

    Raises:
        PlanishError: There is no memory for it.
    """
    try:
        return np.empty(shape, tensor.dtype.numpy)
    except (MemoryError, ValueError) as error:
        raise PlanishError(
            f"output {tensor.name!r}: no memory for shape [{_shape_text(shape)}]: {error}"
        ) from error


def _check_buffer(name: str, array: np.ndarray, tensor: TensorInfo) -> None:
    if array.dtype != tensor.dtype.numpy:
        raise InputError(
            f"output {name!r}: expected a buffer of dtype {tensor.dtype.numpy}, found {array.dtype}"
        )
    flags = array.flags
    for good, what in (
        (flags.writeable, "writable"),
        (flags.c_contiguous, "dense and row-major (C-contiguous)"),
        (flags.aligned, "aligned to its element"),
    ):
        if not good:
            raise InputError(f"output {name!r}: expected a buffer that is {what}")


def _as_object(name: str, value: Any, dtype: DType) -> np.ndarray:
    """Text as an array of objects; anything else in a box, so that it has a shape."""
    if dtype is DType.OBJECT:
        box = np.empty((), object)
        box[()] = value
        return box
    array = np.asarray(value)
    if array.dtype.kind not in "OUT":
        raise InputError(
            f"input {name!r}: expected text, found {array.dtype}",
            hint="pass an array of str objects",
        )
    return np.array(array, dtype=object, order="C")


def _as_array(value: Any, where: str) -> np.ndarray:
    """An array over the same memory: NumPy's, or anything that speaks DLPack."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except Exception as error:  # the exporter's own error types are not known here
            raise InputError(
                f"{where}: DLPack gave no array in CPU memory: {error}",
                hint="move it to the CPU, or pass a NumPy array",
            ) from error
    raise InputError(
        f"{where}: expected a NumPy array or an object with __dlpack__, "
        f"found {type(value).__name__}",
        hint="wrap it with numpy.asarray(value, dtype=…)",
    )


def _shape_text(shape: Shape) -> str:
    return ", ".join(map(str, shape))
