import os

from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import ENDPOINTS, LATENCY, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in {"model", "version"}}
            found[(sample.name, *labels.values())] = sample.value
            assert sample.labels["model"] == "iris"
            assert sample.labels["version"] == "3"
    return found


def made(workers: int = 1) -> Metrics:
    return Metrics(["a", "b"], name="iris", version="3", workers=workers)


def test_requests_by_endpoint_and_status() -> None:
    metrics = made()
    metrics.answered("invocations", 200, 0.003)
    metrics.answered("invocations", 200, 0.2)
    metrics.answered("predict", 422, 0.001)
    metrics.counted("health", 200)
    found = samples(metrics)
    assert found["serving_requests_total", "invocations", "200"] == 2
    assert found["serving_requests_total", "predict", "422"] == 1
    assert found["serving_requests_total", "health", "200"] == 1
    assert found["serving_request_duration_seconds_count",] == 3


def test_a_value_on_a_bound_belongs_below_it() -> None:
    metrics = made()
    metrics.answered("invocations", 200, LATENCY[0])
    metrics.answered("invocations", 200, 99.0)
    found = samples(metrics)
    assert found["serving_request_duration_seconds_bucket", str(LATENCY[0])] == 1
    assert found["serving_request_duration_seconds_bucket", str(LATENCY[-1])] == 1
    assert found["serving_request_duration_seconds_bucket", "+Inf"] == 2
    assert found["serving_request_duration_seconds_sum",] == LATENCY[0] + 99.0


def test_batches() -> None:
    metrics = made()
    for size in (1, 3, 5000):
        metrics.batch(size, size)
    found = samples(metrics)
    assert found["serving_batch_requests_bucket", "1.0"] == 1
    assert found["serving_batch_requests_bucket", "4.0"] == 2
    assert found["serving_batch_requests_count",] == 3
    assert found["serving_batch_requests_sum",] == 5004


def test_rejects_by_field_have_few_names() -> None:
    metrics = made()
    metrics.rejected({"a", "whatever"})
    metrics.rejected({"something"})
    found = samples(metrics)
    assert {key[1]: value for key, value in found.items() if key[0] == "serving_validation_rejects_total"} == {
        "a": 1,
        "other": 2,
    }
    wide = Metrics([f"c{place}" for place in range(5000)])
    assert len(wide.fields) <= 1001


def test_a_column_named_other_is_no_trouble() -> None:
    metrics = Metrics(["other"], name="iris", version="3")
    metrics.rejected({"other", "x"})
    assert samples(metrics)["serving_validation_rejects_total", "other"] == 1


def test_gauges_and_the_longest_call() -> None:
    metrics = made(workers=2)
    metrics.load(3, 2, 0.5)
    metrics.use_slot(1)
    metrics.load(1, 0, 7.0)
    found = samples(metrics)
    assert found["serving_in_flight_requests",] == 4
    assert found["serving_queue_requests",] == 2
    assert metrics.stuck() == 7.0


def test_forked_workers_count_into_the_same_memory() -> None:
    metrics = made(workers=2)
    for slot in range(2):
        pid = os.fork()
        if not pid:
            metrics.use_slot(slot)
            metrics.answered("invocations", 200, 0.01)
            os._exit(0)
        os.waitpid(pid, 0)
    metrics.restarted(1)
    found = samples(metrics)
    assert found["serving_requests_total", "invocations", "200"] == 2
    assert found["serving_worker_restarts_total",] == 1


def test_a_worker_that_starts_again_keeps_its_counters_but_not_its_gauges() -> None:
    metrics = made()
    metrics.answered("infer", 200, 0.01)
    metrics.load(5, 5, 5)
    metrics.use_slot(0)
    found = samples(metrics)
    assert found["serving_requests_total", "infer", "200"] == 1
    assert found["serving_in_flight_requests",] == 0


def test_every_endpoint_is_known_with_every_unexpected_status() -> None:
    metrics = made()
    for endpoint in ENDPOINTS:
        metrics.counted(endpoint, 418)
    assert samples(metrics)["serving_requests_total", "other", "500"] == 1
