"""Facts as they could be, for tests of the page."""

import math
from datetime import UTC, datetime, timedelta

from pgml_tune.store.facts import (
    Cache,
    Drift,
    Facts,
    Finding,
    Job,
    Latency,
    Moment,
    Move,
    Place,
    Quality,
    Rollout,
    Usage,
    Version,
)

NOW = datetime(2026, 3, 14, 16, 20, tzinfo=UTC)
SINCE = NOW - timedelta(days=7)
HOUR = timedelta(hours=1)


def place(database: str = "shop") -> Place:
    return Place(database, "olga", "17.6", "0.1.0", "public", False, SINCE, NOW)


def empty() -> Facts:
    """A database where nothing has happened."""
    return Facts(place(), [], [], [], [], [], [], [], [], [], [], [], {}, [], 0)


def busy() -> Facts:
    """A week with a promotion, a rollout that was rolled back and one that runs."""
    return Facts(
        place=place(),
        versions=[
            Version("intents", "v1", "classification", True),
            Version("minilm", "v1", "embedding", False),
            Version("minilm", "v2", "embedding", True),
            Version("minilm", "v3", "embedding", False),
        ],
        moves=[
            Move("version", "intents", None, "v1", None, "adam", SINCE - 90 * HOUR),
            Move("version", "minilm", None, "v1", None, "adam", SINCE - 200 * HOUR),
            Move("default", "embedding", None, "minilm", None, "adam", SINCE - 200 * HOUR),
            Move("share", "minilm", "v1", "v2 5 %", None, "olga", SINCE + 20 * HOUR),
            Move("share", "minilm", "v2 5 %", "v2 25 %", "pass", "olga", SINCE + 32 * HOUR),
            Move("share", "minilm", "v2 25 %", "v2 50 %", "pass", "olga", SINCE + 44 * HOUR),
            Move("version", "minilm", "v1", "v2", "pass", "olga", SINCE + 60 * HOUR),
            Move("share", "minilm", "v2", "v3 10 %", None, "olga", SINCE + 90 * HOUR),
            Move("share", "minilm", "v3 10 %", "v2", "latency: +23 %, 10 % are allowed", "postgres", SINCE + 97 * HOUR),
            Move("share", "minilm", "v2", "v3 20 %", "with one thread more", "olga", SINCE + 130 * HOUR),
        ],
        rollouts=[
            Rollout(
                3, "minilm", "v2", "v3", "running", 0.2, [500, 2000, 5000, 10000], SINCE + 118 * HOUR,
                NOW - HOUR / 6, NOW + 48 * HOUR, None, None,
            ),
            Rollout(
                2, "minilm", "v2", "v3", "rolled_back", 0.0, None, SINCE + 90 * HOUR,
                SINCE + 97 * HOUR, SINCE + 200 * HOUR, SINCE + 97 * HOUR, "latency: +23 %, 10 % are allowed",
            ),
            Rollout(
                1, "minilm", "v1", "v2", "promoted", 1.0, [500, 2500, 5000, 10000], SINCE + 20 * HOUR,
                SINCE + 60 * HOUR, SINCE + 200 * HOUR, SINCE + 60 * HOUR, "pass",
            ),
        ],
        findings=findings(),
        usage=[
            Usage("minilm", "v2", 41_212.0, 12.0, 0.0, 0.0),
            Usage("minilm", "v3", 2_341.0, 0.0, 61.0, 1.0),
            Usage("minilm", "v1", 18_400.0, 3.0, 0.0, 0.0),
            Usage("intents", "v1", 3_120.0, 0.0, 0.0, 0.0),
        ],
        latencies=[
            Latency("intents", "classify", "v1", 3120.0, 5.1, 9.9, 14.2, 5.4, 5.2, 5.6),
            Latency("minilm", "search", "v1", 15_120.0, 12.4, 22.9, 31.0, 12.9, 12.7, 13.1),
            Latency("minilm", "search", "v2", 30_120.0, 11.1, 20.7, 28.5, 11.5, 11.4, 11.6),
            Latency("minilm", "search", "v3", 1_820.0, 11.9, 24.0, 41.5, 12.4, 11.8, 13.1),
        ],
        course=[*course("minilm", "search", "v1", 0, 61, 12.4), *course("minilm", "search", "v2", 20, 168, 11.1),
                *course("minilm", "search", "v3", 118, 168, 11.9), *course("intents", "classify", "v1", 0, 168, 5.1)],
        qualities=[
            Quality("minilm", "v1", "score", 0.71, 0.67, 0.75, 412),
            Quality("minilm", "v2", "score", 0.78, 0.75, 0.80, 903),
            Quality("minilm", "v3", "score", 0.79, 0.70, 0.88, 61),
        ],
        caches=[
            Cache("minilm", "v2", 301_200, 90_000, 102_311, 0.638, 1_912.0, 88_012, 151_000_000),
            Cache("minilm", "v1", 120_100, 12_000, 60_123, 0.6, 803.5, 41_200, 70_800_000),
            Cache("minilm", "v3", 4_100, 210, 801, 0.2466, 8.2, 3_112, 5_400_000),
        ],
        drifts=[
            Drift("minilm", "v1, v2", "input_bytes", 38.2, 51.9, 0.41, 0.1, 0.002, "drift"),
            Drift("minilm", "v1, v2", "unknown_share", 0.004, 0.005, 0.001, 0.01, 0.31, "stable"),
            Drift("minilm", "v1, v2", "embedding", None, None, 0.08, 0.2, 0.22, "stable"),
        ],
        jobs=[
            Job(12, "finetune_sbert", "minilm@v2", "running", "olga", NOW - HOUR / 3, HOUR / 4, None, None, None),
            Job(
                11, "quantize_model", "minilm@v2", "failed", "olga", NOW - 20 * HOUR, HOUR / 60, "53100",
                "no space left for model files", None,
            ),
            Job(
                10, "finetune_sbert", "minilm@v1", "succeeded", "olga", NOW - 90 * HOUR, HOUR / 15, None, None,
                "spearman 86.72 -> 89.27 on 1,500 rows",
            ),
        ],
        job_counts={"queued": 2, "running": 1, "failed": 1, "succeeded": 14},
        pending=[],
        dropped_bytes=0,
    )  # fmt: skip


def course(model: str, task: str, version: str, first: int, last: int, p50: float) -> list[Moment]:
    """A value every four hours, higher by day."""
    return [
        Moment(model, task, version, SINCE + hour * HOUR, p50 * day(hour), 1.9 * p50 * day(hour + 1))
        for hour in range(first, last, 4)
    ]


def day(hour: int) -> float:
    return 1 + 0.12 * math.sin(hour * math.tau / 24) + 0.04 * math.sin(hour * 1.7)


def findings() -> list[Finding]:
    """As ab_report() has them."""
    late = "Latency of the candidate: +4 % (between -3 % and +12 %): not enough seen, 10 % are allowed."
    return [
        Finding(3, "sample_ratio", "pass", "19.8 % of the units went to the candidate.", -0.01, None, None, None, None),
        Finding(3, "verdict", "inconclusive", late, None, None, None, None, 1.4),
        Finding(3, "error_rate", "pass", "Errors of the candidate: +35 % at most.", 0.1, -0.2, 0.35, 0.5, 0.0),
        Finding(3, "latency", "inconclusive", late, 0.04, -0.03, 0.12, 0.1, 1.4),
        Finding(3, "quality", "pass", "Mean score of the candidate: +0.010.", 0.01, -0.015, 0.035, 0.02, 0.0),
    ]
