//! How a command reaches an agent that asks who it is: TLS, a user or a token, a certificate.
//!
//! Secrets come from files: what stands on a command line is read by every process of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderValue, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::sysexits;

/// Authorities that are trusted for `https` unless others are named: where distributions keep them.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Who asks, and whom it trusts.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// Trust the authorities in this PEM file. [default: /etc/ssl/certs/ca-certificates.crt]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Show this certificate, PEM, to the agent.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Ask as this user.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The user's password; a line break at the end is none of it.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Ask with the bearer token in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    token_file: Option<PathBuf>,
}

/// An agent, and who asks it.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// The agent.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9632")]
    pub(super) url: Uri,
    #[command(flatten)]
    pub(super) access: Access,
}

/// A connection, in clear text or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

// === impl Access ===

impl Access {
    /// What a request says of who asks; none if it says nothing.
    ///
    /// # Errors
    /// Where a file cannot be read, or holds what no header can say.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, (u8, String)> {
        let secret = |file: &Path| {
            let text = String::from_utf8(read(file)?).map_err(|_| wrong(file, &"is not UTF-8"))?;
            Ok::<_, (u8, String)>(text.trim_end_matches(['\r', '\n']).to_owned())
        };
        let (said, file) = match (&self.user, &self.password_file, &self.token_file) {
            (Some(user), Some(file), _) => {
                (format!("Basic {}", STANDARD.encode(format!("{user}:{}", secret(file)?))), file)
            }
            (_, _, Some(file)) => (format!("Bearer {}", secret(file)?.trim()), file),
            _ => return Ok(None),
        };
        let mut value = HeaderValue::try_from(said).map_err(|_| wrong(file, &"holds no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// TLS as the address asks for it; none for `http`.
    ///
    /// # Errors
    /// For other schemes, and where a file cannot be read or holds no PEM.
    pub(super) fn tls(&self, url: &Uri) -> Result<Option<(TlsConnector, ServerName<'static>)>, (u8, String)> {
        match url.scheme_str() {
            Some("http") => return Ok(None),
            Some("https") => {}
            _ => return Err((sysexits::USAGE, format!("--url {url}: only http:// and https:// are spoken"))),
        }
        let authorities = self.ca_file.as_deref().unwrap_or(Path::new(SYSTEM_AUTHORITIES));
        let mut roots = RootCertStore::empty();
        // Of a system's hundred some may be in a form that is not known.
        roots.add_parsable_certificates(certificates(authorities)?);
        if roots.is_empty() {
            return Err(wrong(authorities, &"holds no certificate; name another with --ca-file"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| (sysexits::OS_ERROR, error.to_string()))?
            .with_root_certificates(roots);
        let config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let key_bytes = read(key)?;
                let key_der =
                    PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| wrong(key, &error))?;
                trusting.with_client_auth_cert(chain, key_der).map_err(|error| wrong(cert, &error))?
            }
            _ => trusting.with_no_client_auth(),
        };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| (sysexits::USAGE, format!("--url {url}: no certificate can name this host")))?;
        Ok(Some((TlsConnector::from(Arc::new(config)), name)))
    }
}

/// A socket to the host of an address, with TLS if it has to be.
pub(super) async fn connect(
    url: &Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> std::io::Result<Box<dyn Socket>> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    match tls {
        None => Ok(Box::new(stream)),
        Some((connector, name)) => Ok(Box::new(connector.connect(name, stream).await?)),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, (u8, String)> {
    CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(file, &error))
}

fn read(file: &Path) -> Result<Vec<u8>, (u8, String)> {
    fs::read(file).map_err(|error| (sysexits::NO_INPUT, format!("{}: {error}", file.display())))
}

fn wrong(file: &Path, what: &dyn std::fmt::Display) -> (u8, String) {
    (sysexits::DATA_ERROR, format!("{}: {what}", file.display()))
}
