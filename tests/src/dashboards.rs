//! What dashboards ask of [`crate::datagen`]'s series: the queries that benchmarks have in common.

/// Ten usual queries, each with its name.
pub const USUAL: [(&str, &str); 10] = [
    ("sum by, rate: 1,800 series", "sum by (namespace) (rate(container_network_receive_bytes_total[5m]))"),
    (
        "histogram_quantile: 8,400 series",
        "histogram_quantile(0.99, sum by (le, namespace) (rate(ebpf_http_request_duration_seconds_bucket[5m])))",
    ),
    ("topk of rates: 1,200 series", "topk(10, rate(container_cpu_usage_seconds_total[5m]))"),
    (
        "join on an owner's labels",
        "sum by (pod) (container_memory_working_set_bytes) * on (pod) group_left (node) \
         max by (pod, node) (container_open_fds)",
    ),
    (
        "ratio of two sums",
        "sum by (namespace) (rate(ebpf_tcp_retransmits_total[5m])) / \
         sum by (namespace) (rate(container_network_transmit_packets_total[5m]))",
    ),
    ("avg_over_time: 800 series", "avg_over_time(ebpf_runqueue_latency_ratio[5m])"),
    ("max_over_time: 1,200 series", "max_over_time(container_memory_working_set_bytes[5m])"),
    ("regular expression", "container_memory_working_set_bytes{pod=~\"svc-1.*\"}"),
    ("count by: 1,000 series", "count by (namespace) (container_open_fds)"),
    ("absent", "absent(container_open_fds{namespace=\"none\"})"),
];
