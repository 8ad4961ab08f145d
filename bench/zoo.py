"""The models that planish is measured and checked with, made once into a cache folder.

    python bench/zoo.py                  make all of them and print a table
    python bench/zoo.py 'light_*'        only some

From Python, with this folder on sys.path:

    for model in zoo.models():
        outputs = engine.run(zoo.random_inputs(model, batch=1, seed=3))
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import platformdirs

import zoo_batch
import zoo_export
import zoo_light

RECIPE_VERSION = 1  # raise it when a recipe changes: the cached files are made anew
SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"


@dataclass(frozen=True)
class ZooModel:
    """One network on disk."""

    name: str
    path: Path
    inputs: dict[str, tuple[str, tuple[int, ...]]]  # name -> (NumPy dtype, shape)
    batchable: bool  # with_batch works: proved with onnxruntime
    source: str  # "light", "shared" or "export"
    note: str = ""  # what had to be changed for another batch, or why none is possible
    dynamic_path: Path | None = None  # the same network with a symbolic batch "N"


def default_dir() -> Path:
    """The cache folder where models are kept."""
    return Path(platformdirs.user_cache_dir("planish-bench"))


def sources() -> dict[str, str]:
    """Every model's name and where it comes from. Needs nothing but onnx; makes nothing."""
    shared = sorted(SHARED_MODELS.glob("*.onnx"))
    return {
        **dict.fromkeys(zoo_light.light_files(), "light"),
        **{path.stem: "shared" for path in shared},
        **dict.fromkeys(zoo_export.RECIPES, "export"),
    }


def models(
    names: Iterable[str] | None = None,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[ZooModel]:
    """The models called `names` (globs allowed; all by default), made where they are missing.

    Raises:
        KeyError: A name that fits no model.
    """
    folder = folder or default_dir()
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in _select(names):
        model = _read_record(folder, name)
        if model is None:
            progress(f"making {name}")
            model = _make(folder, name)
            _write_record(folder, model)
        found.append(model)
    return found


def random_inputs(model: ZooModel, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded inputs that make sense: normal pixels, token ids of the vocabulary, padding masks."""
    rng = np.random.default_rng(seed)
    return {
        name: _draw(rng, name, np.dtype(dtype), (batch, *shape[1:]))
        for name, (dtype, shape) in model.inputs.items()
    }


def with_batch(model: ZooModel, batch: int | str, folder: Path | None = None) -> ZooModel:
    """The model with a static batch, or with a symbolic one (a name, such as "N").

    Raises:
        zoo_batch.BatchError: The graph fixes its batch; `model.note` says where.
    """
    if not model.batchable and batch != 1:
        raise zoo_batch.BatchError(f"{model.name}: {model.note}")
    if batch == 1 and model.source != "shared":
        return model  # light and exported files are static at batch 1 already
    target = (folder or default_dir()) / "batch" / f"{model.name}.{batch}.onnx"
    rows = batch if isinstance(batch, int) else 1
    inputs = {name: (dtype, (rows, *shape[1:])) for name, (dtype, shape) in model.inputs.items()}
    batched = replace(model, path=target, inputs=inputs)
    source = model.dynamic_path if model.dynamic_path and batch != 1 else model.path
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return batched
    graph = onnx.load(source)
    zoo_batch.rebatch(graph, batch)
    _save(graph, target)
    return batched


def _select(names: Iterable[str] | None) -> list[str]:
    known = list(sources())
    if names is None:
        return known
    chosen: list[str] = []
    for pattern in names:
        fits = fnmatch.filter(known, pattern)
        if not fits:
            raise KeyError(f"no model {pattern!r}; there are: {', '.join(known)}")
        chosen += [name for name in fits if name not in chosen]
    return chosen


# Bounds of integer inputs, half-open, by name.
_INTEGERS = {"input_ids": (0, 30522), "token_type_ids": (0, 2)}


def _draw(
    rng: np.random.Generator, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    if name == "attention_mask":  # each row: at least half of it words, then padding
        lengths = rng.integers(shape[1] // 2, shape[1] + 1, size=(shape[0], 1))
        return (np.arange(shape[1]) < lengths).astype(dtype)
    if dtype.kind in "iu":
        low, high = _INTEGERS[name]
        return rng.integers(low, high, size=shape, dtype=dtype)
    return rng.standard_normal(shape).astype(dtype)


def _make(folder: Path, name: str) -> ZooModel:
    path, dynamic = folder / f"{name}.onnx", None
    source = sources()[name]
    if source == "light":
        _save(zoo_light.fill(zoo_light.light_files()[name]), path)
    elif source == "shared":
        path = SHARED_MODELS / f"{name}.onnx"
    else:
        dynamic = folder / f"{name}.dynamic.onnx"
        for target, is_dynamic in ((path, False), (dynamic, True)):
            partial = _partial(target)
            zoo_export.export(name, partial, dynamic=is_dynamic)
            os.replace(partial, target)
    model = ZooModel(name, path, _inputs(path), False, source, dynamic_path=dynamic)
    return _with_proof(model, folder)


def _with_proof(model: ZooModel, folder: Path) -> ZooModel:
    graph = onnx.load(model.dynamic_path or model.path)
    released = zoo_batch.rebatch(graph, zoo_batch.PROOF_BATCH)
    trial = _partial(folder / f"{model.name}.proof.onnx")
    onnx.save(graph, trial)
    try:
        feeds = random_inputs(model, zoo_batch.PROOF_BATCH)
        zoo_batch.prove(model.path, trial, feeds)
    except zoo_batch.BatchError as error:
        return replace(model, note=f"batch is fixed: {error}")
    finally:
        trial.unlink()
    count = len(released)
    note = f"{count} Reshape constants fix batch 1; with_batch frees them" if count else ""
    return replace(model, batchable=True, note=note)


def _inputs(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    graph = onnx.load(path, load_external_data=False).graph
    initialized = {tensor.name for tensor in graph.initializer}
    described = {}
    for value in graph.input:
        if value.name in initialized:
            continue
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        described[value.name] = (dtype, tuple(d.dim_value or 1 for d in kind.shape.dim))
    return described


def _partial(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.{path.name}")


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Writes aside and renames, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, _partial(path))
    os.replace(_partial(path), path)


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read_record(folder: Path, name: str) -> ZooModel | None:
    path = _record_path(folder, name)
    record = json.loads(path.read_text()) if path.exists() else {}
    if record.pop("version", None) != RECIPE_VERSION:
        return None
    record["inputs"] = {key: (d, tuple(shape)) for key, (d, shape) in record["inputs"].items()}
    record["path"] = Path(record["path"])
    record["dynamic_path"] = Path(record["dynamic_path"]) if record["dynamic_path"] else None
    model = ZooModel(**record)
    files = [model.path, model.dynamic_path or model.path]
    return model if all(file.exists() for file in files) else None


def _write_record(folder: Path, model: ZooModel) -> None:
    record = {
        "version": RECIPE_VERSION,
        **vars(model),
        "path": str(model.path),
        "dynamic_path": str(model.dynamic_path) if model.dynamic_path else None,
    }
    partial = _partial(_record_path(folder, model.name))
    partial.write_text(json.dumps(record, indent=1))
    os.replace(partial, _record_path(folder, model.name))


def main(arguments: list[str] | None = None) -> int:
    """Makes the models and prints them as a table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description="Make the models that the benchmarks use.")
    parser.add_argument("names", nargs="*", help="models or globs; all by default")
    parser.add_argument("--dir", type=Path, default=default_dir(), help="where to keep them")
    options = parser.parse_args(arguments)
    console = Console()
    if not SHARED_MODELS.is_dir():
        console.print(f"[yellow]no trained models: {SHARED_MODELS} does not exist[/]")
    table = Table(
        "model", "from", "MiB", "inputs", "other batches", title=f"models in {options.dir}"
    )
    try:
        made = models(options.names or None, options.dir, progress=console.print)
    except KeyError as error:
        console.print(f"[red]{error.args[0]}[/]")
        return 2
    for model in made:
        size = f"{model.path.stat().st_size / 2**20:.1f}"
        fed = "\n".join(f"{n} {d} {'x'.join(map(str, s))}" for n, (d, s) in model.inputs.items())
        batches = model.note or "yes"
        table.add_row(model.name, model.source, size, fed, batches)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
