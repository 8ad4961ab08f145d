"""The accuracy guard where plain INT8 fails: one scale for all channels of depthwise weights.

    python bench/guard.py                     MobileNet v2, no equalisation, 0.5 points of top-1
    python bench/guard.py --pictures 400 --bound 1 --json guard.json

Plain INT8 of that kind reads hardly a picture any more. The guard has to end inside its bound and
keep most of the speed. Models and data are read at ../shared; without it there is nothing to do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import planish
from planish.pipeline.labels import Labels
from planish.pipeline.precision import time_plans
from planish.quantize.settings import make_settings
from planish.runtime import Engine

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODEL = SHARED / "models" / "mobilenetv2_1.0_224.onnx"
FOLDER = SHARED / "data" / "imagenet_calib"
FIRST_CLASS = 1  # output 0 is the background

Pictures = list[tuple[np.ndarray, int]]


def read_pictures(count: int) -> Pictures:
    """Every so many-th picture, as the network wants it, with its class."""
    from PIL import Image

    lines = (FOLDER / "labels.txt").read_text().splitlines()
    found = []
    for line in lines[:: max(1, len(lines) // count)][:count]:
        file, label = line.split()
        with Image.open(FOLDER / file) as picture:
            rgb = np.asarray(picture.convert("RGB"), np.float32)[16:240, 16:240]
        found.append((((rgb - 127.5) / 127.5).transpose(2, 0, 1).copy(), int(label)))
    return found


def top1(plan: planish.Plan, pictures: Pictures) -> float:
    """Percent of the pictures whose class a plan tells."""
    with Engine(plan) as engine:
        right = [int(np.argmax(engine(p[None]))) - FIRST_CLASS == label for p, label in pictures]
    return 100 * float(np.mean(right))


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, scores and times the three plans; 1 where the guard is outside its bound."""
    parser = argparse.ArgumentParser(description="The accuracy guard where plain INT8 fails.")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--bound", type=float, default=0.5, help="points of top-1")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not MODEL.exists():
        print(f"nothing to do: {MODEL} does not exist")
        return 0
    pictures = read_pictures(options.pictures)
    settings = make_settings(per_channel=False, equalise=False, correct_biases=False)

    def samples() -> Iterator[np.ndarray]:
        return (picture for picture, _ in pictures)

    labels = Labels({str(n): label for n, (_, label) in enumerate(pictures)}, FIRST_CLASS)
    build = {"calibration": samples, "quantization": settings, "level": options.level}
    plans = {
        "fp32": planish.build(str(MODEL), level=options.level),
        "int8": planish.build(str(MODEL), precision="int8", **build),
        "guarded": planish.build(
            str(MODEL), precision="int8", max_accuracy_drop=options.bound, labels=labels, **build
        ),
    }
    times = time_plans(list(plans.values()))
    rows = []
    for (name, plan), micros in zip(plans.items(), times, strict=True):
        score = top1(plan, pictures)
        rows.append({"plan": name, "top1": score, "ms": micros / 1e3})
        print(f"{name:8} top-1 {score:6.2f} %   {micros / 1e3:7.2f} ms")
    choice = plans["guarded"].provenance["choice"]
    for step in choice["guard"]["path"]:
        shown = ", ".join(step["layers"][:4]) + (" …" if len(step["layers"]) > 4 else "")
        print(f"  {len(step['layers']):3} layers in fp32: {step['drop']:7.2f} points lost "
              f"({step['on']}) {shown}")  # fmt: skip
    kept = choice["kept"]
    print(f"kept: {kept} {choice['why']}; {len(choice['layers'])} layers in fp32")
    if options.json:
        report = {"plans": rows, "guard": choice}
        options.json.write_text(json.dumps(report, indent=1))
    return int(rows[0]["top1"] - rows[2]["top1"] > options.bound)


if __name__ == "__main__":
    sys.exit(main())
