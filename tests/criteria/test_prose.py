"""Criteria as people and LLMs write them are read as a careful reader would, or called unsupported."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redis_agent.criteria import (
    Criterion,
    CriterionError,
    CriterionKind,
    Evaluation,
    Metrics,
    MetricSpec,
    Number,
    Vocabulary,
    evaluate,
    parse,
    parse_formula,
    understand,
)
from redis_agent.criteria.anatomy import anatomy_of
from redis_agent.criteria.sentence import sentence_of
from redis_agent.criteria.statements import PATTERNS, read_statement
from redis_agent.experiments import parse_experiment

START = datetime(2026, 2, 1, 10, tzinfo=UTC)
SPECS = (
    MetricSpec("emails_sent", "counter"),
    MetricSpec("reply_rate", "percentage", parse_formula("replies / emails_sent"), success_threshold=Number(0.1)),
    MetricSpec("open_rate", "percentage", success_threshold=Number(40)),
    MetricSpec("activation_rate", "percentage", parse_formula("activated / signups * 100")),
    MetricSpec("partners_signed", "counter"),
    MetricSpec("demo_booked", "counter"),
    MetricSpec("positive_replies", "counter"),
    MetricSpec("unsubscribes", "counter"),
    MetricSpec("customers_lost", "counter"),
    MetricSpec("meetings_booked", "counter"),
    MetricSpec("meetings_completed", "counter"),
    MetricSpec("time_to_first_reply", "duration", unit="hours"),
    MetricSpec("revenue", "gauge", unit="USD"),
    MetricSpec("roas", "gauge"),
    MetricSpec("deals_closed", "counter"),
)
VOCABULARY = Vocabulary(SPECS)

READ = [
    # Things counted, with and without a verb.
    ("Win 4+ renewals", "renewals >= 4"),
    ("Publish 15+ articles", "articles_published >= 15"),
    ("Book 3 demos", "demo_booked >= 3"),
    ("Sign 5 partners", "partners_signed >= 5"),
    ("We sign at least 5 partners", "partners_signed >= 5"),
    ("Lose fewer than 3 customers", "customers_lost < 3"),
    ("Host three webinars", "webinars_hosted >= 3"),
    ("Pass 3 audits", "audits_passed >= 3"),
    ("Submit 2 proposals", "proposals_submitted >= 2"),
    ("Grow to 500 followers", "followers >= 500"),
    ("Keep at least 50 subscribers", "subscribers >= 50"),
    ("At least three demos booked", "demo_booked >= 3"),
    ("At least 2 demo sessions booked", "demo_booked >= 2"),
    ("5 demos booked", "demo_booked >= 5"),
    ("More than a dozen signups", "signups > 12"),
    ("Half a dozen partners signed", "partners_signed >= 6"),
    ("Two hundred signups", "signups >= 200"),
    ("Twenty-five sign-ups", "signups >= 25"),
    ("10 or more replies", "replies >= 10"),
    ("3 or fewer unsubscribes", "unsubscribes <= 3"),
    ("Fewer than 4 unsubscribes", "unsubscribes < 4"),
    ("No more than 4 unsubscribes", "unsubscribes <= 4"),
    ("At most two unsubscribes", "unsubscribes <= 2"),
    ("Up to 5 unsubscribes", "unsubscribes <= 5"),
    ("max. 5 unsubscribes", "unsubscribes <= 5"),
    ("Exactly 5 demos booked", "demo_booked == 5"),
    ("≥5 replies received", "replies >= 5"),
    ("At least 5 total replies", "replies >= 5"),
    ("At least 100 emails", "emails_sent >= 100"),
    ("Send at least 30 emails to decision makers", "emails_sent >= 30"),
    ("At least 1 demo booked to prove demand", "demo_booked >= 1"),
    ("At least one (1) reply", "replies >= 1"),
    ("Get 5+ replies from 50 emails", "replies >= 5"),
    ("Replies: 10+", "replies >= 10"),
    # Numbers and scales.
    ("At least 1,500 page views", "page_views >= 1500"),
    ("At least 1_500 page views", "page_views >= 1500"),
    ("10k+ impressions", "impressions >= 10000"),
    ("Reach 1.5M impressions", "impressions >= 1500000"),
    ("2 million impressions", "impressions >= 2000000"),
    ("Generate $10k in revenue", "revenue >= 10000"),
    ("Revenue of $2,500 or more", "revenue >= 2500"),
    ("Revenue over 5000 USD", "revenue > 5000"),
    ("Cost per lead under $30", "cost_per_lead < 30"),
    ("Between 5 and 10 demos booked", "demo_booked >= 5"),
    ("5\u201310 demos booked", "demo_booked >= 5"),
    ("At least 2-3 positive replies", "positive_replies >= 2"),
    ("Open rate between 20% and 40%", "20% <= open_rate <= 40%"),
    ("Reply rate above 8 percent", "reply_rate > 8%"),
    ("Reply rate above 0.08", "reply_rate > 0.08"),
    ("Open rate above 40", "open_rate > 40"),
    ("Time to first reply under 2 days", "time_to_first_reply < 48"),
    ("Time to first reply: 24h or less", "time_to_first_reply <= 24"),
    ("Time to first reply within 3 days", "time_to_first_reply <= 72"),
    ("No fewer than twenty five sign-ups", "signups >= 25"),
    ("25 signups minimum", "signups >= 25"),
    ("5 unsubscribes at most", "unsubscribes <= 5"),
    ("At least USD 1,000 in revenue", "revenue >= 1000"),
    ("Revenue above 900 dollars", "revenue > 900"),
    ("Time to first reply shorter than 2 days", "time_to_first_reply < 48"),
    ("Time to first reply > 90 min", "time_to_first_reply > 1.5"),
    ("Reply rate greater than 8 per cent", "reply_rate > 8%"),
    ("ROAS above 3x", "roas > 3"),
    ("2.5x+ ROAS", "roas >= 2.5"),
    ("ROAS of at least 250%", "roas >= 250%"),
    # Measures compared.
    ("Reach 60%+ activation rate", "activation_rate >= 60%"),
    ("Reach 60% activation", "activation_rate >= 60%"),
    ("Exceed a 10% reply rate", "reply_rate > 10%"),
    ("<3% reply rate", "reply_rate < 3%"),
    ("Reply rate of at least 8%", "reply_rate >= 8%"),
    ("Reply rate is 8% or higher", "reply_rate >= 8%"),
    ("Reply rate >= 8% (double the industry average)", "reply_rate >= 8%"),
    ("Reply rate >= 8% (at least 16 replies from 200 emails)", "reply_rate >= 8%"),
    ("Achieve a reply rate of 8%", "reply_rate >= 8%"),
    ("Reply rate reaches 10%", "reply_rate >= 10%"),
    ("Keep bounce rate under 5%", "bounce_rate < 5%"),
    ("Bounce rate must not exceed 5%", "bounce_rate <= 5%"),
    ("Bounce rate stays at or below 5%", "bounce_rate <= 5%"),
    ("Never exceed 5% bounce rate", "bounce_rate <= 5%"),
    ("Avoid more than 2 complaints", "complaints <= 2"),
    ("Don't let open rate fall below 15%", "open_rate >= 15%"),
    ("Reduce churn to 5%", "churn <= 5%"),
    ("Increase activation rate from 40% to 60%", "activation_rate >= 60%"),
    ("NPS of at least 50", "nps >= 50"),
    ("Click-through rate (CTR) above 2%", "click_through_rate > 2%"),
    ("Open rate >= 40% - a strong subject line", "open_rate >= 40%"),
    ("Open rate >= 40%, indicating strong subject lines", "open_rate >= 40%"),
    ("Primary goal: reply rate >= 8%", "reply_rate >= 8%"),
    ("Reply rate meets or exceeds 8%", "reply_rate >= 8%"),
    ("Bounce rate capped at 5%", "bounce_rate <= 5%"),
    ("Reply rate averages more than 8%", "reply_rate > 8%"),
    ("High open rate (40%+)", "open_rate >= 40%"),
    ("Unsubscribes (max 5)", "unsubscribes <= 5"),
    ("Reply rate >= 8% - 2x the industry average", "reply_rate >= 8%"),
    ("- Sign 5 partners.", "partners_signed >= 5"),
    ("[ ] Sign 5 partners", "partners_signed >= 5"),
    ("**Sign 5 partners**", "partners_signed >= 5"),
    ("2) Sign 5 partners", "partners_signed >= 5"),
    # Nothing.
    ("Zero refund requests", "refund_requests == 0"),
    ("0 refunds", "refunds == 0"),
    ("No spam complaints or unsubscribes", "spam_complaints == 0 and unsubscribes == 0"),
    ("Refund requests: 0", "refund_requests == 0"),
    ("Exactly zero refunds", "refunds == 0"),
    ("More than zero replies", "replies > 0"),
    ("Any replies", "replies >= 1"),
    ("Exceed 0 replies", "replies > 0"),
    ("Bounce rate can't exceed 5%", "bounce_rate <= 5%"),
    ("$20k+ pipeline generated", "pipeline_generated >= 20000"),
    ("Publish 6 posts and get 1,000 impressions", "posts_published >= 6 and impressions >= 1000"),
    # When.
    ("Reply rate >= 8% within 7 days (matching the last one)", "reply_rate >= 8% within 7 days"),
    ("Within two weeks, reply rate >= 8%", "reply_rate >= 8% within 2 weeks"),
    ("5 demos booked by the end of week 2", "demo_booked >= 5 within 2 weeks"),
    ("Reply rate above 8% by day 7", "reply_rate > 8% within 7 days"),
    ("10 replies in the first month", "replies >= 10 within 1 month"),
    ("Reply rate >= 8% (min 100 sends)", "reply_rate >= 8% after 100 sends"),
    ("Reply rate >= 8% once 100 emails are sent", "reply_rate >= 8% after 100 emails sent"),
    ("No refunds in the first month", "refunds == 0 after 1 month"),
    ("At least 5 demos by the end of the experiment", "demo_booked >= 5"),
    ("At least 5 demos by the end of the second week", "demo_booked >= 5 within 2 weeks"),
    ("At least 5 demos in a 30-day period", "demo_booked >= 5 within 30 days"),
    ("At least 5 demos at the two-week mark", "demo_booked >= 5 within 2 weeks"),
    ("At least 5 demos within 3 weeks of launch", "demo_booked >= 5 within 3 weeks"),
    ("Reply rate at least 8% at the end of week 2", "reply_rate >= 8% after 2 weeks"),
    ("Keep bounce rate under 5% in the first 2 weeks", "bounce_rate < 5% after 2 weeks"),
    ("Reply rate >= 8% with at least 100 emails sent", "reply_rate >= 8% after 100 emails sent"),
    ("Reply rate >= 8% on 100+ sends", "reply_rate >= 8% after 100 sends"),
    ("Reply rate >= 8% from 200 emails", "reply_rate >= 8%"),
    ("Reply rate >= 8% (n >= 100)", "reply_rate >= 8% after 100 samples"),
    ("Reply rate >= 8% (sample of at least 100)", "reply_rate >= 8% after 100 samples"),
    ("CAC under $50 with at least 20 conversions", "cac < 50 after 20 conversions"),
    ("Activation rate > 60% (min. 50 signups)", "activation_rate > 60% after 50 signups"),
    ("Reply rate >= 8% when 100 emails have been sent", "reply_rate >= 8% after 100 emails sent"),
    ("Reply rate >= 8% after sending at least 100 emails", "reply_rate >= 8% after 100 emails"),
    ("Fewer than 5 unsubscribes by the end of the campaign", "unsubscribes < 5 at end"),
    # Shares of something, and words that the formula has anyway.
    ("8% of emails get a reply", "reply_rate >= 8%"),
    ("At least 60% of signups activated", "activation_rate >= 60%"),
    ("Email reply rate above 8%", "reply_rate > 8%"),
    ("Signup activation above 60%", "activation_rate > 60%"),
    # Several things.
    ("Reply rate >= 8% or at least 5 demos", "reply_rate >= 8% or demo_booked >= 5"),
    ("At least 5 replies and 2 demos booked", "replies >= 5 and demo_booked >= 2"),
    ("Either 5 demos booked or 20 positive replies", "demo_booked >= 5 or positive_replies >= 20"),
    ("Over 5 refunds or unsubscribes", "refunds > 5 or unsubscribes > 5"),
    ("Unsubscribes or complaints exceed 5", "unsubscribes > 5 or complaints > 5"),
    ("Fewer than 2 demos or partners signed", "demo_booked + partners_signed < 2"),
]

FAILURES = [
    ("Can't sign 20+ partners", "partners_signed < 20 at end"),
    ("Cannot sign at least 20 partners within 90 days", "partners_signed < 20 after 90 days"),
    ("Fail to reach 60% activation rate", "activation_rate < 60% at end"),
    ("Failing to get ten replies in the first 2 weeks", "replies < 10 after 2 weeks"),
    ("Unable to book 3 demos by the end of the trial", "demo_booked < 3 at end"),
    ("Not reaching an 8% reply rate", "reply_rate < 8% at end"),
    ("Reply rate falls short of 8%", "reply_rate < 8% at end"),
    ("Misses the 8% reply rate target", "reply_rate < 8% at end"),
    ("Don't book 3 demos within 2 weeks", "demo_booked < 3 after 2 weeks"),
    ("Open rate doesn't reach 25%", "open_rate < 25% at end"),
    ("Reply rate is not above 3% after 200 sends", "reply_rate <= 3% after 200 sends"),
    ("Reply rate drops below 3% after 100 emails", "reply_rate < 3% after 100 emails"),
    ("Open rate falls to 10%", "open_rate <= 10%"),
    ("Stop if reply rate drops below 3%", "reply_rate < 3%"),
    ("Lose 3+ customers", "customers_lost >= 3"),
    ("Bounce rate above 10% in the first 50 sends", "bounce_rate > 10% after 50 sends"),
    ("Reply rate hasn't reached 2% after 100 emails", "reply_rate < 2% after 100 emails"),
    ("Revenue under $100 and no demos booked", "revenue < 100 and demo_booked == 0"),
    ("Losing more than 2 customers", "customers_lost > 2"),
    ("Low open rate (<20%)", "open_rate < 20%"),
    ("Poor reply rate: below 2% after 100 emails", "reply_rate < 2% after 100 emails"),
    ("Too many unsubscribes (more than 10)", "unsubscribes > 10"),
    ("Bounce rate spikes above 10%", "bounce_rate > 10%"),
    ("Can't close a deal in 60 days", "deals_closed < 1 after 60 days"),
    # A value below a bound, and a count, may still rise; what drops below it has failed.
    ("Reply rate under 3% by day 14", "reply_rate < 3% after 14 days"),
    ("Revenue below $2k within 30 days", "revenue < 2000 after 30 days"),
    ("Active users drop below 50", "active_users < 50"),
    ("Open rate drops below 20% within 14 days", "open_rate < 20% within 14 days"),
    ("Bounce rate above 10% within 3 days", "bounce_rate > 10% within 3 days"),
    ("No replies", "replies == 0 at end"),
    ("Fewer than 5 partners signed", "partners_signed < 5 at end"),
    ("Reply rate < 2% or no demos booked", "reply_rate < 2% or demo_booked == 0 at end"),
    ("1-2 spam complaints", "spam_complaints >= 1"),
    ("Fewer than 5 replies within 7 days", "replies < 5 after 7 days"),
    ("Replies stay below 5 within 7 days", "replies < 5 after 7 days"),
    ("Unsubscribes below 2 by the end of the campaign", "unsubscribes < 2 at end"),
    ("Not a single reply within 10 days", "replies == 0 after 10 days"),
    ("Zero demos booked after sending 100 emails", "demo_booked == 0 after 100 emails"),
    ("No demos booked by week 3", "demo_booked == 0 after 3 weeks"),
    ("Less than 20 partners signed by day 60", "partners_signed < 20 after 60 days"),
    ("Time to first reply over 5 days", "time_to_first_reply > 120"),
    ("Reply rate fails to exceed 5%", "reply_rate <= 5% at end"),
    ("Couldn't book a single demo", "demo_booked < 1 at end"),
    ("Can't book any demos", "demo_booked < 1 at end"),
    ("Can't keep churn under 5%", "churn >= 5%"),
    ("Can't raise activation above 40%", "activation_rate <= 40% at end"),
    ("More than 5 no-shows", "no_shows > 5"),
    ("Any spam complaints", "spam_complaints >= 1"),
    ("No replies from the first 50 emails", "replies == 0 after 50 emails"),
    ("Fewer than 5 replies from 200 emails", "replies < 5 after 200 emails"),
    ("CAC exceeds $400 after 20 conversions", "cac > 400 after 20 conversions"),
]

UNSUPPORTED = [
    # Qualities.
    "Users love the product",
    "Positive sentiment from the community",
    "Landing page copy resonates without being pushy",
    "Reply rate is acceptable",
    "No major issues",
    "Profitable",
    "Finish within 30 days",
    "No manual intervention needed",
    "Zero downtime",
    "At least 2 'enthusiastic' replies",
    "At least 3 very happy customers",
    "At least 1 reply with a clear buying signal",
    "At least 10 replies from qualified leads",
    "Good feedback from at least 3 customers",
    "At least 3 customers say they would pay",
    "At least 2 customers mention competitors",
    "Achieve a positive outcome",
    "Interest from 5+ companies",
    "Unsubscribes plateau below 5",
    "4.5 lemons or more",
    "At least 5 partners signed (at least 2 agencies)",
    "Reply rate >= 8% (at least half of it from CTOs, over 20 of them)",
    # No number, or none that is clear.
    "Several replies",
    "Double the industry average",
    "Signups above 2x",
    "Miss the 8% target",
    "At least 1 out of 10 emails gets a reply",
    "At least 1 in 20 replies",
    "A few demos booked",
    "Hundreds of replies",
    "About 5 demos booked",
    "Only 2 replies",
    "10m impressions",
    "$5-10k revenue",
    "At least 1,5 replies",
    "Revenue above €1.500",
    "Revenue of €2,500 or more",
    "At least -5 replies",
    "At least 0 refunds",
    "1st reply within 2 days",
    "Top 10 on Product Hunt",
    "Score of 8/10",
    "5-star rating",
    "At least five",
    "8%",
    # No direction, or two.
    "Reply rate of 8%",
    "10% reply rate",
    "Maintain open rate of 40%",
    "At most 1-2 unsubscribes",
    "Fewer than 5+ replies",
    # The scale is not clear.
    "Reply rate above 8",
    "Activation rate above 0.6",
    "Replies above 5% of all",
    "More than 5% unsubscribes",
    "Close $50k of deals",
    "Average response time under 4 hours",
    # Relative to something.
    "20% more replies",
    "Reply rate drops more than 20%",
    "Reply rate drops 2% or more",
    "Revenue increases at least 20%",
    "Reply rate rises below 5%",
    "Revenue over 20%",
    "Time to first reply under 20%",
    "Deals above $50k",
    "Increase signups by 20%",
    "Reduce churn by 5%",
    "2x more signups",
    "Double the signups",
    "Reply rate higher than last month",
    "Reply rate > 8% vs control",
    "5 of 20 customers renew",
    "60% of users activate",
    "At least as many demos as partners",
    # Rates over time, and dates.
    "3 replies per week",
    "At least 5 replies every week",
    "Churn stays under 4% for 3 months",
    "5 demos by Friday",
    "5 demos by the end of the month",
    "5 demos by end of quarter",
    "At least 3 demos on day 1",
    "Reply rate consistently above 8%",
    "At least 5 replies within 3m",
    "At least 10 replies in March",
    # Limits that nobody counts.
    "Reply rate >= 8% (excluding auto-replies)",
    "At least 3 demos (not including internal)",
    "At least 3 demos, including 1 enterprise",
    "At least 10 replies in Germany",
    "Activation rate >= 60% among trial users",
    "Reply rate >= 8%; bounce rate < 5%",
    "Reply rate >= 8% - 16+ replies. Open rate >= 40%",
    "Reply rate >= 8% (open rate above 40%)",
    "Reply rate >= 8% (100 minimum)",
    "Reply rate >= 8% (at least 3 demos booked)",
    "At least 5 demos with at least 3 CTOs",
    "At least 10 replies in the first 100 emails",
    "Fewer than 1,000 visitors and 10 sign-ups",
    "ROAS balloons over 5",
    "2 paid pilots ($10k each)",
    # More than one way to read it.
    "At least 3 meetings",
    "At least 5 replies and demos",
    "10 positive or neutral replies",
    "At least 1 positive or neutral reply",
    "Open rate >= 40% and reply rate >= 8% or 5 demos",
    "Open rate >= 40% or reply rate >= 8% within 7 days",
    "At least 5 replies, 3 demos, and 2 partners",
]

NO_FAILURES = [
    "3 or more complaints in a day",
    "Keep bounce rate under 5%",
    "Bounce rate must not exceed 5%",
    "Don't exceed 5% bounce rate",
    "Bounce rate can't exceed 5%",
    "Can't sign 5 partners or book 2 demos",
    "Low reply rate",
    "Bad feedback from more than 3 customers",
    "Negative replies outnumber positive replies",
]


@pytest.mark.parametrize(("text", "canonical"), READ)
def test_prose_is_read_as_a_careful_reader_would(text: str, canonical: str) -> None:
    assert understand(text, VOCABULARY).text == canonical


@pytest.mark.parametrize(("text", "canonical"), FAILURES)
def test_a_failure_in_prose_describes_the_failure(text: str, canonical: str) -> None:
    assert understand(text, VOCABULARY, "failure").text == canonical


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, kind) for text in UNSUPPORTED for kind in ("success", "failure")),
        *((t, "failure") for t in NO_FAILURES),
    ],
)
def test_what_nobody_could_be_sure_of_is_unsupported_with_a_reason(text: str, kind: CriterionKind) -> None:
    with pytest.raises(CriterionError) as refused:
        understand(text, VOCABULARY, kind)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Reply rate of 8%", "nearest: reply_rate >= 8%"),
        ("Reply rate above 8", "nearest: reply_rate >= 8%"),
        ("Activation rate above 0.6", "nearest: activation_rate >= 60%"),
        ("At least 3 meetings", "'meetings' could be meetings_booked or meetings_completed"),
        ("Several replies", "'several' is no number"),
        ("Keep bounce rate under 5%", "stands among the failures"),
        ("Users love the product", "names no number"),
        ("Reply rate is acceptable", "nearest: reply_rate compared with a number"),
        ("Users love the product", "nearest: a number of something"),
        ("At least 10 replies in March", "nearest: replies >= 10"),
        ("Reply rate > 8% vs control", "nearest: reply_rate > 8%"),
        ("a > 0,5", "0.5"),
        ("reply_rate >", "too soon"),
    ],
)
def test_the_reason_names_what_is_missing_and_the_nearest_that_could_be_understood(text: str, words: str) -> None:
    with pytest.raises(CriterionError, match=words):
        understand(text, VOCABULARY, "failure")


def test_a_single_word_is_a_flag_where_it_is_a_name() -> None:
    vocabulary = Vocabulary([MetricSpec("profitable", "gauge")])
    assert understand("Profitable", vocabulary).text == "Profitable: true"
    for text in ("AccountRestricted", "Restricted == true", "Restricted: true", "restricted"):
        assert understand(text, VOCABULARY) == parse(text)


def test_a_short_sentence_with_a_number_of_another_scale_is_not_taken_literally() -> None:
    vocabulary = Vocabulary([MetricSpec("ctr", "percentage", success_threshold=Number(5))])
    assert understand("CTR < 2", vocabulary).text == "ctr < 2"
    with pytest.raises(CriterionError, match="share of 1"):
        understand("CTR < 0.02", vocabulary)


def test_the_formal_grammar_comes_first_and_is_not_touched() -> None:
    for text in (
        "reply_rate > 8",
        "meetings > 3",
        "account_restricted",
        "replies < 3 after 7 days or b",
        "Bounces > 5%",
    ):
        assert understand(text, VOCABULARY, "failure") == parse(text)
        assert understand(text, VOCABULARY).spoken == frozenset()


@pytest.mark.parametrize(
    ("words", "names", "expected"),
    [
        ("replies", ["positive_replies", "total_replies"], "total_replies"),
        ("replies", ["positive_replies"], None),
        ("replies received", ["replies"], "replies"),
        ("booked demos", ["demos_booked"], "demos_booked"),
        ("demos booked", ["demos_held"], None),
        ("demos booked", ["demo_requests"], None),
        ("sign-ups", ["signups"], "signups"),
        ("calls booked", ["calls_scheduled"], "calls_scheduled"),
        ("emails", ["emails_opened", "emails_sent"], "emails_sent"),
        ("deals", ["deals_closed"], "deals_closed"),
    ],
)
def test_names_are_matched_by_words_and_fillers_do_not_count(
    words: str, names: list[str], expected: str | None
) -> None:
    criterion = understand(f"At least 4 {words}", Vocabulary([MetricSpec(name, "counter") for name in names]))
    assert (criterion.names[0] in names) == (expected is not None)
    assert expected is None or criterion.names == (expected,)


@pytest.mark.parametrize(
    ("text", "name", "canonical"),
    [
        ("AOV above $49", "average_order_value", "average_order_value > 49"),
        ("Click-through rate above 2%", "ctr", "ctr > 2%"),
        ("Day-7 retention above 25%", "day7_retention", "day7_retention > 25%"),
        ("Day 7 retention above 25%", "day_7_retention", "day_7_retention > 25%"),
        ("10 follow-up meetings booked", "followup_meetings", "followup_meetings >= 10"),
        ("Revenue over $5k", "revenue_usd", "revenue_usd > 5000"),
        ("$25k+ in pipeline", "pipeline_value", "pipeline_value >= 25000"),
        ("Less than $50 per response", "cost_per_response", "cost_per_response < 50"),
        ("CAC payback under 12 months", "cac_payback_months", "cac_payback_months < 12"),
        ("Response time under 2 days", "response_time_hours", "response_time_hours < 48"),
        ("500 stars", "github_stars", "github_stars >= 500"),
        ("300 new members", "members_joined", "members_joined >= 300"),
        ("NPS score above 40", "nps", "nps > 40"),
        ("Open rate above 40%", "open_pct", "open_pct > 40%"),
        ("Interviews conducted: 15+", "interviews_completed", "interviews_completed >= 15"),
        # A short sentence is of the grammar by chance.
        ("CTR >= 3%", "ctr", "ctr >= 3%"),
        ("Conversion < 1% after 500 visitors", "conversion_rate", "conversion_rate < 1% after 500 visitors"),
    ],
)
def test_a_metric_is_known_by_its_initials_its_unit_and_other_spellings(text: str, name: str, canonical: str) -> None:
    assert understand(text, Vocabulary([MetricSpec(name, "gauge")])).text == canonical


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("At least 500 followers", ["twitter_followers", "linkedin_followers"]),
        ("At least 5 demos", ["demos_booked", "demos_held"]),
        ("Answer rate above 20%", ["call_answer_rate", "dm_answer_rate"]),
        ("Revenue above €5k", ["revenue_usd"]),
        ("Traffic above 2x", ["traffic"]),
        ("Growth rate above 2x", ["growth_rate"]),
    ],
)
def test_what_could_be_several_metrics_or_another_measure_is_not_guessed(text: str, names: list[str]) -> None:
    with contextlib.suppress(CriterionError):
        assert set(understand(text, Vocabulary([MetricSpec(name, "gauge") for name in names])).names).isdisjoint(names)


def test_operands_of_formulas_are_names_too() -> None:
    vocabulary = Vocabulary([MetricSpec("meeting_rate", "percentage", parse_formula("meetings_held / calls_made"))])
    assert understand("Make at least 40 calls", vocabulary).text == "calls_made >= 40"
    assert understand("At least 3 meetings held after 40 calls", vocabulary).text == "meetings_held >= 3 after 40 calls"


def judged(text: str, kind: CriterionKind = "success", days: float = 1, **fields: str) -> Evaluation:
    final = fields.pop("final", "") != ""
    return evaluate(
        understand(text, VOCABULARY, kind),
        Metrics.from_hash({"events_total": "9", **fields}, SPECS),
        now=START + timedelta(days=days),
        started_at=START,
        final=final,
    )


def test_what_can_not_be_reached_fails_only_when_the_experiment_is_over() -> None:
    text = "Can't sign 20+ partners"
    waiting = judged(text, "failure", partner_signed_count="3")
    assert (waiting.state, waiting.evidence, waiting.value, waiting.threshold) == ("not_met", None, 3.0, 20.0)
    assert "until the experiment is over" in waiting.reason
    assert judged(text, "failure", partner_signed_count="3", final="yes").state == "met"
    assert judged(text, "failure", partner_signed_count="20", final="yes").state == "not_met"


def test_a_missed_number_with_a_deadline_fails_when_the_deadline_is_over() -> None:
    text = "Fewer than 5 replies within 7 days"
    assert judged(text, "failure", days=1, reply_count="2").state == "not_met"
    assert judged(text, "failure", days=8, reply_count="2").state == "met"
    assert judged(text, "failure", days=8, reply_count="5").state == "not_met"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("Win 4+ renewals", "renewal_won_count"),
        ("Win 4+ renewals", "renewal_count"),
        ("Publish 4 posts", "published_post_count"),
        ("At least 4 refund requests", "refund_request_count"),
        ("At least 4 testimonials", "testimonial_received_count"),
        ("At least 4 follow-ups", "followup_count"),
    ],
)
def test_an_event_that_nobody_declared_is_found_by_its_words(text: str, field: str) -> None:
    assert judged(text, **{field: "4"}).state == "met"
    assert judged(text, **{field: "3"}).state == "not_met"
    assert judged(text).state == "unknown"


def test_events_that_are_alike_are_not_guessed_between() -> None:
    result = judged("Win 4+ renewals", renewal_count="5", won_renewals_total_count="1")
    assert result.state == "met"  # the same words but for one filler come first
    result = judged("At least 4 upgrades", upgrade_completed_count="5", upgrade_created_count="1")
    assert (result.state, "could be" in result.reason) == ("unknown", True)


def test_at_end_is_read_and_printed_by_the_grammar() -> None:
    for text, canonical in (
        ("a < 20 at end", "a < 20 at end"),
        ("a < 20 after 7 days AT END", "a < 20 at end after 7 days"),
        ("(a < 20 after 100 sends) at end at end", "a < 20 at end after 100 sends"),
        ("a < 20 after 100 look at end", "a < 20 after 100 look at end"),
        ("(a < 2 or b < 2) at end", "(a < 2 or b < 2) at end"),
        ("at > 3 and end > 2", "at > 3 and end > 2"),
    ):
        assert parse(text).text == canonical
        assert parse(canonical) == parse(text)
    assert not parse("a < 20 at end").has_time_clause


def test_a_criterion_of_prose_is_refused_by_its_length_first() -> None:
    for text in ("At least 3 demos " * 600, "a" * 10_000, "(" * 10_000, "1-" * 5_000):
        with pytest.raises(CriterionError, match="more than 2000"):
            understand(text, VOCABULARY)
    with pytest.raises(CriterionError, match="longer than 60 words"):
        understand("at least three demos and " * 20 + "x", VOCABULARY)


vocabularies = st.lists(
    st.builds(
        MetricSpec,
        st.sampled_from(["replies", "reply_rate", "demo_booked", "a b", "`", "", "ünï", "x" * 300]),
        st.sampled_from(["counter", "percentage", "duration", ""]),
        st.sampled_from([None, parse_formula("replies / emails_sent * 100")]),
    ),
    max_size=4,
).map(Vocabulary)
EXAMPLES = Path(__file__).parents[3] / "shared" / "criteria_examples.json"
UNSUPPORTED_EXAMPLES = {
    "Subject line 'Re: building agents' generates curiosity without spam flags",
    "At least 1 'very interested' reply with clear next steps",
    "Automation works end-to-end without manual intervention",
}
READ_EXAMPLES = {
    "At least 1 meeting booked to validate ICP": "meetings_booked >= 1",
    "Zero positive replies after 10 days": "positive_replies == 0 after 10 days",
    "Reply rate >= 8% (16+ replies from 200 emails)": "reply_rate >= 8%",
    "At least 3 demo calls booked": "demo_booked >= 3",
    "More than 5 unsubscribes or negative replies": "unsubscribes > 5 or negative_replies > 5",
    "Open rate < 25% (indicates bad targeting or subject line)": "open_rate < 25%",
    "Send at least 20 emails from discovered contacts": "emails_sent >= 20",
    "At least 1-2 positive replies (meetings, interest signals)": "positive_replies >= 1",
    "Reply rate < 3% after 2 weeks": "reply_rate < 3% after 2 weeks",
    "Reply rate >= 8% within 7 days (match CTO experiment benchmark)": "reply_rate >= 8% within 7 days",
    "Email discovery rate < 50% (tool not finding contacts)": "email_discovery_rate < 50%",
}


def test_the_examples_are_read_as_a_careful_reader_would() -> None:
    if not EXAMPLES.exists():
        pytest.skip(f"{EXAMPLES} is not there: these experiments are handed out beside the repository")
    read: dict[str, str | None] = {}
    for document in json.loads(EXAMPLES.read_text("utf-8")):
        for entry in parse_experiment(document["id"], json.dumps(document)).criteria:
            if not entry.listed:
                continue
            text = None if entry.criterion is None else entry.criterion.text
            assert read.setdefault(entry.text, text) == text or "_" in entry.text
            if " " in entry.text and "_" in entry.text:  # the formal ones stay as they are
                assert entry.criterion == parse(entry.text)
    assert {text for text, canonical in read.items() if canonical is None} == UNSUPPORTED_EXAMPLES
    assert {text: read[text] for text in READ_EXAMPLES} == READ_EXAMPLES


def test_the_examples_of_each_pattern_are_read_by_it() -> None:
    for pattern in PATTERNS:
        for text in pattern.examples:
            statement = pattern.read(anatomy_of(sentence_of(text).pieces), VOCABULARY)
            assert statement is not None
            assert read_statement(sentence_of(text).pieces, VOCABULARY) == statement


fragments = st.sampled_from(
    [
        "at least",
        "no more than",
        "more",
        "than",
        "zero",
        "no",
        "can't",
        "don't",
        "never",
        "Win",
        "Keep",
        "Reach",
        "reply rate",
        "replies",
        "demos booked",
        "partners",
        "5",
        "10%",
        "2-3",
        "4+",
        "$5k",
        "1.5M",
        "a dozen",
        "three",
        "or",
        "and",
        "between",
        "to",
        "from",
        "within",
        "after",
        "by",
        "7 days",
        "100 sends",
        "week 2",
        "the end",
        "the",
        "of",
        "(",
        ")",
        ":",
        ";",
        "—",
        "-",
        ">=",
        "<",
        "%",
        "+",
        "'x'",
        '"',
        "or more",
        "is",
        "not",
        "if",
        "per week",
        "`a`",
        "_",
        "≥",
        "in",
        "at end",
        ":",
        ".",
        "!",
    ]
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(st.text(max_size=300), st.lists(fragments, max_size=40).map(" ".join)),
    vocabularies,
    st.sampled_from(["success", "failure"]),
)
@example('0"', Vocabulary([]), "success")
def test_any_text_is_either_understood_or_refused(text: str, vocabulary: Vocabulary, kind: CriterionKind) -> None:
    try:
        criterion = understand(text, vocabulary, kind)
    except CriterionError:
        return
    again: Criterion = parse(criterion.text)
    assert again == criterion
    assert again.text == criterion.text
    for final in (False, True):
        fields = {"replies_count": "3", "demo_booked_count": "9", "reply_rate_latest": "0.2"}
        result = evaluate(criterion, Metrics.from_hash(fields, ()), now=START, started_at=START, final=final)
        assert result.reason
