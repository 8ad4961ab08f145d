"""The catalogue: workloads, their references, and the kernels that run them."""
