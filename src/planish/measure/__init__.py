"""The figures: throughput, latency, accuracy, memory; and one runtime held against another."""

from planish.measure.bench import BenchReport, bench_engine
from planish.measure.compare import Comparison, compare_outputs
from planish.measure.stats import Latency, summarise

__all__ = [
    "BenchReport",
    "Comparison",
    "Latency",
    "bench_engine",
    "compare_outputs",
    "summarise",
]
