"""Networks exported from torch with random weights: torchvision's and a BERT-base encoder.

torch, torchvision and transformers are only needed to make the files, never to read them. Nothing
is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OPSET = 17
BERT_TOKENS = 128


@dataclass(frozen=True)
class Recipe:
    """How one network is made and what it is fed."""

    build: Callable[[], torch.nn.Module]
    inputs: dict[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape at batch 1)
    outputs: tuple[str, ...]


def _declare_operators() -> None:
    """Declares torchvision's compiled operators where they are missing.

    Without it neither torchvision nor what imports it (transformers does) can be imported.
    """
    import torch
    from torch import library

    boxes = "Tensor dets, Tensor scores, float iou_threshold"
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"torchvision::{operator}", f"({boxes}) -> Tensor")


def _torchvision(name: str) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        _declare_operators()
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return build


def _bert() -> torch.nn.Module:
    _declare_operators()
    import torch
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        """BertModel with positional inputs and a plain tuple of outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(BertConfig(attn_implementation="eager"))

        def forward(
            self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=kinds)
            return out.last_hidden_state, out.pooler_output

    return Encoder()


_PICTURE: dict[str, tuple[str, tuple[int, ...]]] = {"input": ("float32", (1, 3, 224, 224))}
_TOKENS: dict[str, tuple[str, tuple[int, ...]]] = {
    name: ("int64", (1, BERT_TOKENS)) for name in ("input_ids", "attention_mask", "token_type_ids")
}
RECIPES: dict[str, Recipe] = {
    **{
        name: Recipe(_torchvision(name), _PICTURE, ("logits",))
        for name in (
            "mobilenet_v2",
            "mobilenet_v3_large",
            "efficientnet_b0",
            "shufflenet_v2_x1_0",
            "convnext_tiny",
            "vit_b_16",
        )
    },
    "bert_base": Recipe(_bert, _TOKENS, ("hidden", "pooled")),
}


def make_module(name: str, seed: int = 0) -> torch.nn.Module:
    """The network in eval mode; the same seed gives the same weights as in the exported file."""
    import torch

    torch.manual_seed(seed)
    module = RECIPES[name].build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.min() == parameter.max():
                _scatter(parameter)
        _set_statistics(name, module)
    return module


def _scatter(parameter: torch.nn.Parameter) -> None:
    """Redraws a parameter that starts with one value everywhere.

    A bias of zeros, a scale of ones or ConvNeXt's layer scale of 1e-6 would hide a runtime that
    leaves it out.
    """
    start = float(parameter.flatten()[0])
    if start == 0.0:
        parameter.normal_(0.0, 0.05)
    elif start == 1.0:
        parameter.uniform_(0.7, 1.3)
    else:
        parameter.uniform_(0.1, 0.3)


def _set_statistics(name: str, module: torch.nn.Module) -> None:
    """Gives each batch norm statistics near those of its real input, but random ones.

    Statistics drawn freely let the signal die out within some layers, and the output would depend
    on the biases alone.
    """
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    module(*(torch.randn_like(x) for x in example_inputs(name, batch=4)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        deviation = norm.running_var.sqrt()
        norm.running_mean += 0.1 * deviation * torch.randn_like(deviation)
        # A channel that happens to be almost constant would be blown up by 1 / sqrt(variance).
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))
        norm.running_var *= torch.empty_like(deviation).uniform_(0.7, 1.3)


def example_inputs(name: str, batch: int = 1) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes and types, good enough to trace with."""
    import torch

    return tuple(
        torch.ones((batch, *shape[1:]), dtype=getattr(torch, dtype))
        for dtype, shape in RECIPES[name].inputs.values()
    )


def export(name: str, path: Path, *, dynamic: bool, seed: int = 0) -> None:
    """Writes the network to `path`; with `dynamic`, its batch is the symbolic dim "N".

    Batch norm stays in the file as nodes (the exporter would fold it into the convolutions), so
    that folding it is left to the runtimes under test.
    """
    import torch

    recipe = RECIPES[name]
    names = [*recipe.inputs, *recipe.outputs]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # MultiheadAttention's fused inference path has no ONNX spelling.
        torch.backends.mha.set_fastpath_enabled(False)
        torch.onnx.export(
            make_module(name, seed),
            example_inputs(name, batch=2 if dynamic else 1),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=list(recipe.inputs),
            output_names=list(recipe.outputs),
            dynamic_axes={key: {0: "N"} for key in names} if dynamic else None,
        )
