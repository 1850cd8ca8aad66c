//! A request as routes read it: parameters that are known or refused, and what its headers ask for.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;
use axum::http::request::Parts;

use super::problem::{Problem, Wrong};
use super::{Shared, time};
use crate::api::{Coding, routes};

/// Owners or events of one page.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Parameters of a request; no route knows more than nine.
const PARAMS_MAX: usize = 64;
/// Characters of a parameter: the longest that are meant are owners' ids.
const TEXT_MAX: usize = 1024;
/// Bytes of a position that a cursor may say.
const CURSOR_BYTES_MAX: usize = 1024;

/// A request.
pub(super) struct Ask {
    shared: Arc<Shared>,
    query: String,
    pub(super) headers: HeaderMap,
}

/// Its parameters; every one is known.
pub(super) struct Params(Vec<(String, String)>);

// === impl Ask ===

impl FromRequestParts<Arc<Shared>> for Ask {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Ok(Self { shared: Arc::clone(shared), query, headers: parts.headers.clone() })
    }
}

impl Ask {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The parameters, if each is one of `known` and there once.
    pub(super) fn params(&self, known: &[&str]) -> Result<Params, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut errors = Vec::new();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()).take(PARAMS_MAX) {
            let too_long = || value.chars().count() > if name == "cursor" { 2 } else { 1 } * TEXT_MAX;
            let detail = if !known.contains(&&*name) {
                "is no parameter of this address"
            } else if pairs.iter().any(|(other, _)| *other == name) {
                "is there twice"
            } else if too_long() {
                "is too long"
            } else {
                pairs.push((name.into_owned(), value.into_owned()));
                continue;
            };
            errors.push(Wrong { parameter: name.into_owned(), detail: detail.to_owned() });
        }
        if errors.is_empty() { Ok(Params(pairs)) } else { Err(Problem::wrong(errors)) }
    }

    /// The parameters as they came, with another cursor.
    pub(super) fn query_with_cursor(&self, cursor: &str) -> String {
        let pairs = form_urlencoded::parse(self.query.as_bytes()).filter(|(name, _)| name != "cursor");
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs).append_pair("cursor", cursor);
        query.finish()
    }

    /// How the client likes its answer to be compressed.
    pub(super) fn coding(&self) -> Coding {
        Coding::of(&self.headers)
    }

    /// Whether the client has what this tag stands for.
    pub(super) fn has(&self, tag: &str) -> bool {
        let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        routes::joined(&self.headers, &IF_NONE_MATCH)
            .is_some_and(|tags| tags.split(',').any(|each| each.trim() == "*" || bare(each) == bare(tag)))
    }
}

// === impl Params ===

impl Params {
    /// The value of a parameter, if it is there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// How many to answer with.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.text("limit") else { return Ok(LIMIT_DEFAULT) };
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| is_plain && (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| wrong("limit", format!("write a whole number from 1 to {LIMIT_MAX}")))
    }

    /// Words of a closed set, separated by commas; none: all.
    pub(super) fn words(
        &self,
        name: &str,
        all: &[&'static str],
    ) -> Result<Option<Vec<&'static str>>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let find = |word: &str| all.iter().copied().find(|each| *each == word);
        let words: Option<Vec<_>> = text.split(',').map(find).collect();
        words.map(Some).ok_or_else(|| wrong(name, format!("write one or more of {}", all.join(","))))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(wrong(name, "write true or false".to_owned())),
        }
    }

    /// A time, in milliseconds since 1970.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let remedy = "write RFC 3339, as 2026-11-25T20:15:00Z, or seconds since 1970";
        time::parse(text).map(Some).ok_or_else(|| wrong(name, remedy.to_owned()))
    }

    /// Where the last page ended: whatever bytes `cursor` says. Empty: at the beginning.
    pub(super) fn cursor(&self) -> Result<Vec<u8>, Problem> {
        let Some(text) = self.text("cursor") else { return Ok(Vec::new()) };
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(16 * digit(*high)? + digit(*low)?),
                _ => None,
            })
            .collect();
        let bytes = bytes.filter(|bytes| (1..=CURSOR_BYTES_MAX).contains(&bytes.len()));
        bytes.ok_or_else(|| wrong("cursor", "is none that an answer gave as next_cursor".to_owned()))
    }
}

/// A cursor of a position.
pub(super) fn cursor(position: &[u8]) -> String {
    position.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// One parameter that cannot be used.
pub(super) fn wrong(parameter: &str, detail: String) -> Problem {
    Problem::wrong(vec![Wrong { parameter: parameter.to_owned(), detail }])
}
