"""The plain summary reads well: a headline that makes sense alone, wins, concerns, what is under way and quiet."""

from datetime import UTC, datetime

from redis_agent import experiments
from redis_agent.summary import Subject, digest

HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000


def subject(name: str, *, ago_ms: int = 60_000, judged: bool = True, rate: float = 0.5, **criteria: str) -> Subject:
    fields = {"events_total": "1200", "rate_latest": str(rate), "rate_samples": "1"}
    experiment = experiments.parse_experiment(name, criteria)
    verdicts = experiments.judge(experiment, fields, now=datetime.fromtimestamp(NOW_MS / 1000, UTC))
    return Subject(name, NOW_MS - ago_ms, judged, fields, verdicts)


def summary(*subjects: Subject) -> list[str]:
    found = digest(subjects, now_ms=NOW_MS, since_ms=NOW_MS - HOUR_MS, quiet_after_ms=HOUR_MS)
    return found.text().splitlines()


WINNER = {"success_criteria": '["rate > 0.1"]'}
LOSER = {"failure_criteria": '["rate > 0.1"]'}


def test_headline_counts_and_makes_sense_alone() -> None:
    headline = summary(subject("win", **WINNER), subject("lose", **LOSER), subject("still", ago_ms=2 * HOUR_MS))[0]
    assert "2 experiments had events in the last hour" in headline
    for part in ("1 success criterion met", "1 failure criterion met", "1 experiment quiet"):
        assert part in headline


def test_each_experiment_stands_under_its_heading() -> None:
    lines = summary(
        subject("win", **WINNER), subject("lose", **LOSER), subject("slow", rate=0.05, **WINNER),
        subject("bare"), subject("still", ago_ms=3 * HOUR_MS),
    )  # fmt: skip
    under: dict[str, list[str]] = {}
    heading = ""
    for line in lines[1:]:
        if line.startswith("- "):
            under[heading].append(line[2:].partition(":")[0])
        else:
            heading = line
            under[heading] = []
    assert under == {"Wins": ["win"], "Concerns": ["lose"], "Under way": ["slow", "bare"], "Quiet": ["still"]}


def test_what_is_under_way_is_told_with_its_numbers() -> None:
    (line,) = [line for line in summary(subject("slow", rate=0.05, **WINNER)) if line.startswith("- slow")]
    assert "1,200 events" in line
    assert "0.05" in line
    assert "no criteria are defined" in "\n".join(summary(subject("bare")))


def test_archived_experiments_and_old_silence_are_not_spoken_of() -> None:
    lines = summary(subject("gone", judged=False, **WINNER), subject("ancient", ago_ms=1000 * HOUR_MS))
    assert not any("gone" in line or "ancient" in line for line in lines)


def test_long_lists_are_cut_and_counted() -> None:
    lines = summary(*[subject(f"e{n}", **WINNER) for n in range(500)])
    assert len(lines) < 20
    assert "- and 490 more" in lines


def test_nothing_at_all_still_reads_well() -> None:
    (headline,) = summary()
    assert headline.startswith("0 experiments had events")
