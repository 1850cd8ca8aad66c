//! Thanos' messages, as far as this store says and hears them: `thanos.{Store,info.Info}`.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SeriesRequest {
    #[prost(int64, tag = "1")]
    pub(super) min_time: i64,
    #[prost(int64, tag = "2")]
    pub(super) max_time: i64,
    #[prost(message, repeated, tag = "3")]
    pub(super) matchers: Vec<LabelMatcher>,
    #[prost(bool, tag = "8")]
    pub(super) skip_chunks: bool,
    #[prost(string, repeated, tag = "14")]
    pub(super) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "15")]
    pub(super) limit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelNamesRequest {
    #[prost(int64, tag = "3")]
    pub(super) start: i64,
    #[prost(int64, tag = "4")]
    pub(super) end: i64,
    #[prost(message, repeated, tag = "6")]
    pub(super) matchers: Vec<LabelMatcher>,
    #[prost(string, repeated, tag = "7")]
    pub(super) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "8")]
    pub(super) limit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelValuesRequest {
    #[prost(string, tag = "1")]
    pub(super) label: String,
    #[prost(int64, tag = "4")]
    pub(super) start: i64,
    #[prost(int64, tag = "5")]
    pub(super) end: i64,
    #[prost(message, repeated, tag = "7")]
    pub(super) matchers: Vec<LabelMatcher>,
    #[prost(string, repeated, tag = "8")]
    pub(super) without_replica_labels: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(super) limit: i64,
}

/// `LabelNamesResponse` and `LabelValuesResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(super) texts: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelMatcher {
    /// `=`, `!=`, `=~`, `!~`.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) value: String,
}

/// A `oneof` of which one is said.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SeriesResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) series: Option<Series>,
    #[prost(string, optional, tag = "2")]
    pub(super) warning: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Series {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) chunks: Vec<AggrChunk>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AggrChunk {
    #[prost(int64, tag = "1")]
    pub(super) min_time: i64,
    #[prost(int64, tag = "2")]
    pub(super) max_time: i64,
    #[prost(message, optional, tag = "3")]
    pub(super) raw: Option<Chunk>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Chunk {
    /// XOR, histogram, float histogram.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) label_sets: Vec<LabelSet>,
    #[prost(string, tag = "2")]
    pub(super) component_type: String,
    #[prost(message, optional, tag = "3")]
    pub(super) store: Option<StoreInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelSet {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoreInfo {
    #[prost(int64, tag = "1")]
    pub(super) min_time: i64,
    #[prost(int64, tag = "2")]
    pub(super) max_time: i64,
    #[prost(bool, tag = "5")]
    pub(super) supports_without_replica_labels: bool,
    #[prost(message, repeated, tag = "6")]
    pub(super) tsdb_infos: Vec<TsdbInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TsdbInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) labels: Option<LabelSet>,
    #[prost(int64, tag = "2")]
    pub(super) min_time: i64,
    #[prost(int64, tag = "3")]
    pub(super) max_time: i64,
}
