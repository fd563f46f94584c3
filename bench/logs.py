"""What the log of calls costs a call, and how fast it is taken in and read."""

from __future__ import annotations

from statistics import median

from plan import Plan, in_turns
from report import Figure, Seconds, at_most, cores, counted, ratio, spread, walls
from server import FP32, Connection, add_samples, configured, connect, seconds, set_cache, timed

_PART = "12. Log of calls (fp32, distinct short texts, 1 thread)"
_STATEMENT = "SELECT count(embed(s.content, %s)) FROM sample AS s WHERE s.purpose = 'logs' AND s.round = %s"
_REPEATED = "SELECT count(embed('one text', %s)) FROM generate_series(1, %s)"
_INGEST = "SELECT pgml_tune._ingest_logs()"
_READ = "SELECT count(*) FROM pgml_tune.inference_logs"
_NEITHER, _LOGGED, _DEFAULT = "caches off, not logged", "caches off, all calls logged", "caches and log as by default"
_SETTINGS = {_NEITHER: ("off", "0"), _LOGGED: ("off", "1"), _DEFAULT: ("on", "0.1")}  # pgml_tune.cache, log_sample


def measure(plan: Plan) -> list[Figure]:
    rounds, size = plan.pick(11, 5), plan.pick(100, 60)
    texts, reference = plan.texts.short(rounds * size), plan.reference(FP32)
    with connect() as administrator, connect("-c jit=off") as session:
        for number in range(rounds):
            add_samples(administrator, "logs", number, texts[number * size : (number + 1) * size])
        seconds(session, "SELECT embed('a first text', %s)", reference)

        def run(how: str, number: int) -> Seconds:
            cache, sample = _SETTINGS[how]
            set_cache(session, cache)
            with configured(administrator, "log_sample", sample):
                return timed(session, _STATEMENT, reference, number).per(size)

        times = in_turns(list(_SETTINGS), rounds, run)
        return [*_costs(times), *_ways(plan, administrator, session, reference)]


def _costs(times: dict[str, list[Seconds]]) -> list[Figure]:
    neither = times[_NEITHER]
    milliseconds = walls(neither, 1000)
    figures = [Figure(_PART, _NEITHER, median(milliseconds), "ms", note=spread(milliseconds))]
    for how in (_LOGGED, _DEFAULT):
        cost = (ratio(walls(times[how]), walls(neither)) - 1) * 100
        on_core = (ratio(cores(times[how]), cores(neither)) - 1) * 100
        figures.append(at_most(_PART, f"{how}: added to a miss", cost, "%", 5, f"on a core {on_core:.1f} %"))
    return figures


def _ways(plan: Plan, administrator: Connection, session: Connection, reference: str) -> list[Figure]:
    """What becomes of the lines: read from the spool, taken in, read from the table."""
    calls = plan.pick(100_000, 10_000)
    seconds(administrator, _INGEST)
    set_cache(session, "on")
    spent = {}
    for sample in ("0", "1"):
        with configured(administrator, "log_sample", sample):
            spent[sample] = timed(session, _REPEATED, reference, calls).core / calls
    per_call = {
        "line of a call (session cache, on a core)": spent["1"] - spent["0"],
        "read from the spool": seconds(administrator, _READ) / calls,
        "take in": seconds(administrator, _INGEST) / calls,
        "read from the table": seconds(administrator, _READ) / calls,
    }
    return [Figure(_PART, what, value * 1e6, "us", note=counted(calls, "call")) for what, value in per_call.items()]
