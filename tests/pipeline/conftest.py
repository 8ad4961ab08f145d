"""Lets the tests of this room import the modules beside them and those of `lower`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "lower")]
