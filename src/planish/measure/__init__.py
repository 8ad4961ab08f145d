"""The figures: throughput, latency, accuracy, memory, energy; and one runtime against another."""

from planish.measure.bench import BenchReport, bench_engine, bench_engines
from planish.measure.compare import Comparison, compare_outputs
from planish.measure.feeds import dims_of, opt_dims, parse_shapes, random_feeds
from planish.measure.stats import Latency, summarise

__all__ = [
    "BenchReport",
    "Comparison",
    "Latency",
    "bench_engine",
    "bench_engines",
    "compare_outputs",
    "dims_of",
    "opt_dims",
    "parse_shapes",
    "random_feeds",
    "summarise",
]
