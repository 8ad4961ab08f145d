"""What all tests share: golden text, and random cases that are the same in every run.

pytest --hypothesis-profile=default    draws other random cases
pytest --update-golden       writes what the tests find in place of what they expect; look at the
                             difference before it is committed
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares text with a file, or writes the file with --update-golden."""
    update = bool(request.config.getoption("--update-golden"))

    def check(path: Path, found: str) -> None:
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist: run pytest --update-golden and look at it")
        expected = path.read_text(encoding="utf-8")
        assert found == expected, f"{path} differs; if that is right, run pytest --update-golden"

    return check
