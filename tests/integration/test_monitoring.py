"""Metrics, alert rules and dashboard: every query runs, as a role that may operate."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import yaml
from conftest import Connect
from exporter import MONITORING, Sample, collectors, metrics, scrape
from monitored import watch

ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
METRICS = [metric for collector in collectors() for metric in metrics(collector)]
# What Grafana puts in place of its macros and variables.
MACROS = (
    (r"\$__timeFilter\((.*?)\)", r"\1 BETWEEN now() - interval '2 days' AND now()"),
    (r"\$__timeGroupAlias\((.*?), ?\$__interval\)", r'floor(extract(epoch FROM \1) / 600) * 600 AS "time"'),
    (r"\$__interval", "10m"),
    (r"\$\{model:sqlstring\}", "'minilm', 'intents'"),
)
promtool = shutil.which("promtool")


@pytest.fixture(scope="module")
def olga(connect_shared: Connect) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role that may operate, in a database where much has happened."""
    watch(connect_shared())
    yield connect_shared("olga")


@pytest.fixture(scope="module")
def samples(olga: psycopg.Connection[Any]) -> list[Sample]:
    return [sample for metric in METRICS for sample in scrape(olga, metric)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric["metric_name"])
def test_a_role_that_may_operate_gets_each_metric_without_doubles(olga, metric):
    found = scrape(olga, metric)
    assert found
    assert len({tuple(sample.labels.items()) for sample in found}) == len(found)
    assert metric["type"] == "gauge" or all(sample.value >= 0 for sample in found)
    assert metric["metric_name"].endswith("_total") == (metric["type"] == "counter")


def test_a_role_that_may_only_use_gets_none_of_the_figures_of_others(connect_shared, olga):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect_shared("alice").execute("SELECT * FROM pgml_tune.inference_logs")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect_shared("alice").execute("SELECT * FROM pgml_tune.stat_jobs")


def value_of(samples: list[Sample], metric: str, **labels: str) -> float:
    found = [sample for sample in samples if sample.metric == metric and labels.items() <= sample.labels.items()]
    assert len(found) == 1, found
    return found[0].value


def test_the_metrics_tell_what_has_happened(samples):
    share = "pgml_tune_traffic_share"
    assert value_of(samples, share, model="minilm", variant="serving") == pytest.approx(0.8)
    assert value_of(samples, share, model="minilm", variant="candidate", version="v1-int8-block") == pytest.approx(0.2)
    assert value_of(samples, "pgml_tune_rollouts_ended_total", model="minilm", state="rolled_back") == 1
    assert value_of(samples, "pgml_tune_rollouts_ended_total", model="minilm", state="promoted") == 0
    assert value_of(samples, "pgml_tune_rollout", model="minilm", to_version="v1-int8-block", state="running") == 1
    assert value_of(samples, "pgml_tune_jobs", kind="evaluate_model", state="failed") == 1
    assert value_of(samples, "pgml_tune_recent_calls", outcome="lost") == 1
    assert value_of(samples, "pgml_tune_recent_calls", outcome="cancelled") == 1
    assert value_of(samples, "pgml_tune_texts_total", version="v1", cache="miss") >= 1


def test_alerts_ask_only_for_metrics_and_labels_that_there_are():
    names = {metric["metric_name"]: metric for metric in METRICS}
    for rule in (rule for group in ALERTS["groups"] for rule in group["rules"]):
        assert set(rule["annotations"]) == {"summary", "description"} and rule["labels"]["severity"]
        asked = re.findall(r"(pgml_tune_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert asked
        for name, matchers in asked:
            labels = {*names[name].get("key_labels", []), names[name].get("value_label")}
            assert set(re.findall(r"(\w+)!?=~?", matchers)) <= labels, rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert all(shown <= set(names[name].get("key_labels", [])) for name, _ in asked), rule["alert"]


def test_the_documents_name_every_metric_and_every_alert_and_no_other():
    text = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    alerts = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(PgmlTune\w+)`", text)) == alerts
    assert set(re.findall(r"`(pgml_tune_\w+)`", text)) == {metric["metric_name"] for metric in METRICS}


@pytest.mark.skipif(promtool is None, reason="promtool is not installed")
def test_promtool_takes_the_metrics(samples):
    lines = []
    for metric in METRICS:
        name = metric["metric_name"]
        lines += [f"# HELP {name} {metric['help']}", f"# TYPE {name} {metric['type']}"]
        lines += [str(sample) for sample in samples if sample.metric == name]
    ask_promtool("check", "metrics", given="\n".join(lines) + "\n")


@pytest.mark.skipif(promtool is None, reason="promtool is not installed")
def test_alerts_fire_when_they_should_and_not_before():
    ask_promtool("check", "rules", str(MONITORING / "alerts.yml"))
    ask_promtool("test", "rules", str(MONITORING.parent / "tests" / "fixtures" / "alerts_test.yml"))


def ask_promtool(*command: str, given: str | None = None) -> None:
    result = subprocess.run([promtool, *command], input=given, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


QUERIES = {
    **{annotation["name"]: annotation["target"]["rawSql"] for annotation in DASHBOARD["annotations"]["list"]},
    **{variable["name"]: variable["query"] for variable in DASHBOARD["templating"]["list"] if "refresh" in variable},
    **{
        f"{panel['title']}-{target['refId']}": target["rawSql"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    },
}


@pytest.mark.parametrize(("name", "statement"), QUERIES.items(), ids=list(QUERIES))
def test_a_query_of_the_dashboard_runs_and_finds_rows(olga, name, statement):
    for macro, sql in MACROS:
        statement = re.sub(macro, sql, statement)
    assert "$" not in statement
    rows = olga.execute(statement).fetchall()
    assert rows or name == "Your jobs that run-A"


def test_the_dashboard_asks_the_chosen_database_only_and_no_panel_lies_on_another():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        columns, rows = (range(place[at], place[at] + place[length]) for at, length in (("x", "w"), ("y", "h")))
        cells = {(column, row) for column in columns for row in rows}
        assert not cells & taken and max(columns) < 24, panel["title"]
        taken |= cells
        for source in [panel.get("datasource"), *(target["datasource"] for target in panel.get("targets", []))]:
            assert source is None or source["uid"] == "${datasource}"
