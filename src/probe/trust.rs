//! Whose certificates the probe trusts.
//!
//! Owns how a session of TLS begins: with which server, and who vouches for it. Refuses to carry
//! bytes: `driver/tls.rs` does that.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Plain bytes that wait for the socket in one connection.
const MOST_BUFFERED_BYTES: usize = 16 << 10;

/// Which server is expected, and who vouches for it.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Those that the system trusts.
    System,
    /// Those in this file, in PEM.
    File(&'a Path),
    /// Every certificate: only the connection is encrypted.
    Anybody,
}

impl Tls {
    /// TLS 1.2 or 1.3 with a server of this name or IP address, which is also sent (SNI).
    ///
    /// # Errors
    ///
    /// One sentence when the name is none, or no root certificate can be read.
    pub fn new(name: &str, trust: Trust<'_>) -> Result<Self, String> {
        let plain = name.trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(plain.to_owned())
            .map_err(|_| format!("`{name}` is no name of a TLS server"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("cannot set up TLS: {error}"))?;
        let config = match trust {
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustsAnybody(provider)))
                .with_no_client_auth(),
            Trust::System => builder
                .with_root_certificates(system_roots()?)
                .with_no_client_auth(),
            Trust::File(file) => builder
                .with_root_certificates(roots_of(file)?)
                .with_no_client_auth(),
        };
        Ok(Self {
            config: Arc::new(config),
            name: server,
        })
    }

    /// A session that has not begun.
    pub(crate) fn session(&self) -> io::Result<ClientConnection> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut session = session.map_err(io::Error::other)?;
        session.set_buffer_limit(Some(MOST_BUFFERED_BYTES));
        Ok(session)
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this system trusts no certificates: install them, or name a file of your own".to_owned(),
        );
    }
    Ok(roots)
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let refuse = |why: &dyn fmt::Display| format!("cannot read certificates from {}: {why}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(&error))? {
        let certificate = certificate.map_err(|error| refuse(&error))?;
        roots.add(certificate).map_err(|error| refuse(&error))?;
    }
    if roots.is_empty() {
        return Err(refuse(&"there is none in PEM"));
    }
    Ok(roots)
}

/// Takes any certificate, but sees that the server has its key.
#[derive(Debug)]
struct TrustsAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
