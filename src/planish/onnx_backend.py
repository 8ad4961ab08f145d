"""The ONNX Backend API on planish: `prepare`, `run_model`, `run_node`, `supports_device`.

    import planish.onnx_backend as backend
    outputs = backend.run_model(model, [array])

Plans are built at level 0: nothing is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from planish.base.dtypes import DType
from planish.base.errors import InputError
from planish.pipeline import build
from planish.plan import HostStep
from planish.runtime import Engine


class PlanishRep(BackendRep):
    """A prepared model.

    Args:
        engine: The engine of its plan.
        native: True when no step runs on the host.
    """

    def __init__(self, engine: Engine, native: bool) -> None:
        self.engine = engine
        self.native = native

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model.

        Args:
            inputs: Arrays in the order of the model's inputs, one array, or arrays by name.
            kwargs: Ignored, as the API allows.

        Returns:
            A named tuple of the outputs, in order.

        Raises:
            InputError: Too many or too few inputs.
        """
        names = [tensor.name for tensor in self.engine.inputs]
        if isinstance(inputs, dict):
            feeds = dict(inputs)
        else:
            given = inputs if isinstance(inputs, list | tuple) else [inputs]
            if len(given) != len(names):
                raise InputError(f"expected {len(names)} inputs ({names}), found {len(given)}")
            feeds = dict(zip(names, given, strict=True))
        tensors = {tensor.name for tensor in self.engine.inputs if tensor.dtype is not DType.OBJECT}
        made = self.engine.run(
            {name: np.asarray(v) if name in tensors else v for name, v in feeds.items()}
        )
        order = [tensor.name for tensor in self.engine.outputs]
        return namedtupledict("Outputs", order)(*[made[name] for name in order])


class PlanishBackend(Backend):
    """planish as an ONNX backend. The CPU only."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PlanishRep:
        """Build a plan and make it ready to run.

        Args:
            model: The model.
            device: "CPU".
            kwargs: Options of `planish.build`.

        Raises:
            PlanishError: The model is malformed or cannot be built.
        """
        kwargs.setdefault("level", 0)
        plan = build(model, **kwargs)
        native = not any(isinstance(step, HostStep) for step in plan.steps)
        return PlanishRep(Engine(plan), native)

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Build and run a model once."""
        with cls.prepare(model, device, **kwargs).engine as engine:
            return PlanishRep(engine, False).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node.

        Args:
            node: The node.
            inputs: Arrays for its inputs that are not left out, in order.
            device: "CPU".
            outputs_info: (dtype, shape) of each output, where known.
            kwargs: `opset_version` of the node; options of `planish.build`.
        """
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        arrays = [np.asarray(value) for value in inputs]
        names = [name for name in node.input if name]
        to_type = onnx.helper.np_dtype_to_tensor_dtype
        infos = [
            onnx.helper.make_tensor_value_info(name, to_type(array.dtype), array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        made = [
            onnx.helper.make_tensor_value_info(name, to_type(np.dtype(dtype)), shape)
            for name, (dtype, shape) in zip(node.output, outputs_info or (), strict=False)
        ] or [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], node.op_type, infos, made)
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset)]
        )
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for the CPU."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False


prepare = PlanishBackend.prepare
run_model = PlanishBackend.run_model
run_node = PlanishBackend.run_node
supports_device = PlanishBackend.supports_device
