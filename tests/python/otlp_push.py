"""Pushes every kind of point with OpenTelemetry's SDK, by every way there is, and asks the agent for each value."""

import gzip
import json
import sys
import time
import urllib.parse
import urllib.request

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

base, grpc_address = sys.argv[1:3]
DELTA = {kind: AggregationTemporality.DELTA for kind in (Counter, Histogram, UpDownCounter)}
TRACE, SPAN = 0x0102030405060708090A0B0C0D0E0F10, 0x0102030405060708


def ask(path, **parameters):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)["data"]


def values(query):
    """Labels without the name, and the value, of every series."""
    found = {}
    for series in ask("query", query=query)["result"]:
        labels = {name: value for name, value in series["metric"].items() if name not in ("__name__", "job", "instance")}
        value = series["histogram"][1] if "histogram" in series else float(series["value"][1])
        found[tuple(sorted(labels.items()))] = value
    return found


def equal(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"


def way(name, exporter):
    resource = Resource({"service.name": name, "service.namespace": "eu", "service.instance.id": "7", "host.name": "n1"})
    view = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)
    provider = MeterProvider([reader], resource, AlwaysOnExemplarFilter(), views=[view])
    meter = provider.get_meter("test")
    requests = meter.create_counter("http.requests", unit="{request}", description="All of them.")
    queue = meter.create_up_down_counter("queue")
    heat = meter.create_gauge("heat", unit="Cel")
    load = meter.create_gauge("load", unit="1")
    latency = meter.create_histogram("latency", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1, 10])
    size = meter.create_histogram("size", unit="By")
    for step in range(2):
        # Half of everything in each push.
        requests.add(5 + 2 * step, {"code": "200", "a.b": True})
        queue.add((3, -5)[step])
        heat.set((10, 21.5)[step])
        load.set(0.25)
        context = trace.SpanContext(TRACE, SPAN, False)
        with trace.use_span(trace.NonRecordingSpan(context)):
            for value in ((0.05, 0.5), (0.5, 20))[step]:
                latency.record(value)
        for value in ((0, 1, 2), (3, 1000))[step]:
            size.record(value)
        assert provider.force_flush(), name
        time.sleep(0.05)
    who = f'{{job="eu/{name}",instance="7"}}'
    equal(name, values("http_requests_total" + who), {(("a_b", "true"), ("code", "200")): 12})
    equal(name, values("queue" + who), {(): -2})
    equal(name, values("heat_celsius" + who), {(): 21.5})
    equal(name, values("load_ratio" + who), {(): 0.25})
    buckets = {(("le", le),): count for le, count in (("0.1", 1), ("1", 3), ("10", 3), ("+Inf", 4))}
    equal(name, values("latency_seconds_bucket" + who), buckets)
    equal(name, values("latency_seconds_count" + who), {(): 4})
    equal(name, values("latency_seconds_sum" + who), {(): 21.05})
    equal(name, {key: 1 for key in values("target_info" + who)}, {(("host_name", "n1"),): 1})
    equal(name, ask("metadata", metric="http_requests_total")["http_requests_total"][0]["help"], "All of them.")
    native = values("size_bytes" + who)[()]
    equal(name, (native["count"], native["sum"]), ("5", "1006"))
    held = {observed: 0 for observed in (0, 1, 2, 3, 1000)}
    for _, low, high, count in native["buckets"]:
        inside = [o for o in held if float(low) < o <= float(high) or o == 0 and float(low) < 0 < float(high)]
        equal(f"{name} {low} {high}", int(count), len(inside))
        held.update({o: held[o] + 1 for o in inside})
    assert all(count == 1 for count in held.values()), f"{name}: {held}"
    found = ask("query_exemplars", query="latency_seconds_bucket" + who, start=time.time() - 60, end=time.time() + 60)
    exemplars = [exemplar for series in found for exemplar in series["exemplars"]]
    assert exemplars, f"{name}: no exemplars"
    for exemplar in exemplars:
        equal(name, exemplar["labels"], {"trace_id": f"{TRACE:032x}", "span_id": f"{SPAN:016x}"})
        assert float(exemplar["value"]) in (0.05, 0.5, 20), exemplar


def message(job):
    """What the SDK does not make: a summary, an ended series, a series of no temporality."""
    now = time.time_ns()
    quantile = metrics_pb2.SummaryDataPoint.ValueAtQuantile(quantile=0.99, value=2.5)
    summary = metrics_pb2.SummaryDataPoint(time_unix_nano=now, count=4, sum=10, quantile_values=[quantile])
    point = metrics_pb2.NumberDataPoint(time_unix_nano=now, as_int=1)
    ended = metrics_pb2.NumberDataPoint(time_unix_nano=now, flags=1)
    metrics = [
        metrics_pb2.Metric(name="wait", unit="ms", summary=metrics_pb2.Summary(data_points=[summary])),
        metrics_pb2.Metric(name="ended", gauge=metrics_pb2.Gauge(data_points=[ended])),
        metrics_pb2.Metric(name="unsaid", sum=metrics_pb2.Sum(data_points=[point])),
    ]
    service = KeyValue(key="service.name", value=AnyValue(string_value=job))
    resource = metrics_pb2.ResourceMetrics(
        resource=ResourceMessage(attributes=[service]),
        scope_metrics=[metrics_pb2.ScopeMetrics(metrics=metrics)],
    )
    return metrics_service_pb2.ExportMetricsServiceRequest(resource_metrics=[resource])


def raw(job, answer):
    equal(job, answer.partial_success.rejected_data_points, 1)
    assert "unsaid" in answer.partial_success.error_message, answer
    who = f'{{job="{job}"}}'
    equal(job, values("wait_milliseconds" + who), {(("quantile", "0.99"),): 2.5})
    equal(job, values("wait_milliseconds_sum" + who), {(): 10})
    equal(job, values("wait_milliseconds_count" + who), {(): 4})
    equal(job, values("ended" + who), {})


url = f"{base}/v1/metrics"
prometheus_url = f"{base}/api/v1/otlp/v1/metrics"
WAYS = {
    "http": Http(url),
    "http-gzip": Http(prometheus_url, compression=Compression.Gzip),
    "http-delta": Http(url, preferred_temporality=DELTA),
    "grpc": Grpc(grpc_address, insecure=True),
    "grpc-gzip": Grpc(grpc_address, insecure=True, compression=grpc.Compression.Gzip),
    "grpc-delta": Grpc(grpc_address, insecure=True, preferred_temporality=DELTA),
}
for name, exporter in WAYS.items():
    way(name, exporter)

headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
body = gzip.compress(message("raw-http").SerializeToString())
with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
    raw("raw-http", metrics_service_pb2.ExportMetricsServiceResponse.FromString(response.read()))
with grpc.insecure_channel(grpc_address) as channel:
    export = metrics_service_pb2_grpc.MetricsServiceStub(channel).Export
    raw("raw-grpc", export(message("raw-grpc"), timeout=5))
    # What inflates to more than is read.
    bomb = message("x" * (20 << 20))
    try:
        export(bomb, timeout=10, compression=grpc.Compression.Gzip)
        raise AssertionError("a bomb was taken")
    except grpc.RpcError as error:
        equal("bomb", error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
    unknown = channel.unary_unary("/a.B/C", bytes, bytes)
    try:
        unknown(b"", timeout=5)
        raise AssertionError("an unknown method was answered")
    except grpc.RpcError as error:
        equal("unknown", error.code(), grpc.StatusCode.UNIMPLEMENTED)
print("all", len(WAYS), "ways")
