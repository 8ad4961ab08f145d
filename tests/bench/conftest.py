"""The benchmarks are scripts beside the package; their tests find them on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
