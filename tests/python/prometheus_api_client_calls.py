"""Every public method of prometheus-api-client, of the version that is installed, and FLUIDOS' own calls.

    python prometheus_api_client_calls.py URL START END

The server has `memory{instance="a"|"b",job="test"}` every 15 s from START to END, seconds since 1970, whole numbers that
grow by one a step.
"""

import inspect
import sys
from datetime import datetime, timedelta
from urllib.parse import urlparse

import requests
from prometheus_api_client import PrometheusConnect

URL, START, END = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
FROM, TO = datetime.fromtimestamp(START), datetime.fromtimestamp(END)
STEPS = (END - START) // 15


def check(is_so, what):
    if not is_so:
        raise SystemExit(f"not so: {what!r}")


def values(series):
    return [float(value) for _, value in series["values"]]


def calls(prometheus, method):
    """Each call by the name of its method."""

    def current():
        found = prometheus.get_current_metric_value("memory", {"instance": "a"}, params={"time": END})
        check(len(found) == 1 and found[0]["metric"]["job"] == "test", found)
        check(float(found[0]["value"][1]) == STEPS, found)

    def ranged():
        # In pieces: a range selector of seconds in an instant query.
        found = prometheus.get_metric_range_data(
            "memory", {"instance": "a"}, FROM, TO, chunk_size=timedelta(seconds=300)
        )
        check(len(found) > 1, found)
        seen = sorted({(int(t), v) for piece in found for t, v in piece["values"]})
        check(len(seen) >= STEPS, (len(seen), STEPS))
        whole = prometheus.get_metric_range_data("memory", None, FROM, TO)
        check(len(whole) == 2 and len(whole[0]["values"]) >= STEPS, whole)

    def query_range():
        found = prometheus.custom_query_range("sum(memory)", FROM, TO, "15s")
        check(len(found) == 1 and len(found[0]["values"]) == STEPS + 1, found)
        same = prometheus.custom_query_range("sum(memory)", FROM, TO, "15")
        check(same == found, same)

    def aggregation():
        operations = ["sum", "max", "min", "variance", "deviation", "average", "percentile_50"]
        now = prometheus.get_metric_aggregation("memory", operations)
        check(len(now) == len(operations) and now["average"] == STEPS, now)
        over = prometheus.get_metric_aggregation("memory", operations, FROM, TO, "15")
        check(over["max"] == STEPS and over["min"] == 0, over)

    def series():
        found = prometheus.get_series(FROM, TO, params={"match[]": 'memory{job="test"}'})
        check(sorted(one["instance"] for one in found) == ["a", "b"], found)

    def metadata():
        found = prometheus.get_metric_metadata("telemetry_agent_ticks_total")
        check(any(one["type"] == "counter" and one["help"] for one in found), found)

    def custom():
        # A metric's name in quotation marks of either kind, and what the client sends along.
        found = prometheus.custom_query("count(memory{job='test'})", params={"time": END, "limit": 100})
        check(found[0]["value"][1] == "2", found)

    return {
        "check_prometheus_connection": lambda: check(prometheus.check_prometheus_connection(), "no connection"),
        "all_metrics": lambda: check("memory" in prometheus.all_metrics(), prometheus.all_metrics()),
        "get_label_names": lambda: check({"instance", "job"} <= set(prometheus.get_label_names()), "labels"),
        "get_label_values": lambda: check(prometheus.get_label_values("job") == ["test"], "job"),
        "get_current_metric_value": current,
        "get_metric_range_data": ranged,
        "custom_query": custom,
        "custom_query_range": query_range,
        "get_metric_aggregation": aggregation,
        "get_series": series,
        "get_metric_metadata": metadata,
        "get_targets": lambda: check("activeTargets" in prometheus.get_targets("active"), "targets"),
        "get_scrape_pools": lambda: check(prometheus.get_scrape_pools() == [], "pools"),
        "get_target_metadata": lambda: check(prometheus.get_target_metadata({"job": "x"}) == [], "metadata"),
        "close": lambda: None,
    }


def fluidos():
    """What FLUIDOS' components send, and how they read the answer."""
    base = URL + "/"
    headers = {"Content-Type": "application/json"}
    # The meta-orchestrator: one parameter, a JSON type without a body, and each sample an integer.
    for query in ['memory{instance="a"}[2m]', "memory[5]", 'fluidos_latency{cluster="D"}[2m]', "up[5]"]:
        answer = requests.get(f"{base}/api/v1/query", params={"query": query}, headers=headers, timeout=10)
        check(answer.status_code == 200 and answer.json()["status"] == "success", answer.text)
        for one in answer.json()["data"]["result"]:
            [int(value) for _, value in one["values"]]
    for query, status in [("memory[", 400), ('label_replace(memory, "a", "b", "c", "(")', 422)]:
        answer = requests.get(f"{base}/api/v1/query", params={"query": query}, headers=headers, timeout=10)
        check(answer.status_code == status and answer.json()["status"] == "error", answer.text)
    # Its older releases: times with a Z, minutes as a step, a limit.
    utc = [datetime.utcfromtimestamp(t).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (START, END)]
    params = {"query": "memory", "start": utc[0], "end": utc[1], "step": "2m", "limit": 100}
    answer = requests.get(f"{base}api/v1/query_range", params=params, headers=headers, timeout=10)
    check(len(answer.json()["data"]["result"]) == 2, answer.text)
    # The energy predictor: two weeks in steps of a quarter of an hour, results in one order with equal times.
    prometheus = PrometheusConnect(url=base, disable_ssl=True)
    ago = TO - timedelta(days=14)
    one = prometheus.custom_query_range("avg by (instance) (memory)", ago, TO, "15m")
    other = prometheus.custom_query_range("100 - avg by (instance) (memory)", ago, TO, "15m")
    check([s["metric"] for s in one] == [s["metric"] for s in other], (one, other))
    check([t for s in one for t, _ in s["values"]] == [t for s in other for t, _ in s["values"]], (one, other))


public = [
    name for name, _ in inspect.getmembers(PrometheusConnect, inspect.isfunction) if not name.startswith("_")
]
count = 0
for url in (URL, URL + "/"):
    for method in ("GET", "POST"):
        arguments = {"url": url, "disable_ssl": True}
        if "method" in inspect.signature(PrometheusConnect.__init__).parameters:
            arguments["method"] = method
        prometheus = PrometheusConnect(**arguments)
        known = calls(prometheus, method)
        for name in public:
            check(name in known, f"a method without a call: {name}")
            try:
                known[name]()
            except Exception as error:
                raise SystemExit(f"{method} {url} {name}: {error!r}") from error
            count += 1
fluidos()
print(f"{len(public)} methods, {count} calls")
