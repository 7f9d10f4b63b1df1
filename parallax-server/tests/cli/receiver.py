"""Receives OTLP over HTTP, decodes it with OpenTelemetry's own messages, and prints what came as
one JSON object a line. The first line is the port. Ends with its standard input.

With the argument `hang` it takes requests and never answers; with a number, it answers that status.
With two more, a certificate and its key, it speaks TLS.
"""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

ANSWER = sys.argv[1] if len(sys.argv) > 1 else "200"
PRINTING = threading.Lock()


def tell(what):
    with PRINTING:
        print(json.dumps(what), flush=True)


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def spans(body):
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {
                    "span": span.name,
                    "resource": attributes(resource.resource.attributes),
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "status": span.status.code,
                    "events": len(span.events),
                    "took": span.end_time_unix_nano >= span.start_time_unix_nano > 0,
                    "attributes": attributes(span.attributes),
                }


def logs(body):
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for log in scope.log_records:
                yield {
                    "log": value(log.body),
                    "resource": attributes(resource.resource.attributes),
                    "severity": log.severity_text,
                    "trace_id": log.trace_id.hex(),
                    "span_id": log.span_id.hex(),
                    "attributes": attributes(log.attributes),
                }


def metrics(body):
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                yield {
                    "metric": metric.name,
                    "scope": scope.scope.name,
                    "resource": attributes(resource.resource.attributes),
                    "help": metric.description,
                    "unit": metric.unit,
                    "kind": metric.WhichOneof("data"),
                    "cumulative": getattr(data, "aggregation_temporality", None) == 2,
                    "monotonic": getattr(data, "is_monotonic", None),
                    "points": [point(p) for p in data.data_points],
                }


def point(p):
    told = {"attributes": attributes(p.attributes), "start": p.start_time_unix_nano > 0}
    assert p.time_unix_nano >= p.start_time_unix_nano
    if hasattr(p, "bucket_counts"):
        assert len(p.bucket_counts) == len(p.explicit_bounds) + 1
        assert sum(p.bucket_counts) == p.count
        told |= {"count": p.count, "sum": p.sum, "buckets": list(p.bucket_counts)}
        told["bounds"] = list(p.explicit_bounds)
    else:
        told["value"] = getattr(p, p.WhichOneof("value"))
    return told


SERVICES = {
    "/v1/metrics": (metrics, ExportMetricsServiceResponse),
    "/v1/traces": (spans, ExportTraceServiceResponse),
    "/v1/logs": (logs, ExportLogsServiceResponse),
}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if ANSWER == "hang":
            tell({"request": self.path})
            threading.Event().wait()
        if ANSWER != "200":
            tell({"request": self.path})
            self.send_error(int(ANSWER))
            return
        decode, response = SERVICES[self.path]
        assert self.headers["Content-Type"] == "application/x-protobuf"
        for what in decode(body):
            tell(what)
        answer = response().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
