//! TLS between a client of the probe and the server.
//!
//! Owns which certificates are trusted, and a stream that hides the records. A client that is
//! slow under TLS reads nothing of the connection below either: what counts is the TCP window.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::probe::clients::opening::Greet;
use crate::probe::driver::socket::ClientStream;
use crate::probe::plan::Plan;

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
    fn session(&self) -> io::Result<ClientConnection> {
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

/// A stream under TLS; blocks if and only if the one below does.
#[derive(Debug)]
pub(crate) struct TlsStream<T> {
    below: T,
    /// `None` where the plan wants no TLS, or a session could not be made.
    session: Option<Box<ClientConnection>>,
}

impl<T: Read + Write> TlsStream<T> {
    pub(crate) fn new(below: T, tls: Option<&Tls>) -> Self {
        let session = tls.and_then(|tls| tls.session().ok());
        Self {
            below,
            session: session.map(Box::new),
        }
    }

    /// Gives the stream below what waits for it.
    fn push(session: &mut ClientConnection, below: &mut T) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(below)?;
        }
        Ok(())
    }

    /// Takes records off the stream below; 0 at its end.
    fn pull(session: &mut ClientConnection, below: &mut T) -> io::Result<usize> {
        let len = session.read_tls(below)?;
        if let Err(error) = session.process_new_packets() {
            // The server learns why.
            let _ = Self::push(session, below);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(len)
    }
}

impl<T: Read + Write> Read for TlsStream<T> {
    /// Fills `buffer` as far as there is something, so that less than a full buffer means that the
    /// socket is empty. An end without close_notify is an end: the protocol knows whether all came.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut filled = 0;
        while filled < buffer.len() {
            match session.reader().read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => {
                    filled += len;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match Self::pull(session, &mut self.below) {
                Ok(_) => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            // Answers of TLS itself, such as to a key update.
            let _ = Self::push(session, &mut self.below);
        }
        Ok(filled)
    }
}

impl<T: Read + Write> Write for TlsStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut written = 0;
        while written < bytes.len() {
            match Self::push(session, &mut self.below) {
                Ok(()) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
            match session.writer().write(&bytes[written..])? {
                0 => break,
                taken => written += taken,
            }
        }
        // What the socket does not take now is pushed by the next write, read or flush.
        let _ = Self::push(session, &mut self.below);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => Self::push(session, &mut self.below),
            None => Ok(()),
        }
    }
}

impl<T: Read + Write> Greet for TlsStream<T> {
    fn write_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.below.write(bytes)
    }

    fn handshake(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            return Err(io::Error::other("TLS could not be set up"));
        };
        while session.is_handshaking() {
            Self::push(session, &mut self.below)?;
            if session.is_handshaking() && Self::pull(session, &mut self.below)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Self::push(session, &mut self.below)
    }
}

impl ClientStream for TlsStream<TcpStream> {
    fn over(tcp: TcpStream, plan: &Plan) -> Self {
        Self::new(tcp, plan.tls.as_ref())
    }

    fn tcp(&self) -> &TcpStream {
        &self.below
    }
}
