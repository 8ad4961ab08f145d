"""ONNX file → Graph at the canonical opset. The only room that reads protobuf."""

from planish.importer.convert import import_model

__all__ = ["import_model"]
