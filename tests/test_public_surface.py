"""The public names: what users may rely on, and nothing else."""

import inspect
import subprocess
import sys

import planish

PUBLIC = ["Context", "Engine", "Plan", "PlanishError", "__version__", "build", "load"]
BUILD = [
    "model", "precision", "calibration", "preprocess", "observer", "layer_precisions",
    "quantization", "calibration_cache", "max_accuracy_drop", "labels", "threads", "profiles",
    "inputs", "level", "timing_cache", "isa", "time_budget", "pins", "optimised", "progress",
]  # fmt: skip


def test_public_names() -> None:
    assert sorted(planish.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(planish, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    try:
        planish.no_such_name  # noqa: B018  # the access is what is tested
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError("no error")


def test_build_takes_its_options_by_name() -> None:
    parameters = inspect.signature(planish.build).parameters
    assert list(parameters) == BUILD
    assert all(p.kind is p.KEYWORD_ONLY for n, p in parameters.items() if n != "model")


def test_engine_and_context_have_their_methods() -> None:
    for name in ("run", "submit", "context", "profile", "memory", "close", "inputs", "outputs"):
        assert hasattr(planish.Engine, name)
    for name in ("run", "submit", "close"):
        assert hasattr(planish.Context, name)
    assert hasattr(planish.Plan, "save")


def test_every_error_is_a_planish_error() -> None:
    from planish.base import errors

    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(found) > 8
    assert all(issubclass(kind, planish.PlanishError) for kind in found)


def test_backend_has_the_names_of_the_onnx_backend_api() -> None:
    from planish import onnx_backend

    for name in ("prepare", "run_model", "run_node", "supports_device"):
        assert callable(getattr(onnx_backend, name))


def test_importing_planish_imports_nothing_heavy() -> None:
    code = (
        "import sys, planish; "
        "print([m for m in ('numpy', 'onnx', 'llvmlite', 'rich') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"
