"""Loads object code into the process and finds its functions. No compiler runs here."""

from __future__ import annotations

from collections.abc import Iterable

import llvmlite.binding as llvm

from planish.base.errors import PlanFileError
from planish.targets.cpu import _start_llvm


class LinkedCode:
    """Object files linked into this process. Its code lives as long as this object.

    Args:
        objects: Relocatable objects, as `compile_object` makes them.

    Raises:
        PlanFileError: An object is malformed or names a symbol that the process lacks.
    """

    def __init__(self, objects: Iterable[bytes]) -> None:
        _start_llvm()
        self._addresses: dict[str, int] = {}
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True, opt=2)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        try:
            for data in objects:
                self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
            self._engine.finalize_object()
        except RuntimeError as error:
            raise PlanFileError(f"object code does not link: {error}") from error

    def address(self, symbol: str) -> int:
        """The address of a function.

        Raises:
            PlanFileError: No object defines it.
        """
        if symbol not in self._addresses:
            found = int(self._engine.get_function_address(symbol))
            if not found:
                raise PlanFileError(f"the object code has no function {symbol!r}")
            self._addresses[symbol] = found
        return self._addresses[symbol]
