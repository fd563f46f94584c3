"""Which rows are kept to measure with."""

from collections import Counter

import pytest

from pgml_tune.jobs.held_out import split_stratified
from pgml_tune.jobs.label_rows import LabelledTexts, all_labels, label_text


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_each_label_gives_its_share_and_keeps_a_row(share):
    labels = ["often"] * 101 + ["seldom"] * 7 + ["twice"] * 2 + ["once"]
    kept, held_out = split_stratified(labels, share, 42)
    assert sorted(kept + held_out) == list(range(len(labels)))
    assert len(held_out) == round(share * len(labels))
    counts, total = Counter(labels[place] for place in held_out), Counter(labels)
    for label, number in total.items():
        assert abs(counts[label] - share * number) < 1.01
        assert counts[label] < number


def test_a_split_follows_its_seed():
    labels = [str(place % 5) for place in range(200)]
    assert split_stratified(labels, 0.1, 1) == split_stratified(labels, 0.1, 1)
    assert split_stratified(labels, 0.1, 1) != split_stratified(labels, 0.1, 2)


def test_labels_that_are_no_texts_are_written_as_one_would():
    assert list(map(label_text, [3, 3.0, -1, True, False, "3", 10**15])) == [
        "3", "3", "-1", "true", "false", "3", "1000000000000000",
    ]  # fmt: skip


def test_known_labels_keep_their_places():
    rows = LabelledTexts.of([("a", "new"), ("b", "old"), ("c", "again")])
    assert all_labels(["old", "other"], rows.labels) == ["old", "other", "again", "new"]
