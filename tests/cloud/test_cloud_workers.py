"""Joining the metrics of several workers."""

from edgehive.cloud.workers import merge_metrics

ONE = '# HELP a A thing\n# TYPE a counter\na 1\n# HELP b B\n# TYPE b histogram\nb_bucket{le="1"} 2\nb_sum 3\n'


def test_each_sample_is_labelled_and_each_metric_is_described_once() -> None:
    text = "\n".join(merge_metrics({"0": ONE, "1": ONE.replace("a 1", "a 5")}))
    assert text.splitlines() == [
        "# HELP a A thing",
        "# TYPE a counter",
        'a{worker="0"} 1',
        'a{worker="1"} 5',
        "# HELP b B",
        "# TYPE b histogram",
        'b_bucket{le="1",worker="0"} 2',
        'b_sum{worker="0"} 3',
        'b_bucket{le="1",worker="1"} 2',
        'b_sum{worker="1"} 3',
    ]


def test_a_worker_that_is_away_is_left_out() -> None:
    assert list(merge_metrics({})) == []
