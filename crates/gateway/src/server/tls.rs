//! TLS between a client and a connection's socket.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// How a server proves its name.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads a certificate, with those that lead from it to its authority behind it, and its private key; both as PEM.
    pub fn from_files(certificates: &Path, key: &Path) -> io::Result<Self> {
        let about = |file: &Path, error: &dyn fmt::Display| io::Error::other(format!("{}: {error}", file.display()));
        let chain = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| about(certificates, &error))?;
        if chain.is_empty() {
            return Err(about(certificates, &"there is no certificate in it"));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::NoItemsFound => about(key, &"there is no private key in it"),
            error => about(key, &error),
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, private);
        let mut config = config.map_err(|error| about(certificates, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// For a connection that has come.
    pub(super) fn session(&self) -> io::Result<Session> {
        ServerConnection::new(Arc::clone(&self.0)).map(|tls| Session(Box::new(tls))).map_err(io::Error::other)
    }
}

/// The TLS of one connection. Its calls do what the socket lets them do at once; `WouldBlock` says that they wait for it, to read
/// or to write as their names say.
pub(super) struct Session(Box<ServerConnection>);

impl Session {
    /// Receives. What the handshake has to send goes out meanwhile, as far as it can.
    pub(super) fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The stream ended without a word. HTTP says itself how long its messages are.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
            self.0.read_tls(&mut socket)?;
            let processed = self.0.process_new_packets();
            let sent = self.send(socket); // of an error, too, the client is told
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            match sent {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                sent => sent?,
            }
        }
    }

    /// Takes bytes to be sent, and sends what the socket takes.
    pub(super) fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        // It keeps a limited number of bytes, so there has to be room first.
        self.send(socket)?;
        let taken = self.0.writer().write(bytes)?;
        match self.send(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(taken),
            sent => sent.map(|()| taken),
        }
    }

    /// Sends all that it has taken.
    pub(super) fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.0.send_close_notify();
        self.send(socket)
    }
}
