"""Latency and throughput of an engine, the first inference apart from the rest."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.measure.energy import EnergyMeter
from planish.measure.stats import Latency, summarise
from planish.runtime import Engine

_LEAST_RUNS = 10


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and with what.

    Attributes:
        latency: Of one stream that runs alone.
        first_ms: Milliseconds of the very first inference.
        throughput: Inferences a second of all streams together.
        per_second: Items a second: `throughput` times `batch`.
        batch: Leading size of the first input.
        streams: Contexts that ran at once for the throughput.
        stream_threads: Workers of each of them.
        threads: Workers of the stream that gave the latency.
        memory: Bytes of the stream that gave the latency: weights, code, arena, scratch, heap;
            `peak_rss` of the whole process so far.
        joules: Energy of the CPU packages for one item during the throughput part; 0.0 where it
            cannot be read.
        warnings: What makes the figures doubtful.
    """

    latency: Latency
    first_ms: float
    throughput: float
    per_second: float
    batch: int
    streams: int
    stream_threads: int
    threads: int
    memory: dict[str, int]
    joules: float
    warnings: tuple[str, ...]


def bench_engine(
    engine: Engine,
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 3.0,
    warmup: float = 0.2,
    streams: int = 0,
    stream_threads: int = 0,
) -> BenchReport:
    """Measure an engine.

    Args:
        engine: The engine.
        feeds: Inputs of every run.
        seconds: Length of the latency part and of the throughput part, each.
        warmup: Seconds that are run and not counted.
        streams: Streams of the throughput part; 0: as many as fill the engine's threads with
            streams of one worker each.
        stream_threads: Workers of each stream; 0: 1, or what `streams` leaves each.
    """
    (report,) = bench_engines(
        [engine], feeds, seconds=seconds, rounds=1, warmup=warmup, streams=streams,
        stream_threads=stream_threads,
    )  # fmt: skip
    return report


def bench_engines(
    engines: Sequence[Engine],
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 3.0,
    rounds: int = 5,
    warmup: float = 0.2,
    streams: int = 0,
    stream_threads: int = 0,
) -> list[BenchReport]:
    """Measure engines against each other, in turns: what disturbs the machine falls on all alike.

    Args:
        engines: The engines, all with the same inputs.
        feeds: Inputs of every run.
        seconds: Length of the latency part and of the throughput part of each engine, all rounds
            together.
        rounds: Turns that each engine gets in each part.
        warmup: Seconds that are run and not counted, before each engine's first turn.
        streams: As for `bench_engine`.
        stream_threads: As for `bench_engine`.
    """
    firsts = []
    for engine in engines:
        started = time.perf_counter()
        engine.run(feeds)
        firsts.append(time.perf_counter() - started)
        _run_for(engine, feeds, warmup, 1)
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, mine in zip(engines, times, strict=True):
            mine += _run_for(engine, feeds, seconds / rounds, _LEAST_RUNS)
    memory = [{**engine.memory(), "peak_rss": peak_rss()} for engine in engines]
    split = [_split(engine.threads, streams, stream_threads) for engine in engines]
    loads: list[list[_Load]] = [[] for _ in engines]
    for turn in range(rounds):
        for engine, mine_of, (count, each) in zip(engines, loads, split, strict=True):
            warm = 0.0 if turn else warmup
            mine_of.append(_run_streams(engine, feeds, seconds / rounds, warm, count, each))
    return [
        _report(engine, feeds, seconds, *measured)
        for engine, *measured in zip(engines, firsts, times, memory, split, loads, strict=True)
    ]


def _split(threads: int, streams: int, each: int) -> tuple[int, int]:
    """Streams, and workers of each."""
    streams = streams or threads
    return streams, each or max(1, threads // streams)


def _report(
    engine: Engine,
    feeds: Mapping[str, np.ndarray],
    seconds: float,
    first: float,
    times: list[float],
    memory: dict[str, int],
    split: tuple[int, int],
    loads: list[_Load],
) -> BenchReport:
    latency = summarise(times)
    done = sum(load.done for load in loads)
    throughput = done / sum(load.seconds for load in loads)
    batch = _batch(feeds)
    joules = sum(load.joules for load in loads)
    return BenchReport(
        latency=latency,
        first_ms=first * 1e3,
        throughput=throughput,
        per_second=throughput * batch,
        batch=batch,
        streams=split[0],
        stream_threads=split[1],
        threads=engine.threads,
        memory=memory,
        joules=joules / (done * batch) if done * batch else 0.0,
        warnings=_warnings(latency, seconds),
    )


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _run_for(
    engine: Engine, feeds: Mapping[str, np.ndarray], seconds: float, least: int
) -> list[float]:
    times: list[float] = []
    outputs = engine.run(feeds)
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        started = time.perf_counter()
        engine.run(feeds, outputs)
        times.append(time.perf_counter() - started)
    return times


@dataclass(frozen=True)
class _Load:
    """What streams did together: inferences, in so many seconds, for so many joules."""

    done: int
    seconds: float
    joules: float


def _run_streams(
    engine: Engine,
    feeds: Mapping[str, np.ndarray],
    seconds: float,
    warmup: float,
    streams: int,
    threads: int,
) -> _Load:
    """Run contexts side by side, each from a thread of its own."""
    meter = EnergyMeter()
    contexts = [engine.context(threads=threads) for _ in range(streams)]
    counts = [0] * streams
    failures: list[BaseException] = []
    gate = threading.Barrier(streams + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        try:
            outputs = contexts[number].run(feeds)
            end = time.perf_counter() + warmup
            while time.perf_counter() < end:
                contexts[number].run(feeds, outputs)
            gate.wait()
            while not stop.is_set():
                contexts[number].run(feeds, outputs)
                counts[number] += 1
        except BaseException as error:
            failures.append(error)
            gate.abort()

    threads_ = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(streams)]
    for thread in threads_:
        thread.start()
    try:
        gate.wait()
        started = time.perf_counter()
        meter.start()
        time.sleep(seconds)
    except threading.BrokenBarrierError:
        started = time.perf_counter()
    finally:
        stop.set()
        for thread in threads_:
            thread.join()
    elapsed = time.perf_counter() - started
    joules = meter.joules()
    for context in contexts:
        context.close()
    if failures:
        raise failures[0]
    return _Load(sum(counts), elapsed, joules)


def _batch(feeds: Mapping[str, np.ndarray]) -> int:
    first = next(iter(feeds.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1


def _warnings(latency: Latency, seconds: float) -> tuple[str, ...]:
    found = []
    if not latency.is_stable:
        found.append(
            f"times vary by {latency.variation:.1%} (coefficient of variation): the machine is "
            "busy or its clock changes; quote the minimum and the median of a longer run"
        )
    if latency.runs < 100 and seconds >= 1:
        found.append(f"only {latency.runs} runs: p95 and p99 say little; use a longer duration")
    return tuple(found)
