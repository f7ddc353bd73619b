//! An echo server that speaks TLS, with a certificate of its own.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::patience::{LOOK, Manners, THINK, each_on_a_thread, is_timeout};
use crate::row::Small;

/// Reads of this size or less come from clients that wait for the answer.
const SMALL_READ_BYTES: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Encrypted {
    pub(crate) manners: Manners,
    /// A line of the PROXY protocol comes before TLS.
    pub(crate) is_proxied: bool,
}

impl Encrypted {
    fn client(&self, mut stream: &TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
        if self.is_proxied {
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte)?;
            }
        }
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(LOOK))?;
        let mut plain = vec![0; 16 << 10];
        loop {
            match session.read_tls(&mut stream) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(error),
            }
            let state = session.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() <= SMALL_READ_BYTES {
                thread::sleep(THINK);
            }
            for _ in 0..state.plaintext_bytes_to_read().div_ceil(plain.len()) {
                let len = session.reader().read(&mut plain)?;
                session.writer().write_all(&plain[..len])?;
                self.send(&mut session, stream)?;
            }
            self.send(&mut session, stream)?;
        }
    }

    /// Writes the records that wait, as patiently as the manners say.
    fn send(&self, session: &mut ServerConnection, stream: &TcpStream) -> io::Result<()> {
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records)?;
        }
        self.manners.write(stream, &records)
    }
}

fn config() -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?)
}

impl Small for Encrypted {
    fn serve(&self, listener: TcpListener) {
        let (this, config) = (*self, Arc::new(config().expect("a certificate of its own")));
        each_on_a_thread(&listener, self.manners, move |stream| {
            this.client(stream, Arc::clone(&config))
        });
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(*self)
    }
}
