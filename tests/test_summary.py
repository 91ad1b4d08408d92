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


def test_goal_whose_deadline_has_passed_is_a_concern_and_rates_are_told_in_percent() -> None:
    specs = '[{"name": "reply_rate", "formula": "replies / emails_sent"}]'
    criteria = {"success_criteria": '["reply_rate >= 8% within 2 days"]', "metrics": specs, "created_at": "2026-12-01"}
    experiment = experiments.parse_experiment("late", criteria)
    fields = {"events_total": "2", "reply_count": "2", "email_sent_count": "60"}
    verdicts = experiments.judge(experiment, fields, now=datetime.fromtimestamp(NOW_MS / 1000, UTC))
    lines = summary(Subject("late", NOW_MS - 1, judged=True, fields=fields, verdicts=verdicts))
    assert lines[1:] == [
        "Concerns",
        "- late: reply_rate is 3.33 % (2 of 60), not at least 8 %; its deadline has passed",
    ]


def alert(kind: str, number: int = 0, **more: object) -> dict[str, object]:
    return {"type": kind, "experiment_id": "e", "timestamp": f"2026-02-01T10:0{number}:00.000Z", **more}


def changes(*told: dict[str, object]) -> list[str]:
    """Told in this order, newest last."""
    found = digest([], told[::-1], now_ms=NOW_MS, since_ms=NOW_MS - HOUR_MS, quiet_after_ms=HOUR_MS)
    return list(found.changes)


def test_what_was_told_since_the_last_summary_is_what_changed_the_worst_first() -> None:
    assert changes(
        alert("success_threshold", 1, criterion="a > 1"),
        alert("error", 2),
        alert("error", 3),
        alert("anomaly", 4, metric="x", message="e: x: 41 in the last 10 minutes, 2 to 6 expected; y: 3."),
        alert("failure_threshold", 5, criterion="b > 1", evidence="early"),
        alert(
            "experiment_completed", 6, message="e: the experiment is completed. 1 of 2 success criteria met. Success."
        ),
        alert("cleared", 7, criterion="c > 1"),
        alert("periodic_summary", 8, message="not this"),
    ) == [
        "e: the failure criterion (b > 1) looked met at 10:05 UTC",
        "e: x: 41 in the last 10 minutes, 2 to 6 expected",
        "e: 2 errors told",
        "e: the success criterion (a > 1) was met at 10:01 UTC",
        "e: the experiment is completed. 1 of 2 success criteria met",
        "e: the failure criterion (c > 1) was cleared at 10:07 UTC",
    ]


def test_early_sign_that_was_confirmed_is_one_change_and_a_repetition_none() -> None:
    assert changes(
        alert("failure_threshold", 1, criterion="b > 1", evidence="early"),
        alert("failure_threshold", 2, criterion="b > 1", evidence="confirmed"),
        alert("failure_threshold", 3, criterion="c > 1", repeated=True),
    ) == ["e: the failure criterion (b > 1) was met at 10:02 UTC"]


def test_alerts_that_somebody_else_wrote_do_no_harm() -> None:
    odd = alert("failure_threshold", criterion=[1], timestamp=5, experiment_id={"x": 1})
    assert len(changes(odd, alert("anomaly", message=None), {"type": ["x"]}, {})) == 2
