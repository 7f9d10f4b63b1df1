"""Receives OTLP over HTTP, decodes it with OpenTelemetry's own messages, and prints what came as
one JSON object a line. The first line is the port. Ends with its standard input.

With the argument `hang` it takes requests and never answers; with a number, it answers that status.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
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


SERVICES = {
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
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
