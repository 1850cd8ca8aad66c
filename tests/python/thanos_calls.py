"""Calls every method of Thanos' StoreAPI and Info, and reads Prometheus' chunks bit by bit beside the agent's own answers."""

import json
import struct
import sys
import time
import urllib.parse
import urllib.request

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

base, address = sys.argv[1:3]
INT, BOOL, STRING, MESSAGE, BYTES = 3, 8, 9, 11, 12

# The messages of thanos.io's rpc.proto as far as they are said here: name, number, type, whether it is a list.
MESSAGES = {
    "Label": [("name", 1, STRING, 0), ("value", 2, STRING, 0)],
    "LabelSet": [("labels", 1, "Label", 1)],
    "Matcher": [("type", 1, INT, 0), ("name", 2, STRING, 0), ("value", 3, STRING, 0)],
    "Chunk": [("type", 1, INT, 0), ("data", 2, BYTES, 0)],
    "AggrChunk": [("min_time", 1, INT, 0), ("max_time", 2, INT, 0), ("raw", 3, "Chunk", 0)],
    "Series": [("labels", 1, "Label", 1), ("chunks", 2, "AggrChunk", 1)],
    "SeriesRequest": [
        ("min_time", 1, INT, 0),
        ("max_time", 2, INT, 0),
        ("matchers", 3, "Matcher", 1),
        ("skip_chunks", 8, BOOL, 0),
        ("without_replica_labels", 14, STRING, 1),
        ("limit", 15, INT, 0),
    ],
    "SeriesResponse": [("series", 1, "Series", 0)],
    "NamesRequest": [("start", 3, INT, 0), ("end", 4, INT, 0), ("matchers", 6, "Matcher", 1), ("limit", 8, INT, 0)],
    "ValuesRequest": [("label", 1, STRING, 0), ("start", 4, INT, 0), ("end", 5, INT, 0), ("matchers", 7, "Matcher", 1)],
    "Texts": [("texts", 1, STRING, 1)],
    "Empty": [],
    "StoreInfo": [("min_time", 1, INT, 0), ("max_time", 2, INT, 0), ("supports_without_replica_labels", 5, BOOL, 0)],
    "InfoResponse": [("label_sets", 1, "LabelSet", 1), ("component_type", 2, STRING, 0), ("store", 3, "StoreInfo", 0)],
}


def types():
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_list in fields:
            made = message.field.add(name=field, number=number, label=3 if is_list else 1)
            made.type = MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                made.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in MESSAGES}


T = types()
channel = grpc.insecure_channel(address)


def method(kind, path, answer):
    return kind(path, lambda message: message.SerializeToString(), T[answer].FromString)


info = method(channel.unary_unary, "/thanos.info.Info/Info", "InfoResponse")
series = method(channel.unary_stream, "/thanos.Store/Series", "SeriesResponse")
names = method(channel.unary_unary, "/thanos.Store/LabelNames", "Texts")
values = method(channel.unary_unary, "/thanos.Store/LabelValues", "Texts")


class Bits:
    def __init__(self, data):
        self.bits = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def get(self, n):
        self.at += n
        assert self.at <= len(self.bits), "a chunk is cut off"
        return int(self.bits[self.at - n : self.at] or "0", 2)

    def ones(self, most):
        count = 0
        while count < most and self.get(1):
            count += 1
        return count

    def uvarint(self):
        value, shift = 0, 0
        while True:
            byte = self.get(8)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def xor(data):
    """Prometheus' XOR chunk, by its documentation."""
    bits, samples = Bits(data[2:]), []
    step, leading, trailing = 0, 0, 0
    for number in range(struct.unpack(">H", data[:2])[0]):
        if number == 0:
            zigzag = bits.uvarint()
            t, value = (zigzag >> 1) ^ -(zigzag & 1), bits.get(64)
        else:
            if number == 1:
                step = bits.uvarint()
            else:
                width = (0, 14, 17, 20, 64)[bits.ones(4)]
                change = bits.get(width) if width else 0
                step += change - (1 << width) if width and change > 1 << (width - 1) else change
            t += step
            mark = bits.ones(2)
            if mark == 2:
                leading = bits.get(5)
                trailing = 64 - leading - (bits.get(6) or 64)
            if mark:
                value ^= bits.get(64 - leading - trailing) << trailing
        samples.append((t, struct.unpack(">d", struct.pack(">Q", value))[0]))
    return samples


def equal(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"


def ask(query):
    with urllib.request.urlopen(f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': end / 1000})}") as answer:
        return json.load(answer)["data"]["result"]


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        return equal("code", error.code(), code)
    raise AssertionError(f"taken instead of {code}")


time.sleep(1.5)
end = int(time.time() * 1000) - 500
start = end - 60_000
name = lambda text, kind=0: T["Matcher"](type=kind, name="__name__", value=text)
said = info(T["Empty"]())
equal("labels", [(l.name, l.value) for l in said.label_sets[0].labels], [("cluster", "c1"), ("node", "n1")])
equal("component", (said.component_type, said.store.supports_without_replica_labels), ("sidecar", True))

found = list(series(T["SeriesRequest"](min_time=start, max_time=end, matchers=[name("telemetry_agent_.*", 2)])))
label_sets = [tuple((label.name, label.value) for label in answer.series.labels) for answer in found]
equal("order", label_sets, sorted(label_sets))
compared = 0
# A range's first moment is not in it.
theirs = {}
for one in ask('{__name__=~"telemetry_agent_.*"}[60001ms]'):
    theirs[frozenset(one["metric"].items())] = [(round(float(t) * 1000), float(v)) for t, v in one.get("values", [])]
for answer, labels in zip(found, label_sets):
    assert ("cluster", "c1") in labels and ("node", "n1") in labels, labels
    ours = [sample for chunk in answer.series.chunks if chunk.raw.type == 0 for sample in xor(chunk.raw.data)]
    own = frozenset(pair for pair in labels if pair not in (("cluster", "c1"), ("node", "n1")))
    ours = [(t, v) for t, v in ours if v == v]
    if own in theirs and ours:
        equal(labels, ours, [(t, v) for t, v in theirs[own] if v == v])
        compared += len(ours)
assert compared > 100, compared

request = T["SeriesRequest"](min_time=start, max_time=end, matchers=[name("telemetry_agent_.*", 2)], skip_chunks=True, limit=3)
equal("limit", [len(answer.series.chunks) for answer in series(request)], [0, 0, 0])
all_names = names(T["NamesRequest"](start=start, end=end)).texts
assert {"__name__", "cluster", "node"} <= set(all_names) and list(all_names) == sorted(all_names), all_names
ticks = T["ValuesRequest"](label="__name__", start=start, end=end, matchers=[name("telemetry_agent_ticks_total")])
equal("values", list(values(ticks).texts), ["telemetry_agent_ticks_total"])
equal("external", list(values(T["ValuesRequest"](label="node", start=start, end=end)).texts), ["n1"])
other = T["Matcher"](name="node", value="n2")
equal("other", list(series(T["SeriesRequest"](min_time=start, max_time=end, matchers=[name("up"), other]))), [])
refused(lambda: list(series(T["SeriesRequest"](min_time=start, max_time=end))), grpc.StatusCode.INVALID_ARGUMENT)
bad = T["SeriesRequest"](min_time=start, max_time=end, matchers=[name("(", 2)])
refused(lambda: list(series(bad)), grpc.StatusCode.INVALID_ARGUMENT)
unknown = channel.unary_unary("/thanos.Store/Nothing", bytes, bytes)
refused(lambda: unknown(b""), grpc.StatusCode.UNIMPLEMENTED)
print("all calls")
