"""Pushes over TLS with a token, as OpenTelemetry's SDK and gRPC's own library do it; and without one."""

import json
import ssl
import sys
import urllib.request

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

base, otlp, thanos, ca, token = sys.argv[1:6]
authority = open(ca, "rb").read()
credentials = grpc.ssl_channel_credentials(authority)
bearer = {"authorization": f"Bearer {token}"}


def push(job, exporter):
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)
    provider = MeterProvider([reader], Resource({"service.name": job}))
    provider.get_meter("test").create_counter("pushed").add(42)
    assert provider.force_flush(), job


push("http", Http(f"{base}/v1/metrics", certificate_file=ca, headers=bearer))
push("grpc", Grpc(otlp, credentials=credentials, headers=bearer))
request = urllib.request.Request(f"{base}/api/v1/query?query=pushed_total", headers=bearer)
with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ca)) as answer:
    found = {series["metric"]["job"]: series["value"][1] for series in json.load(answer)["data"]["result"]}
assert found == {"http": "42", "grpc": "42"}, found

METHODS = (
    (otlp, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
    (thanos, "/thanos.info.Info/Info"),
)
WRONG = [None, [("authorization", "Bearer a guess of somebody")], [("authorization", "Basic !")]]
for address, method in METHODS:
    with grpc.secure_channel(address, credentials) as channel:
        call = channel.unary_unary(method)
        call(b"", timeout=5, metadata=list(bearer.items()))
        for metadata in WRONG:
            try:
                call(b"", timeout=5, metadata=metadata)
                raise AssertionError(f"{method} was answered for {metadata}")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=5, metadata=list(bearer.items()))
            raise AssertionError(f"{method} was answered in clear text")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
print("only with a token")
