//! `web.yml`: the file that exporters and Prometheus take for TLS, users and headers, with bearer tokens beside them.
//!
//! Only what is written; what it asks for is built in the modules beside this one. Knows no socket and no request.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};

use super::Error;
use crate::human_duration;

/// Bytes that are read of any file: a bundle of a hundred certificates has 200 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Headers that may be added to answers.
const HEADERS: &[&str] = &[
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
];

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebFile {
    pub(super) tls_server_config: Option<TlsServer>,
    pub(super) http_server_config: Option<HttpServer>,
    /// Hashes of passwords by user.
    pub(super) basic_auth_users: Option<BTreeMap<String, Secret>>,
    pub(super) rate_limit: Option<RateLimit>,
    /// A file with one bearer token a line.
    pub(super) bearer_tokens_file: Option<PathBuf>,
}

/// The section `tls_server_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsServer {
    pub(super) cert: String,
    pub(super) key: Secret,
    pub(super) client_ca: String,
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    pub(super) client_ca_file: PathBuf,
    pub(super) client_auth_type: ClientAuth,
    pub(super) client_allowed_sans: Vec<String>,
    pub(super) min_version: Version,
    pub(super) max_version: Version,
    pub(super) cipher_suites: Vec<String>,
    pub(super) curve_preferences: Vec<String>,
    pub(super) prefer_server_cipher_suites: bool,
}

/// What is asked of a client's certificate, by Go's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    /// None is asked for.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// One is asked for, and taken whoever signed it.
    RequestClientCert,
    /// There has to be one, whoever signed it.
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    /// If there is one, our authority has to have signed it.
    VerifyClientCertIfGiven,
    /// There has to be one that our authority signed.
    RequireAndVerifyClientCert,
}

/// A version of TLS. Older ones are named in the files of others, and are no longer spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Version {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// The section `http_server_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpServer {
    pub(super) http2: bool,
    pub(super) headers: Option<BTreeMap<String, String>>,
}

/// The section `rate_limit`: a bucket for all clients together.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateLimit {
    /// Time between two requests; zero for no limit.
    #[serde(deserialize_with = "interval")]
    pub(super) interval: Duration,
    /// Requests that may come at once.
    pub(super) burst: u32,
}

/// Text that no message and no page shows.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(String);

// === impl WebFile ===

impl WebFile {
    /// Reads a file and holds it to its rules. Paths in it are from its own directory.
    ///
    /// # Errors
    /// Where it cannot be read, is no YAML, names a field that is none, or gives one a value that makes no sense.
    pub(super) fn load(file: &Path) -> Result<Self, Error> {
        let mut web = Self::parse(&read(file)?).map_err(|what| Error::Content { file: file.into(), what })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        let tls = web.tls_server_config.as_mut();
        let paths =
            tls.into_iter().flat_map(|tls| [&mut tls.cert_file, &mut tls.key_file, &mut tls.client_ca_file]);
        for path in paths.chain(web.bearer_tokens_file.as_mut()) {
            if !path.as_os_str().is_empty() {
                *path = directory.join(&path);
            }
        }
        Ok(web)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The source is not shown: it holds hashes and keys.
        let options = serde_saphyr::options! { with_snippet: false };
        let web: Option<Self> = serde_saphyr::from_slice_with_options(bytes, options)
            .map_err(|error| error.to_string().replace('\n', " "))?;
        let web = web.unwrap_or_default();
        if let Some(RateLimit { interval, burst: 0 }) = web.rate_limit
            && interval > Duration::ZERO
        {
            return Err("rate_limit.burst: 0 would let no request through; write 1 or more".to_owned());
        }
        web.headers()?;
        Ok(web)
    }

    /// Every file whose change is a change of what this one says.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls_server_config.as_ref();
        let paths = tls.into_iter().flat_map(|tls| [&tls.cert_file, &tls.key_file, &tls.client_ca_file]);
        paths.chain(&self.bearer_tokens_file).filter(|path| !path.as_os_str().is_empty()).cloned().collect()
    }

    /// The headers that every answer has.
    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let written = self.http_server_config.as_ref().and_then(|http| http.headers.as_ref());
        let mut headers = Vec::new();
        for (name, value) in written.into_iter().flatten() {
            let place = || format!("http_server_config.headers.{}", name.escape_debug());
            if !HEADERS.contains(&name.as_str()) {
                return Err(format!("{}: is none of {}", place(), HEADERS.join(", ")));
            }
            let allowed: &[&str] = match name.as_str() {
                "X-Frame-Options" => &["deny", "sameorigin"],
                "X-Content-Type-Options" => &["nosniff"],
                _ => &[],
            };
            if value.is_empty() {
                continue;
            }
            if !allowed.is_empty() && !allowed.contains(&value.to_ascii_lowercase().as_str()) {
                return Err(format!("{}: may be {}", place(), allowed.join(" or ")));
            }
            let (Ok(name), Ok(value)) = (name.parse(), value.parse()) else {
                return Err(format!("{}: no header can have this value", place()));
            };
            headers.push((name, value));
        }
        Ok(headers)
    }
}

// === impl TlsServer ===

impl Default for TlsServer {
    fn default() -> Self {
        Self {
            cert: String::new(),
            key: Secret::default(),
            client_ca: String::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            client_auth_type: ClientAuth::default(),
            client_allowed_sans: Vec::new(),
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            prefer_server_cipher_suites: true,
        }
    }
}

impl TlsServer {
    /// Whether TLS is asked for at all: an empty section asks for nothing.
    pub(super) fn is_on(&self) -> bool {
        let paths = [&self.cert_file, &self.key_file, &self.client_ca_file];
        let texts = [self.cert.as_str(), self.key.reveal(), self.client_ca.as_str()];
        paths.iter().any(|path| !path.as_os_str().is_empty())
            || texts.iter().any(|text| !text.is_empty())
            || self.client_auth_type != ClientAuth::NoClientCert
    }
}

// === impl HttpServer ===

impl Default for HttpServer {
    fn default() -> Self {
        Self { http2: true, headers: None }
    }
}

// === impl Secret ===

impl Secret {
    /// The text, for whoever has a use for it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// The contents of a file that is not absurdly large.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        let opened = fs::File::open(file)?;
        if !opened.metadata()?.is_file() {
            return Err(io::Error::other("is no regular file"));
        }
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
            return Err(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| Error::Read { file: file.to_owned(), source })
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    human_duration::parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        WebFile::parse(text.as_bytes()).err().unwrap_or_else(|| panic!("taken: {text}"))
    }

    #[test]
    fn every_documented_field_is_known() {
        let text = "
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  cert: ''
  key: ''
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_ca: ''
  client_allowed_sans: [a.test, 10.0.0.1]
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers:
    Content-Security-Policy: default-src 'self'
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ''
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
rate_limit:
  interval: \"1s\"
  burst: 20
bearer_tokens_file: tokens
";
        let web = WebFile::parse(text.as_bytes()).unwrap();
        let tls = web.tls_server_config.as_ref().unwrap();
        assert_eq!(tls.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
        assert!(!tls.prefer_server_cipher_suites && tls.min_version == Version::Tls13);
        assert_eq!(web.headers().unwrap().len(), 4, "an empty one is left out");
        assert_eq!(web.rate_limit.map(|limit| (limit.interval.as_secs(), limit.burst)), Some((1, 20)));
        assert_eq!(web.files().len(), 4);
    }

    #[test]
    fn nothing_is_a_file_too() {
        for text in ["", "# nothing\n", "tls_server_config:\n", "tls_server_config: {}\nbasic_auth_users:\n"]
        {
            let web = WebFile::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(!web.tls_server_config.is_some_and(|tls| tls.is_on()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("tls_server_confg: {}", "tls_server_confg"),
            ("tls_server_config: {cert_fil: x}", "cert_fil"),
            ("http_server_config: {http3: true}", "http3"),
            ("rate_limit: {bursts: 1}", "bursts"),
            ("rate_limit: {interval: 1s}", "burst"),
            ("tls_server_config: {min_version: TLS10}", "TLS10"),
            ("tls_server_config: {client_auth_type: Maybe}", "Maybe"),
            ("http_server_config: {headers: {X-Mine: a}}", "X-Mine"),
            ("http_server_config: {headers: {X-Frame-Options: allow}}", "X-Frame-Options"),
            ("basic_auth_users: {a: b, a: c}", "a"),
            ("[", ""),
        ] {
            let error = refused(text);
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_message_shows_no_secret() {
        let error = refused("basic_auth_users:\n  alice: hidden-hash\n  alice: hidden-hash\n");
        assert!(!error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_bomb_of_anchors_is_refused() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (name, last) in ('b'..='k').zip('a'..='j') {
            text += &format!(
                "{name}: &{name} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
            );
        }
        let begun = std::time::Instant::now();
        refused(&text);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
