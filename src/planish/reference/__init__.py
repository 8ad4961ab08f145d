"""ONNX's reference implementation, mended where it departs from ONNX. What runs on the host."""
