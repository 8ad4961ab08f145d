"""Kernels for the CPU, emitted as LLVM code."""
