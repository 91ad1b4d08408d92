"""The pages about criteria: the patterns of prose with what each is read as, and the table of real examples."""

import json
from pathlib import Path

from redis_agent.criteria import (
    CriterionError,
    CriterionKind,
    MetricSpec,
    Number,
    Vocabulary,
    parse_formula,
    understand,
)
from redis_agent.criteria.statements import PATTERNS
from redis_agent.experiments import parse_experiment

EXAMPLES = Path(__file__).parent.parent.parent / "shared" / "criteria_examples.json"

INTRODUCTION = """\
# Criteria

<!-- Generated from docs/criteria_pages.py and redis_agent/criteria/ by `make fmt`. Change it there. -->

A success or failure criterion is a text, or an object with one key such as `{"account_restricted": true}`.
It is read once into one typed expression, whose canonical text `redis-agent check` shows as `parsed`, and
which is judged as met, not met or unknown. Judging a comparison takes half a microsecond (`python -m
bench.comparison`). Two readers try a text, in this order:

1. **The formal grammar** (`redis_agent/criteria/grammar.py`): `reply_rate >= 8% after 100 sends`, with
   arithmetic, `and`, `or`, `not`, chains, flags, and the clauses `after 100 sends`, `after 7 days`, `within 2
   weeks` and `at end`. A capitalised word begins a sentence: `Conversion < 1%` is read as prose where that finds
   declared metrics.
2. **The patterns of prose** (`redis_agent/criteria/prose.py`), which are the rest of this page. They are
   deterministic and ordered.

A text that neither reads is **unsupported**: it is never met and never guessed, and `redis-agent check` shows
the reason and the nearest thing that could be understood. The standard is a careful reader. A sentence without a
number, without a direction, or with a word left over that could change its meaning is not understood. A criterion
that is not judged costs a look; one that was guessed costs the trust in all others.

## The patterns

The examples are read with these metrics declared: `emails_sent`, `reply_rate` (`replies / emails_sent`),
`open_rate` (0 to 100), `activation_rate` (`activated / signups * 100`), `partners_signed`, `demo_booked`,
`unsubscribes`, `meetings_booked`, `meetings_completed`, `time_to_first_reply` (in hours), `revenue` (in USD),
`roas`, `average_order_value`, `day7_retention`. The reading in the last column is computed when this page is generated.

A sentence is taken apart first: what is said beside it, its clauses, and its parts between `or` and `and`. Each
comparison that is left is read by the first of these that fits:

"""

SECTIONS = """\
### Numbers

Digits, words, dozens, thousands, `k`, `M` and currency signs. `N+`, `N or more` and `N minimum` mean at least. A
range means at least its lower end; only a measure `between` two numbers has two ends. `m` could be minutes, months or
millions, `5-10k` could begin at 5 or 5,000, and `1,5` is no number: these are not guessed. Neither are shares in
words (`half`, `1 in 20`), other currencies than the metric's, and multiples of what is not said; `3x` is a number
only of a return, a ratio or a factor.

success: At least three demos booked
success: More than a dozen signups
success: 10k+ impressions
success: Generate $1.5M in revenue
success: 10 or more replies
success: No more than 4 unsubscribes
success: At least 1-2 positive replies
success: Open rate between 20% and 40%
success: 25 signups minimum
success: ROAS above 3x
success: Signups above 2x
success: Revenue above €2,500
success: 1 in 10 emails gets a reply
success: Several replies
success: 10m impressions
success: At most 1-2 unsubscribes

### Direction

From signs, words (`at least`, `over`, `fewer than`, `up to`) and verbs (`reaches`, `exceeds`, `drops to`).
Things that are counted without a word are at least so many. A measure without a word has no direction, and none
is invented.

success: Book 3 demos
success: Reply rate reaches 10%
success: Exceed a 10% reply rate
success: Reduce churn to 5%
success: Increase activation rate from 40% to 60%
success: Reply rate of 8%
success: Increase signups by 20%
failure: Reply rate drops more than 20%
success: 5 of 20 customers renew

### Scale

A percentage is one of the metric's own scale, which its formula, its thresholds and its unit tell: 8% is 0.08 of a
ratio and 8 of a metric from 0 to 100, also where its type only calls it a gauge. Times are converted to the metric's
unit. A number that does not fit the scale is not guessed, unless it is one of the metric's own thresholds. `8% of
emails get a reply` is about the share whose formula divides the replies by the emails.

success: Reply rate above 8 percent
success: Reply rate above 8
success: Activation rate above 0.6
success: Time to first reply under 2 days
success: Time to first reply within 3 days
success: More than 5% unsubscribes
success: 8% of emails get a reply
success: 60% of users activate

### Failures that are something missing

`Can't`, `fail to`, `unable to`, `miss`, and in a list of failures also `don't`: what has not been reached may
still be. So this is judged when the experiment is over (`at end`), or when the time that the sentence names has
passed. For the same reason so is what counts up from 0 and is a failure while it is few, what is to stay below a
bound `within 7 days`, and what fails by being below one `by day 14`; but what `drops` below it has failed at once. A
wish among the failures could mean its opposite.

failure: Can't sign 20+ partners
failure: Cannot sign at least 20 partners within 90 days
failure: Reply rate falls short of 8%
failure: Don't book 3 demos within 2 weeks
failure: Fewer than 5 replies within 7 days
failure: Fewer than 5 replies
failure: Reply rate < 2% or no demos booked
failure: Reply rate under 3% by day 14
failure: Reply rate drops below 3% within 14 days
failure: Can't sign a partner in 60 days
failure: Zero demos booked after sending 100 emails
failure: Stop if reply rate drops below 3%
failure: Keep bounce rate under 5%

### When

`after` and `within`, with a time or a count; `by day 7`, `in the first month`, `at the two-week mark`, `once 100 emails
are sent`. What is to be reached `by the end` may be so before; what is to be `at the end of week 2`, or to stay so in
the first two weeks, is judged then. `From 200 emails` behind a number is the planned size, no condition; a least size
(`with at least 100 sends`, `n >= 100`) is the author's own rule, and `samples` are whatever a rate is divided by.
The end of *the* month is the calendar's, which an experiment does not have. A rate `in the first 100 emails` is
judged from then on; what is counted among them alone, nobody counts.

success: Reply rate >= 8% within 7 days (as last time)
success: Within two weeks, reply rate >= 8%
success: Reply rate >= 8% once 100 emails are sent
success: 5 demos booked by the end of week 2
success: Reply rate at least 8% at the end of week 2
success: Keep bounce rate under 5% in the first 2 weeks
success: Reply rate >= 8% with at least 100 sends
success: Reply rate >= 8% (n >= 100)
failure: Bounce rate above 10% in the first 50 sends
success: At least 10 replies in the first 100 emails
success: 5 demos by the end of the month
success: At least 5 demos by the end of the experiment
success: Get 5+ replies from 50 emails
success: 3 replies per week
success: 5 demos by Friday

### Reasons, labels and limits

Reasons and labels are left out: in parentheses, behind a dash or a semicolon, before a colon, behind
`indicating` or `to validate`. So is `from CTOs` behind a declared metric, which counts for this experiment
alone. What limits is never left out. Where the number stands only beside it, `low open rate (< 20%)`, the two are one.

success: Reply rate >= 8% (16+ replies from 200 emails)
success: Open rate >= 40%, indicating strong subject lines
success: Primary goal: reply rate >= 8%
success: At least 1 demo booked to prove demand
success: Send at least 30 emails to decision makers
success: Reply rate >= 8% (min 100 sends)
failure: Low open rate (< 20%)
failure: Too many unsubscribes: more than 10
success: Reply rate >= 8% (excluding auto-replies)
success: At least 1 reply with a clear buying signal
success: At least 10 replies in March

### Several things

Whole comparisons joined by `or`, or by `and`; where one has `fewer than`, each says its own direction. Where several
things share one number, what is met is met however one reads it: `more than 5` is asked of each alone, `fewer than 5`
of all together, `no` of every one.

success: Reply rate >= 8% or at least 5 demos
success: At least 5 replies and 2 demos booked
success: Fewer than 100 unsubscribes and 10 complaints
failure: More than 5 unsubscribes or negative replies
failure: Fewer than 2 demos or partners signed
success: No spam complaints or unsubscribes
success: At least 5 replies and demos
success: Open rate >= 40% or reply rate >= 8% within 7 days

### Names

Words are matched to the declared metrics and the operands of their formulas, the best of these that has any:
the same name; the same words in singular or plural; the same letters (`sign-ups`); the same words in any order,
a verb like its participle; the same but for fillers on one side (`total`, `received`, `booked`, `signed`), or for a
unit, a currency or a network in the name; the initials of three words or more; a share with words that its formula has
anyway. Several in the same rank are an ambiguity. What nobody declared must sound like an event that is counted, with
its plural; it is looked for in the same way among the events that came, and is unknown until one does. So is the
operand of a formula that nobody declared: nobody says that events come by this very name, so that none of them is
not 0. Declared as a counter, it is 0 once the experiment has events.

success: Sign 5 partners
success: At least 2 demo sessions booked
success: At least 5 total replies
success: AOV above $49
success: Day-7 retention of at least 25%
success: Email reply rate above 8%
success: Positive reply rate above 3%
success: At least 3 meetings
success: Submit 2 proposals
success: Zero downtime
success: At least 3 customers say they would pay

### Qualities

They are unsupported, whoever judges them.

success: Automation works end-to-end without manual intervention
success: At least 3 very happy customers
failure: Low reply rate
"""
"""Markdown, where a line ``success: TEXT`` or ``failure: TEXT`` becomes a row with what the text is read as."""

VOCABULARY = Vocabulary(
    [
        *(MetricSpec(name, "counter") for name in ("emails_sent", "partners_signed", "demo_booked", "unsubscribes")),
        *(MetricSpec(name, "counter") for name in ("meetings_booked", "meetings_completed")),
        MetricSpec("reply_rate", "percentage", parse_formula("replies / emails_sent")),
        MetricSpec("open_rate", "percentage", success_threshold=Number(40.0)),
        MetricSpec("activation_rate", "percentage", parse_formula("activated / signups * 100")),
        MetricSpec("time_to_first_reply", "duration", unit="hours"),
        MetricSpec("revenue", "gauge", unit="USD"),
        MetricSpec("roas", "gauge"),
        MetricSpec("average_order_value", "gauge"),
        MetricSpec("day7_retention", "percentage"),
    ]
)

TABLE_INTRODUCTION = """\
# How the examples are read

<!-- Generated from ../shared/criteria_examples.json by `make fmt`, where that file is there. -->

Every criterion of the real experiments that came with this project, and what the agent reads in it. A name that
is not the author's own is a declared metric, or an operand of a formula, that the words were matched to.

"""


def criteria_page() -> str:
    """docs/criteria.md."""
    parts = [INTRODUCTION, "| pattern | example | read as |\n|---|---|---|\n"]
    for number, pattern in enumerate(PATTERNS, start=1):
        parts += [
            f"| {number}. {pattern.title} | {_cell(text)} | {_read('success', text)} |\n" for text in pattern.examples
        ]
    parts.append("\n")
    in_table = False
    for line in SECTIONS.splitlines():
        kind, _, text = line.partition(": ")
        if kind not in ("success", "failure"):
            parts.append(f"{line}\n")
            in_table = False
            continue
        if not in_table:
            parts.append("| example | read as |\n|---|---|\n")
            in_table = True
        read = _read("failure", text) if kind == "failure" else _read("success", text)
        parts.append(f"| {_cell(text)}{' (a failure)' if kind == 'failure' else ''} | {read} |\n")
    return "".join(parts)


def examples_page() -> str | None:
    """docs/criteria-examples.md; None where the examples are not there."""
    if not EXAMPLES.exists():
        return None
    rows = []
    unsupported = 0
    for document in json.loads(EXAMPLES.read_text("utf-8")):
        experiment = parse_experiment(document["id"], json.dumps(document))
        for entry in filter(lambda entry: entry.listed, experiment.criteria):
            read = f"unsupported: {entry.problem}" if entry.criterion is None else f"`{entry.criterion.text}`"
            unsupported += entry.criterion is None
            rows.append(f"| {experiment.id} | {entry.kind} | {_cell(entry.text)} | {read} |\n")
    summary = f"{len(rows)} criteria: {len(rows) - unsupported} are judged, {unsupported} are unsupported.\n\n"
    return (
        TABLE_INTRODUCTION
        + summary
        + "| experiment | kind | criterion | read as |\n|---|---|---|---|\n"
        + "".join(rows)
    )


def _read(kind: CriterionKind, text: str) -> str:
    try:
        return f"`{understand(text, VOCABULARY, kind).text}`"
    except CriterionError as error:
        return f"unsupported: {_cell(str(error))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("$", "\\$")
