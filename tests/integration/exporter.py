"""What sql_exporter does with its configuration and with the rows of a query."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

MONITORING = Path(__file__).parents[2] / "monitoring"
GLOBAL = {"scrape_timeout", "scrape_timeout_offset", "min_interval", "max_connections", "max_idle_connections"}
COLLECTOR = {"collector_name", "min_interval", "metrics", "queries"}
METRIC = {"metric_name", "type", "help", "key_labels", "value_label", "values", "static_value", "query", "query_ref"}
NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Sample:
    """A line of what Prometheus reads."""

    metric: str
    labels: dict[str, str]
    value: float

    def __str__(self) -> str:
        labels = ",".join(f"{name}={quoted(value)}" for name, value in self.labels.items())
        return f"{self.metric}{{{labels}}} {self.value!r}"


def quoted(value: str) -> str:
    return '"' + value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def collectors() -> list[dict[str, Any]]:
    """The collectors that the configuration takes in; unknown keys are refused, as the exporter does."""
    configuration = yaml.safe_load((MONITORING / "sql_exporter.yml").read_text())
    assert set(configuration) == {"global", "target", "collector_files"}
    assert set(configuration["global"]) <= GLOBAL
    assert set(configuration["target"]) == {"name", "data_source_name", "collectors"}
    files = [path for pattern in configuration["collector_files"] for path in sorted(MONITORING.glob(pattern))]
    found = [yaml.safe_load(path.read_text()) for path in files]
    assert [collector["collector_name"] for collector in found] == configuration["target"]["collectors"]
    assert all(set(collector) <= COLLECTOR for collector in found)
    return found


def metrics(collector: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a collector, each with its statement."""
    named = {query["query_name"]: query["query"] for query in collector.get("queries", [])}
    found = []
    for metric in collector["metrics"]:
        assert set(metric) <= METRIC
        assert NAME.fullmatch(metric["metric_name"]) and metric["help"] and metric["type"] in ("counter", "gauge")
        assert ("query" in metric) != ("query_ref" in metric)
        assert ("values" in metric) != ("static_value" in metric)
        assert ("value_label" in metric) == (len(metric.get("values", [])) > 1)
        found.append(metric | {"statement": metric.get("query") or named[metric["query_ref"]]})
    assert {metric["query_ref"] for metric in collector["metrics"] if "query_ref" in metric} == set(named)
    return found


def scrape(connection: psycopg.Connection[Any], metric: dict[str, Any]) -> list[Sample]:
    """The samples of a metric: NULL values are left out, and a label is never NULL."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(metric["statement"]).fetchall()
    samples = []
    for row in rows:
        labels = {name: row[name] for name in metric.get("key_labels", [])}
        assert all(type(value) is str for value in labels.values()), labels
        if "static_value" in metric:
            samples.append(Sample(metric["metric_name"], labels, float(metric["static_value"])))
            continue
        for column in metric["values"]:
            assert not isinstance(row[column], bool), f"{column} is no number to the exporter"
            if row[column] is not None:
                named = {metric["value_label"]: column} if "value_label" in metric else {}
                samples.append(Sample(metric["metric_name"], labels | named, float(row[column])))
    return samples
