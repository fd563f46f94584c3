"""What each precision keeps of the model's judgement, on STS-B dev."""

from __future__ import annotations

from pathlib import Path

from plan import STORAGES, Plan
from report import Figure, at_least, at_most, skipped
from scipy.stats import spearmanr
from server import FP32, INT8_BLOCK, INT8_DYNAMIC, Connection, configured, connect, set_cache
from texts import Pairs, similarity_pairs

_PART = "5. Quality and size"
_COSINES = "SELECT 1 - (a <=> b) FROM unnest(embed(%s::text[], %s), embed(%s::text[], %s)) AS t (a, b)"


def measure(plan: Plan) -> tuple[list[Figure], dict[str, float]]:
    """The figures, and the points lost by each precision in the language that suffers most."""
    figures = [_size(plan)]
    data_dir = plan.texts.data_dir
    if data_dir is None:
        return [*figures, skipped(_PART, "Spearman on STS-B dev", "DATA_DIR is not set")], {}
    losses: dict[str, float] = {}
    with connect() as connection, configured(connection, "threads", "2"):
        set_cache(connection, "off")
        for language in ("en",) if plan.is_quick else ("en", "zh"):
            pairs = similarity_pairs(data_dir, language)
            points = {storage: spearman(connection, plan.reference(storage), pairs) for storage in STORAGES}
            for storage, value in points.items():
                figures.append(Figure(_PART, f"Spearman {language} {storage}", value, "points"))
                losses[storage] = max(losses.get(storage, 0.0), points[FP32] - value)
    figures.append(at_most(_PART, "int8_dynamic: points lost", losses[INT8_DYNAMIC], "points", 0.5, "worse language"))
    figures.append(at_most(_PART, "int8_block: points lost", losses[INT8_BLOCK], "points", 0.1, "worse language"))
    return figures, losses


def spearman(connection: Connection, reference: str, pairs: Pairs) -> float:
    """How well the cosines of a version's vectors follow the scores, in points."""
    rows = connection.execute(_COSINES, (pairs.left, reference, pairs.right, reference)).fetchall()
    return float(spearmanr([row[0] for row in rows], pairs.scores).statistic) * 100


def _size(plan: Plan) -> Figure:
    sizes = {
        storage: sum(file.stat().st_size for file in Path(plan.artifact(storage)).glob("model.onnx*"))
        for storage in STORAGES
    }
    note = ", ".join(f"{storage} {size / 1e6:.1f} MB" for storage, size in sizes.items())
    saved = (1 - sizes[INT8_DYNAMIC] / sizes[FP32]) * 100
    return at_least(_PART, "int8_dynamic: file smaller by", saved, "%", 74, note)
