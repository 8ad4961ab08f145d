"""The accuracy guard where plain INT8 fails: it has to end inside its bound and keep the speed.

    python bench/guard.py                                all cases, at level 1
    python bench/guard.py --cases mobilenetv2 --level 0 --bound 1 --json guard.json

    mobilenetv2, mobilenet_v1   one scale for all channels of depthwise weights, no equalisation, no
                                correction of biases; a bound in points of top-1
    unlabelled                  MobileNet v2 of that kind again; a bound in percent of noise
    transformer                 KWT-1 with a few channels of norms 50 times as large, which the next
                                weights make up for; a bound in points of top-1

Calibration and guard see one part of the labelled samples, and the figures here are of the others.
Where a network is outside its bound on these, or keeps less than 70 % of the time that INT8 saves,
the exit status is 1. Models and data are read at ../shared; without it there is nothing to do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import planish
from planish.pipeline.labels import Labels
from planish.pipeline.scoring import decibels, percent
from planish.pipeline.speed import time_plans
from planish.quantize.settings import Settings, make_settings
from planish.runtime import Engine
from zoo_data import DATASETS, SHARED

LEAST_KEPT = 70.0  # percent of the time that INT8 saves
OUTLIERS = 3  # channels of a norm
OUTLIER_GAIN = 50.0
CLIPS = 300  # that calibration and guard may see

Samples = list[tuple[np.ndarray, int]]  # (input without its batch dim, class)


@dataclass(frozen=True)
class Case:
    """A network, and what the guard is to hold on it.

    Attributes:
        model: Name of the trained network.
        bound: In points of top-1, or in percent of noise.
        labelled: Whether the guard is given labels.
        settings: How it is quantised.
        change: What is done to the network first.
        seen: Samples that calibration and guard may see, of those that are scored; 0: the set has
            others for that.
        first_class: Index of class 0 in the output.
    """

    model: str
    bound: float
    labelled: bool
    settings: Settings
    change: Callable[[onnx.ModelProto], onnx.ModelProto]
    seen: int = 0
    first_class: int = 0


def with_outliers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every third norm of a KWT gets a few large channels on its way to the next product.

        norm·g + b ─┬─ MatMul w    becomes    norm·(g·s) + b·s ─ MatMul (w / s)
                    └─ Add                    norm·g + b       ─ Add

    What the network computes stays the same.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    norms = [n for n in graph.node if n.op_type == "Add" and n.name.endswith(("_ln1", "_ln2"))]
    random = np.random.default_rng(0)
    for norm in norms[::3]:
        gain = next(n for n in graph.node if norm.input[0] in n.output)
        scale = np.ones(len(known[norm.input[1]]), np.float32)
        scale[random.choice(len(scale), OUTLIERS, replace=False)] = OUTLIER_GAIN
        wide = f"{norm.name}_wide"

        def add(name: str, data: np.ndarray) -> str:
            graph.initializer.append(numpy_helper.from_array(data, name))
            return name

        made = [
            helper.make_node("Mul", [gain.input[0], add(f"{wide}_g", known[gain.input[1]] * scale)],
                             [f"{wide}_mul"], name=f"{wide}_mul"),
            helper.make_node("Add", [f"{wide}_mul", add(f"{wide}_b", known[norm.input[1]] * scale)],
                             [wide], name=wide),
        ]  # fmt: skip
        for node in graph.node:
            if node.op_type == "MatMul" and node.input[0] == norm.output[0]:
                weights = known[node.input[1]] / scale[:, None]
                node.input[0], node.input[1] = wide, add(f"{node.input[1]}_small", weights)
        place = list(graph.node).index(norm) + 1
        for offset, node in enumerate(made):
            graph.node.insert(place + offset, node)
    return changed


def _same(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


COARSE = make_settings(per_channel=False, equalise=False, correct_biases=False)
CASES = {
    "mobilenetv2": Case("mobilenetv2_1.0_224", 0.5, True, COARSE, _same, first_class=1),
    "mobilenet_v1": Case("mobilenet_v1_1.0_224", 0.5, True, COARSE, _same, first_class=1),
    "unlabelled": Case("mobilenetv2_1.0_224", 5.0, False, COARSE, _same, first_class=1),
    "transformer": Case("kwt1_mfcc", 0.5, True, make_settings(), with_outliers, seen=CLIPS),
}


def read_samples(case: Case, most: int) -> tuple[Samples, Samples]:
    """(what calibration and guard see, what is scored), at most so many each; 0: all."""
    data = DATASETS[case.model]
    found = islice(data.everything(), case.seen) if case.seen else data.calibration()
    scored = islice(data.everything(), case.seen, None)
    limit = most or None
    return list(islice(found, limit)), list(islice(scored, limit))


def outputs(plan: planish.Plan, samples: Samples) -> np.ndarray:
    """The first output of each sample."""
    with Engine(plan) as engine:
        name = engine.plan.inputs[0].name
        rows = [next(iter(engine.run({name: one[None]}).values())) for one, _ in samples]
        return np.concatenate([np.array(row).reshape(1, -1) for row in rows])


def lost(case: Case, found: np.ndarray, floats: np.ndarray, classes: np.ndarray) -> float:
    """How much worse than floats, in the unit of the case's bound."""
    if not case.labelled:
        noise = np.asarray(found, np.float64) - floats
        return percent(decibels(float((np.float64(floats) ** 2).sum()), float((noise**2).sum())))
    return top1(case, floats, classes) - top1(case, found, classes)


def top1(case: Case, rows: np.ndarray, classes: np.ndarray) -> float:
    """Percent of the samples whose class comes first."""
    return 100 * float(np.mean(rows.argmax(axis=1) - case.first_class == classes))


def measure(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Build the three plans of a case, score and time them."""
    seen, scored = read_samples(case, options.samples)
    model = case.change(onnx.load(SHARED / "models" / f"{case.model}.onnx"))
    labels = Labels({str(n): label for n, (_, label) in enumerate(seen)}, case.first_class)
    bound = options.bound or case.bound
    with tempfile.TemporaryDirectory() as folder:
        narrow: dict[str, Any] = {
            "precision": "int8", "calibration": [sample for sample, _ in seen],
            "quantization": case.settings, "calibration_cache": Path(folder) / "calibration",
        }  # fmt: skip
        guard = {**narrow, "max_accuracy_drop": bound, "labels": labels if case.labelled else None}
        plans, seconds = {}, {}
        for what, arguments in (("fp32", {}), ("int8", narrow), ("guarded", guard)):
            began = time.perf_counter()
            plans[what] = planish.build(model, level=options.level, **arguments)
            seconds[what] = time.perf_counter() - began
    times = dict(zip(plans, time_plans(list(plans.values())), strict=True))
    classes = np.array([label for _, label in scored])
    rows = {what: outputs(plan, scored) for what, plan in plans.items()}
    kept = 100 * (times["fp32"] - times["guarded"]) / (times["fp32"] - times["int8"])
    return {
        "case": name,
        "bound": bound,
        "samples": [len(seen), len(scored)],
        "plans": [
            {"plan": what, "top1": top1(case, rows[what], classes), "micros": times[what],
             "lost": lost(case, rows[what], rows["fp32"], classes), "seconds": seconds[what]}
            for what in plans
        ],
        "kept": kept,
        "choice": plans["guarded"].provenance["choice"],
    }  # fmt: skip


def tell(found: dict[str, Any]) -> None:
    """Print a case."""
    guard, choice = found["choice"]["guard"], found["choice"]
    unit = "" if guard is None else guard["unit"]
    print(f"\n{found['case']}: at most {found['bound']:g} {unit}; calibration and guard see "
          f"{found['samples'][0]} samples, scored on {found['samples'][1]} others")  # fmt: skip
    for row in found["plans"]:
        print(f"  {row['plan']:8} top-1 {row['top1']:6.2f} %   lost {row['lost']:8.3f}   "
              f"{row['micros'] / 1e3:7.3f} ms   built in {row['seconds']:.0f} s")  # fmt: skip
    for step in [] if guard is None else guard["path"]:
        micros = f"{step['micros'] / 1e3:7.3f} ms {step['time']}" if step["micros"] else "not timed"
        print(f"    {len(step['layers']):3} layers in fp32: lost {step['drop']:8.3f} "
              f"({step['on']}), {micros}")  # fmt: skip
    why = f": {choice['why']}" if choice["why"] else ""
    print(f"  kept {found['kept']:.0f} % of the time that int8 saves; "
          f"{len(choice['layers'])} layers in fp32; {choice['kept']}{why}")  # fmt: skip


def complaints(found: dict[str, Any]) -> list[str]:
    """What falls short, in words."""
    name, guarded = found["case"], found["plans"][-1]
    short = []
    if guarded["lost"] > found["bound"]:
        short.append(f"{name}: {guarded['lost']:.3f} lost, more than {found['bound']:g}")
    if not found["kept"] >= LEAST_KEPT:
        short.append(f"{name}: {found['kept']:.0f} % of the gain kept, less than {LEAST_KEPT:g}")
    return short


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the cases; 1 where one falls short."""
    parser = argparse.ArgumentParser(description="The accuracy guard where plain INT8 fails.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--samples", type=int, default=0, help="of either part; 0: all")
    parser.add_argument("--bound", type=float, default=0.0, help="in place of each case's own")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not SHARED.exists():
        print(f"nothing to do: {SHARED} does not exist")
        return 0
    results = []
    for name in options.cases:
        results.append(measure(name, CASES[name], options))
        tell(results[-1])
    short = [text for found in results for text in complaints(found)]
    print("\n" + ("\n".join(f"FALLS SHORT: {text}" for text in short) or "all inside the bounds"))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
