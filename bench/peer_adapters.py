"""One adapter a peer: how it loads a model, runs it once, and keeps all cores busy.

An adapter lives in a child process of its own (`peer_rounds`). Each library is imported by the
functions that use it, so that a missing one costs only its own column.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class PeerError(RuntimeError):
    """A peer cannot take part, in words for the table."""


@dataclass(frozen=True)
class Job:
    """What a peer is asked to load; plain data, sent to its process."""

    name: str  # of the zoo's model
    batch: int
    path: Path  # ONNX file with static shapes, in floats
    feeds: Arrays
    threads: int  # for latency
    cores: int  # for throughput
    precision: str
    folder: Path  # where plans and converted models are kept
    qdq: Path | None = None  # the quantised file of the same shapes, where precision is "int8"
    calibration: int = 0  # samples for planish's own quantisation


@dataclass(frozen=True)
class Streams:
    """A way of keeping all cores busy: `run(seconds)` gives inferences a second."""

    label: str
    run: Callable[[float], float]


@dataclass(frozen=True)
class Loaded:
    """A model, ready to run with `Job.threads` threads."""

    run: Callable[[Arrays], Arrays]
    keep: Any = field(default=None, repr=False)  # whatever must outlive `run`


@dataclass(frozen=True)
class Peer:
    """A row of PEERS."""

    name: str
    version: Callable[[], str]
    load: Callable[[Job], Loaded]
    streams: Callable[[Job], list[Streams]]  # the usual setups; the fastest is kept
    precisions: frozenset[str] = frozenset({"fp32"})


def _loops(label: str, runners: list[Callable[[Arrays], Any]], feeds: Arrays) -> Streams:
    """Each runner in a thread of its own, over and over."""
    for runner in runners:
        runner(feeds)  # what is done at the first run only is not throughput

    def run(seconds: float) -> float:
        counts = [0] * len(runners)
        errors: list[BaseException] = []
        barrier = threading.Barrier(len(runners) + 1)

        def work(index: int) -> None:
            barrier.wait()
            deadline = time.perf_counter() + seconds
            try:
                while time.perf_counter() < deadline:
                    runners[index](feeds)
                    counts[index] += 1
            except Exception as error:
                errors.append(error)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(runners))]
        for worker in workers:
            worker.start()
        barrier.wait()
        begin = time.perf_counter()
        for worker in workers:
            worker.join()
        if errors:
            raise errors[0]
        return sum(counts) / (time.perf_counter() - begin)

    return Streams(label, run)


def file_of(job: Job) -> Path:
    """The file that says how to compute: at int8 the quantised one."""
    if job.precision != "int8":
        return job.path
    if job.qdq is None:
        raise PeerError("there is no quantised file")
    return job.qdq


def _output_names(job: Job) -> list[str]:
    """The graph's outputs in order; some peers know them by other names, or only by order."""
    import onnx

    graph = onnx.load(job.path, load_external_data=False).graph
    return [output.name for output in graph.output]


# --- planish


def _planish_version() -> str:
    from importlib.metadata import version

    return version("planish")


def _planish_model(job: Job) -> tuple[Path, dict[str, Any]]:
    """The model as it is trained, quantised by planish itself at int8."""
    if job.precision != "int8":
        return job.path, {"precision": job.precision}
    import zoo
    import zoo_quantised

    (model,) = zoo.models([job.name], job.folder)
    samples = list(zoo_quantised.calibration_feeds(model, job.calibration))
    return job.path, {"precision": "int8", "calibration": samples}


def _planish_qdq(job: Job) -> tuple[Path, dict[str, Any]]:
    """The quantised file that the other peers run."""
    return file_of(job), {}


def _planish_fp32(job: Job) -> tuple[Path, dict[str, Any]]:
    return job.path, {}


PlanishModel = Callable[[Job], tuple[Path, dict[str, Any]]]  # file, arguments of planish.build


def _planish_engine(job: Job, model: PlanishModel, threads: int) -> Any:
    import planish

    source, arguments = model(job)
    kind = model.__name__.removeprefix("_planish_")
    path = job.folder / "plans" / f"{job.name}.{job.batch}.{job.precision}.{kind}.{threads}.plan"
    path.parent.mkdir(parents=True, exist_ok=True)
    planish.build(source, threads=threads, level=3, **arguments).save(path)
    return planish.load(path)


def _planish_load(model: PlanishModel) -> Callable[[Job], Loaded]:
    def load(job: Job) -> Loaded:
        engine = _planish_engine(job, model, job.threads)
        return Loaded(engine.run, engine)

    return load


def _planish_streams(model: PlanishModel) -> Callable[[Job], list[Streams]]:
    def streams(job: Job) -> list[Streams]:
        wide = _planish_engine(job, model, job.cores)
        setups = [_loops(f"1 context x {job.cores} threads", [wide.context().run], job.feeds)]
        if job.cores > 1:
            narrow = _planish_engine(job, model, 1)
            runners = [narrow.context().run for _ in range(job.cores)]
            setups.append(_loops(f"{job.cores} contexts x 1 thread", runners, job.feeds))
        return setups

    return streams


# --- onnxruntime


def _ort_version() -> str:
    import onnxruntime

    return onnxruntime.__version__


def _ort_run(job: Job, threads: int) -> Callable[[Arrays], Arrays]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(file_of(job)), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _ort_load(job: Job) -> Loaded:
    return Loaded(_ort_run(job, job.threads))


def _ort_streams(job: Job) -> list[Streams]:
    setups = [_loops(f"1 session x {job.cores} threads", [_ort_run(job, job.cores)], job.feeds)]
    if job.cores > 1:
        # One session may run in several threads at once; its weights are then shared.
        runners = [_ort_run(job, 1)] * job.cores
        setups.append(_loops(f"{job.cores} callers x 1 thread", runners, job.feeds))
    return setups


# --- OpenVINO

# What is not quantised in a quantised file stays in f32.
_OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def _openvino_version() -> str:
    import openvino

    return openvino.__version__


def _openvino_compile(job: Job, hint: str, threads: int) -> Any:
    import openvino

    # Left to itself it computes in bf16 where the CPU can; hence the explicit precision.
    return openvino.Core().compile_model(
        str(file_of(job)),
        "CPU",
        {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[job.precision],
        },
    )


def _openvino_load(job: Job) -> Loaded:
    model = _openvino_compile(job, "LATENCY", job.threads)
    request = model.create_infer_request()
    names = _output_names(job)

    def run(feeds: Arrays) -> Arrays:
        result = request.infer(feeds, share_inputs=True, share_outputs=True)
        return {name: result[index] for index, name in enumerate(names)}

    return Loaded(run)


def _openvino_streams(job: Job) -> list[Streams]:
    import openvino

    model = _openvino_compile(job, "THROUGHPUT", job.cores)
    queue = openvino.AsyncInferQueue(model)

    def run(seconds: float) -> float:
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            queue.start_async(job.feeds, share_inputs=True)
            count += 1
        queue.wait_all()
        return count / (time.perf_counter() - begin)

    return [Streams(f"throughput hint, {len(queue)} requests", run)]


# --- ncnn


def _ncnn_version() -> str:
    import ncnn
    import pnnx

    return f"{ncnn.__version__} (pnnx {pnnx.__version__})"


def _ncnn_convert(job: Job) -> Path:
    """The model's ncnn files, made by pnnx from the ONNX file; the stem of their names."""
    import pnnx

    target = job.folder / "ncnn" / job.name
    param = target.with_name(f"{job.name}.ncnn.param")
    if param.exists() and param.stat().st_mtime >= job.path.stat().st_mtime:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    shapes = ",".join(
        f"[{','.join(map(str, value.shape))}]{'f32' if value.dtype == np.float32 else 'i64'}"
        for value in job.feeds.values()
    )
    by_product = target.with_name(f"{job.name}.pnnx")
    command = [pnnx.EXEC_PATH, str(job.path), f"inputshape={shapes}", "fp16=0"]
    command += [f"ncnnparam={param}", f"ncnnbin={target}.ncnn.bin", f"ncnnpy={target}_ncnn.py"]
    command += [f"pnnxparam={by_product}.param", f"pnnxbin={by_product}.bin"]
    command += [f"pnnxpy={target}_pnnx.py", f"pnnxonnx={by_product}.onnx"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    if done.returncode or not param.exists():
        raise PeerError("pnnx cannot convert it")
    for left in (f"{by_product}.bin", f"{by_product}.onnx"):
        Path(left).unlink(missing_ok=True)
    return target


def _ncnn_run(job: Job, threads: int) -> Callable[[Arrays], Arrays]:
    import ncnn

    if job.batch != 1 or any(value.dtype != np.float32 for value in job.feeds.values()):
        raise PeerError("only batch 1 and float inputs")
    stem = _ncnn_convert(job)
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for kind in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        if hasattr(net.opt, f"use_{kind}"):
            setattr(net.opt, f"use_{kind}", False)
    if net.load_param(f"{stem}.ncnn.param") or net.load_model(f"{stem}.ncnn.bin"):
        raise PeerError("ncnn cannot load what pnnx made")
    names = _output_names(job)

    def run(feeds: Arrays) -> Arrays:
        extractor = net.create_extractor()
        pictures = [ncnn.Mat(value[0]) for value in feeds.values()]  # a Mat has no batch
        for index, picture in enumerate(pictures):
            extractor.input(f"in{index}", picture)
        outputs = {}
        for index, name in enumerate(names):
            status, out = extractor.extract(f"out{index}")
            if status:
                raise PeerError(f"ncnn failed with status {status}")
            outputs[name] = np.array(out)
        return outputs

    return run


def _ncnn_load(job: Job) -> Loaded:
    return Loaded(_ncnn_run(job, job.threads))


def _ncnn_streams(job: Job) -> list[Streams]:
    return [_loops(f"1 net x {job.cores} threads", [_ncnn_run(job, job.cores)], job.feeds)]


# --- torch.compile


def _torch_version() -> str:
    import torch

    return torch.__version__


def _torch_run(job: Job, threads: int) -> Callable[[Arrays], Arrays]:
    import torch

    import zoo_export

    if job.name not in zoo_export.RECIPES:
        raise PeerError("not made from torch")
    torch.set_num_threads(threads)
    torch._inductor.config.freezing = True  # inductor's own setup for inference on CPUs
    compiled = torch.compile(zoo_export.make_module(job.name))
    names = zoo_export.RECIPES[job.name].outputs

    def run(feeds: Arrays) -> Arrays:
        with torch.no_grad():
            result = compiled(*(torch.from_numpy(value) for value in feeds.values()))
        tensors = result if isinstance(result, tuple) else (result,)
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

    return run


def _torch_load(job: Job) -> Loaded:
    return Loaded(_torch_run(job, job.threads))


def _torch_streams(job: Job) -> list[Streams]:
    return [_loops(f"{job.cores} threads", [_torch_run(job, job.cores)], job.feeds)]


def _planish(name: str, model: PlanishModel, *precisions: str) -> Peer:
    load, streams = _planish_load(model), _planish_streams(model)
    return Peer(name, _planish_version, load, streams, frozenset(precisions))


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        _planish("planish", _planish_model, "fp32", "int8"),
        _planish("planish-qdq", _planish_qdq, "int8"),
        _planish("planish-fp32", _planish_fp32, "int8"),
        Peer("onnxruntime", _ort_version, _ort_load, _ort_streams, frozenset({"fp32", "int8"})),
        Peer(
            "openvino",
            _openvino_version,
            _openvino_load,
            _openvino_streams,
            frozenset(_OPENVINO_PRECISIONS),
        ),
        Peer("ncnn", _ncnn_version, _ncnn_load, _ncnn_streams),
        Peer("torch", _torch_version, _torch_load, _torch_streams),
    )
}


def installed_version(name: str) -> str | None:
    """The peer's version, or None where it is not installed."""
    try:
        return PEERS[name].version()
    except ImportError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None
