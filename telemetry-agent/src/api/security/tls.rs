//! The TLS side of `web.yml`: certificates, versions, suites, and what is asked of clients.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::Error;
use super::client_cert::{AnyCertificate, NamedCertificate};
use super::web_file::{ClientAuth, TlsServer, Version, read};

/// TLS as a connection is accepted with, and what it was made from.
pub(in crate::api) struct Tls {
    pub(in crate::api) config: Arc<ServerConfig>,
    /// The same for ports that speak HTTP/2 alone.
    pub(in crate::api) http2_only: Arc<ServerConfig>,
    /// Whether no client without a certificate of our authority comes through.
    pub(super) authenticates: bool,
}

// === impl Tls ===

impl Tls {
    /// Builds it, and reads the files that it names. `http2` says whether HTTP/2 is offered.
    pub(super) fn new(file: &Path, written: &TlsServer, http2: bool) -> Result<Self, Error> {
        let wrong = |what: String| Error::Content { file: file.into(), what };
        let cert = pem(&written.cert_file, &written.cert, "cert").map_err(|error| error.at(file))?;
        let key = pem(&written.key_file, written.key.reveal(), "key").map_err(|error| error.at(file))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(format!("tls_server_config.cert: {error}")))?;
        if chain.is_empty() {
            return Err(wrong("tls_server_config.cert: holds no certificate in PEM".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| wrong(format!("tls_server_config.key: {error}")))?;
        let provider = Arc::new(provider(written).map_err(wrong)?);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(written).map_err(wrong)?)
            .map_err(|error| wrong(format!("tls_server_config: {error}")))?
            .with_client_cert_verifier(verifier(file, written, &provider)?)
            .with_single_cert(chain, key)
            .map_err(|error| wrong(format!("tls_server_config: certificate and key: {error}")))?;
        config.ignore_client_order = written.prefer_server_cipher_suites;
        config.alpn_protocols = match http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        let mut http2_only = config.clone();
        http2_only.alpn_protocols = vec![b"h2".to_vec()];
        let authenticates = written.client_auth_type == ClientAuth::RequireAndVerifyClientCert;
        Ok(Self { config: Arc::new(config), http2_only: Arc::new(http2_only), authenticates })
    }
}

/// A part that is missing, or a file of it that cannot be read.
enum Missing {
    Field(String),
    File(Error),
}

// === impl Missing ===

impl Missing {
    fn at(self, file: &Path) -> Error {
        match self {
            Self::Field(what) => Error::Content { file: file.into(), what },
            Self::File(error) => error,
        }
    }
}

/// The PEM of a field that may be a file or be written in place.
fn pem(path: &Path, text: &str, field: &str) -> Result<Vec<u8>, Missing> {
    match (path.as_os_str().is_empty(), text.is_empty()) {
        (false, false) => Err(Missing::Field(format!(
            "tls_server_config: {field} and {field}_file are both there; write one of them"
        ))),
        (false, true) => read(path).map_err(Missing::File),
        (true, false) => Ok(text.as_bytes().to_vec()),
        (true, true) => Err(Missing::Field(format!(
            "tls_server_config: {field}_file is missing; name one, or write {field}"
        ))),
    }
}

fn versions(written: &TlsServer) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let allowed: Vec<_> = [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (written.min_version..=written.max_version).contains(version))
        .map(|(_, version)| version)
        .collect();
    if allowed.is_empty() {
        return Err("tls_server_config: min_version is above max_version".to_owned());
    }
    Ok(allowed)
}

/// Suites and curves: those that are named, in their order, or all.
fn provider(written: &TlsServer) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if !written.cipher_suites.is_empty() {
        let name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
        // As in Go, those of TLS 1.3 are no choice and stay.
        let (fixed, known): (Vec<_>, Vec<_>) =
            provider.cipher_suites.iter().copied().partition(|suite| suite.tls13().is_some());
        let mut chosen = Vec::new();
        for wanted in &written.cipher_suites {
            if fixed.iter().any(|suite| name(suite).replacen("TLS13_", "TLS_", 1) == *wanted) {
                continue;
            }
            let suite = known.iter().find(|suite| name(suite) == *wanted).ok_or_else(|| {
                let known = known.iter().map(name).collect::<Vec<_>>().join(", ");
                format!("tls_server_config.cipher_suites: {wanted:?} is none of {known}")
            })?;
            chosen.push(*suite);
        }
        provider.cipher_suites = fixed.into_iter().chain(chosen).collect();
    }
    if !written.curve_preferences.is_empty() {
        provider.kx_groups =
            written.curve_preferences.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    match name {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        _ => Err(format!(
            "tls_server_config.curve_preferences: {name:?} is none of X25519, CurveP256, CurveP384"
        )),
    }
}

/// What a client's certificate is held to.
fn verifier(
    file: &Path,
    written: &TlsServer,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let wrong = |what: &str| Error::Content { file: file.into(), what: format!("tls_server_config: {what}") };
    let auth = written.client_auth_type;
    let has_authority = !written.client_ca.is_empty() || !written.client_ca_file.as_os_str().is_empty();
    let authority = || -> Result<Arc<RootCertStore>, Error> {
        let bytes =
            pem(&written.client_ca_file, &written.client_ca, "client_ca").map_err(|error| error.at(file))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|error| wrong(&format!("client_ca: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(&format!("client_ca: {error}")))?;
        }
        if roots.is_empty() {
            return Err(wrong("client_ca: holds no certificate in PEM"));
        }
        Ok(Arc::new(roots))
    };
    let signed = |is_optional: bool| -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(authority()?, Arc::clone(provider));
        let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| wrong(&format!("client_ca: {error}")))
    };
    let checked: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::NoClientCert if has_authority => {
            return Err(wrong(
                "client_ca is there and client_auth_type is not; write RequireAndVerifyClientCert",
            ));
        }
        ClientAuth::NoClientCert => WebPkiClientVerifier::no_client_auth(),
        ClientAuth::RequestClientCert => AnyCertificate::verifier(provider, false),
        ClientAuth::RequireAnyClientCert => AnyCertificate::verifier(provider, true),
        ClientAuth::VerifyClientCertIfGiven => signed(true)?,
        ClientAuth::RequireAndVerifyClientCert => signed(false)?,
    };
    if written.client_allowed_sans.is_empty() {
        return Ok(checked);
    }
    match auth {
        ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert => {
            Ok(NamedCertificate::verifier(checked, written.client_allowed_sans.clone()))
        }
        _ => Err(wrong(
            "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert or RequireAnyClientCert",
        )),
    }
}
