from pathlib import Path

import pytest
from commands import planish, small_model


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """The user's timing cache stays as it is."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PLANISH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="session")
def plan(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.plan"
    made = planish("build", model, "-o", path, "--level", 0, "--profile", "N=1:2:4")
    assert made.returncode == 0, made.stderr
    return path
