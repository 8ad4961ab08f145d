"""Energy of the CPU package, as the kernel counts it (RAPL), where it lets us read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Zone:
    counter: Path
    most: int  # microjoules after which the counter starts over


class EnergyMeter:
    """Reads the counters of all CPU packages.

    Args:
        root: Where the kernel lists them.

    Attributes:
        why_not: Why there is nothing to read; "" where there is.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._zones: list[_Zone] = []
        self.why_not = f"{root} lists no CPU package"
        for folder in sorted(root.glob("intel-rapl:*")):
            if folder.name.count(":") != 1:  # a part of a package
                continue
            try:
                most = int((folder / "max_energy_range_uj").read_text())
                int((folder / "energy_uj").read_text())
            except (OSError, ValueError) as error:
                self.why_not = f"{folder / 'energy_uj'} cannot be read: {error}"
                continue
            self._zones.append(_Zone(folder / "energy_uj", most))
        if self._zones:
            self.why_not = ""
        self._begin: list[int] = []

    def start(self) -> None:
        """Note where the counters stand."""
        self._begin = [int(zone.counter.read_text()) for zone in self._zones]

    def joules(self) -> float:
        """Energy since `start`, of everything that the machine did; 0.0 where nothing is read."""
        if not self._begin:
            return 0.0
        total = 0
        for zone, begin in zip(self._zones, self._begin, strict=True):
            now = int(zone.counter.read_text())
            total += now - begin if now >= begin else now + zone.most - begin
        return total / 1e6
