"""Settings: patterns, and what is refused."""

from __future__ import annotations

import pytest

from planish.base.errors import BuildError
from planish.quantize.settings import make_settings, matching


def test_the_last_pattern_that_fits_counts() -> None:
    rules = (("*", "a"), ("conv?", "b"), ("conv1", "c"))
    assert matching(rules, ["conv1"]) == "c"
    assert matching(rules, ["conv2"]) == "b"
    assert matching(rules, ["fc"]) == "a"
    assert matching((), ["fc"]) is None


def test_observers_by_pattern() -> None:
    made = make_settings({"head*": "max"})
    assert made.observer(["head.3", "other"]) == "max"
    assert made.observer(["body"]) == "auto"
    assert "observer:head*=max" in made.text


@pytest.mark.parametrize("observer", ["", "median", {"x": "median"}])
def test_unknown_observers(observer: str | dict[str, str]) -> None:
    with pytest.raises(BuildError, match="not one of"):
        make_settings(observer)


def test_unknown_precisions() -> None:
    with pytest.raises(BuildError, match="precision 'int9' of layers 'conv'"):
        make_settings(layer_precisions={"conv": "int9"})


@pytest.mark.parametrize("percentile", [50.0, 101.0, -1.0])
def test_odd_percentiles(percentile: float) -> None:
    with pytest.raises(BuildError, match="percentile"):
        make_settings(percentile=percentile)


def test_rounding_of_weights() -> None:
    assert "round_weights=hessian" in make_settings().text
    assert make_settings(round_weights="nearest").round_weights == "nearest"
    with pytest.raises(BuildError, match="rounding of weights 'up': not one of"):
        make_settings(round_weights="up")
