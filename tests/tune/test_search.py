"""The race between tactics, with times and errors that the tests make up."""

from __future__ import annotations

from collections.abc import Callable

from planish.base.dtypes import DType
from planish.kernels.kernel import config_text
from planish.kernels.workload import Operand, Workload, dense_strides
from planish.targets.cpu import host_target
from planish.tune.cache import TimingCache
from planish.tune.candidates import TACTICS_AT_LEVEL, Candidates, candidates
from planish.tune.check import plainest
from planish.tune.compile import Tactic
from planish.tune.search import Measure, Race, race_all, verdict

TARGET = host_target("", 1)


def _workload(m: int = 16) -> Workload:
    def operand(*shape: int, const: bool = False) -> Operand:
        return Operand(DType.F32, shape, dense_strides(shape), const)

    inputs = (operand(m, 32), operand(32, 48, const=True))
    return Workload("matmul", inputs, (operand(m, 48),), threads=1)


WORKLOAD = _workload()
FOUND = candidates(WORKLOAD, TARGET, 4)


def _clock(cost: Callable[[Tactic], float], log: list[str] | None = None) -> Measure:
    def measure(choice: dict[Workload, Tactic], runs: int) -> dict[Workload, list[float]]:
        if log is not None:
            log.extend(tactic.text for tactic in choice.values())
        return {w: [cost(tactic)] * runs for w, tactic in choice.items()}

    return measure


def _race(measure: Measure, cache: TimingCache | None = None, **options: object) -> Race:
    cache = cache or TimingCache(None)
    return race_all({WORKLOAD: FOUND}, TARGET, cache, measure, **options)[WORKLOAD]  # type: ignore[arg-type]  # options of race_all


def test_levels_take_more_and_more_tactics() -> None:
    counts = [len(candidates(WORKLOAD, TARGET, level).tactics) for level in range(6)]
    assert counts[0] == 1 and counts == sorted(counts)
    for level, count in enumerate(counts[:5]):
        found = candidates(WORKLOAD, TARGET, level)
        assert count >= min(TACTICS_AT_LEVEL[level], counts[5])
        assert count + len(found.skipped) == counts[5]
    heads = {tactic.kernel.name for tactic in candidates(WORKLOAD, TARGET, 5).tactics}
    assert {t.kernel.name for t in candidates(WORKLOAD, TARGET, 2).tactics} == heads


def test_ties_end_alike_in_the_race_and_from_its_times() -> None:
    """The last candidates are fastest at first; then all are equal, but for less than is kept."""
    seen: dict[str, int] = {}
    order = [tactic.text for tactic in FOUND.tactics]

    def cost(tactic: Tactic) -> float:
        seen[tactic.text] = seen.get(tactic.text, 0) + 1
        place = order.index(tactic.text)
        return 2.0 - place / 100 if seen[tactic.text] == 1 else 1.0 - place * 1e-6

    cache = TimingCache(None)
    first = _race(_clock(cost), cache).winner()
    again = _race(_clock(lambda tactic: 0.0), cache)
    assert again.fixed and again.winner() == first
    assert first.text in order[-4:]


def test_a_tactic_is_written_with_its_config() -> None:
    tactic = FOUND.tactics[0]
    assert tactic.text == f"{tactic.kernel.name} {config_text(tactic.config)}".strip()


def test_the_fastest_wins_wherever_it_stands() -> None:
    for wanted in FOUND.tactics:
        race = _race(_clock(lambda t, w=wanted: 1.0 if t.text == w.text else 5.0))
        assert race.winner().text == wanted.text


def test_of_equal_ones_the_likeliest_wins() -> None:
    assert _race(_clock(lambda tactic: 2.0)).winner().text == FOUND.tactics[0].text


def test_slow_ones_are_dropped_after_the_first_round() -> None:
    log: list[str] = []
    slow = FOUND.tactics[-1].text
    _race(_clock(lambda t: 9.0 if t.text == slow else 1.0, log))
    assert log.count(slow) == 1


def test_a_wrong_result_loses_its_win() -> None:
    liar = FOUND.tactics[1]
    race = _race(
        _clock(lambda t: 1.0 if t.text == liar.text else 5.0),
        accept=lambda w, t: 0.5 if t.text == liar.text else None,
    )
    assert race.winner().text != liar.text and race.rejected == {liar.text: 0.5}
    lines = verdict(race, FOUND, race.winner())
    assert f"{liar.text}: rejected, its result is off by 5.0e-01" in lines


def test_where_all_are_wrong_the_plain_one_stands_in() -> None:
    race = _race(_clock(lambda tactic: 1.0), accept=lambda w, t: 0.5)
    assert race.winner().text == plainest(FOUND.tactics).text


def test_a_rejected_time_is_not_cached() -> None:
    cache, liar = TimingCache(None), FOUND.tactics[1]
    _race(
        _clock(lambda t: 1.0 if t.text == liar.text else 5.0),
        cache,
        accept=lambda w, t: 0.5 if t.text == liar.text else None,
    )
    assert liar.text not in cache.times(WORKLOAD, TARGET)


def test_a_full_cache_decides_without_timing() -> None:
    cache, log = TimingCache(None), list[str]()
    for number, tactic in enumerate(reversed(FOUND.tactics)):
        cache.record(WORKLOAD, TARGET, tactic.text, 1.0 + number)
    race = _race(_clock(lambda tactic: 1.0, log), cache)
    assert race.winner().text == FOUND.tactics[-1].text and not log


def test_what_was_timed_decides_the_next_race_alike() -> None:
    cache = TimingCache(None)
    cost = {tactic.text: 1.0 + n % 3 / 10 for n, tactic in enumerate(FOUND.tactics)}
    first = _race(_clock(lambda t: cost[t.text]), cache)
    second = _race(_clock(lambda t: 1.0), cache)
    assert second.fixed and second.winner().text == first.winner().text


def test_one_candidate_needs_no_race() -> None:
    log: list[str] = []
    only = Candidates(FOUND.tactics[:1], (), ())
    measure = _clock(lambda tactic: 1.0, log)
    race = race_all({WORKLOAD: only}, TARGET, TimingCache(None), measure)[WORKLOAD]
    assert race.winner() == only.tactics[0] and not log


def test_time_that_is_up_ends_the_race_with_the_best_so_far() -> None:
    log: list[str] = []
    race = _race(_clock(lambda tactic: 1.0, log), time_budget=1e-9)
    assert not log and race.winner().text == FOUND.tactics[0].text
    assert "nothing was timed" in verdict(race, FOUND, race.winner())[0]
