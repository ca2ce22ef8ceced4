//! The least that stores and loads.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::{BUFFER_BYTES, number};

/// How a client goes about its transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A new connection for each, the Dstores of a store one after another. (spec 6)
    Official,
    /// Connections that are kept, the Dstores of a store at the same time. (spec 8.2)
    Kept,
    /// The same, with small content ahead of the ACK. (spec 8.3)
    Ahead,
}

/// Connected to a Controller, the floor's or a real one.
pub struct Client {
    style: Style,
    controller: TcpStream,
    /// By port.
    kept: Vec<(u16, TcpStream)>,
    /// Those that have said ACK, which has not been read yet.
    owing: Vec<u16>,
    /// What was loaded last.
    pub content: Vec<u8>,
}

impl Client {
    pub fn connect(style: Style, controller: u16) -> io::Result<Self> {
        Ok(Self { style, controller: connect(controller)?, kept: Vec::new(), owing: Vec::new(), content: Vec::new() })
    }

    pub fn store(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let request = format!("STORE {name} {}\n", content.len());
        let mut reply = [0; 256];
        let length = self.ask(request.as_bytes(), &mut reply)?;
        let ports = ports(&reply["STORE_TO".len()..length]);
        match self.style {
            Style::Official => {
                for port in ports {
                    let mut dstore = connect(port)?;
                    dstore.write_all(request.as_bytes())?;
                    take_ack(&mut dstore)?;
                    dstore.write_all(content)?;
                }
            }
            Style::Ahead if content.len() <= 64 << 10 => {
                let message = [request.as_bytes(), content].concat();
                for port in ports {
                    if self.owing.contains(&port) {
                        take_ack(&mut self.kept(port).expect("it owes an ACK"))?;
                    } else {
                        self.owing.push(port);
                    }
                    self.ask_kept(port, &message)?;
                }
            }
            Style::Kept | Style::Ahead => {
                let ports: Vec<_> = ports.collect();
                ports.iter().try_for_each(|port| self.ask_kept(*port, request.as_bytes()))?;
                let mut dstores: Vec<_> = ports.iter().map(|port| self.kept(*port).expect("asked")).collect();
                dstores.iter_mut().try_for_each(take_ack)?;
                for piece in content.chunks(BUFFER_BYTES) {
                    dstores.iter_mut().try_for_each(|dstore| dstore.write_all(piece))?;
                }
            }
        }
        self.expect(b"STORE_COMPLETE\n")
    }

    /// Leaves the file in `self.content`.
    pub fn load(&mut self, name: &str) -> io::Result<()> {
        let mut reply = [0; 64];
        let length = self.ask(format!("LOAD {name}\n").as_bytes(), &mut reply)?;
        let port = ports(&reply["LOAD_FROM".len()..length]).next().expect("a port");
        let size = number(&reply["LOAD_FROM 12345 ".len()..length]);
        let request = format!("LOAD_DATA {name}\n");
        self.content.resize(size, 0);
        match self.style {
            Style::Official => {
                let mut dstore = connect(port)?;
                dstore.write_all(request.as_bytes())?;
                dstore.read_exact(&mut self.content)
            }
            Style::Kept | Style::Ahead => {
                if let Some(at) = self.owing.iter().position(|owing| *owing == port) {
                    self.owing.swap_remove(at);
                    take_ack(&mut self.kept(port).expect("it owes an ACK"))?;
                }
                self.ask_kept(port, request.as_bytes())?;
                let (_, dstore) = self.kept.iter_mut().find(|(known, _)| *known == port).expect("asked");
                dstore.read_exact(&mut self.content)
            }
        }
    }

    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        self.controller.write_all(format!("REMOVE {name}\n").as_bytes())?;
        self.expect(b"REMOVE_COMPLETE\n")
    }

    /// Of a LIST of so many bytes.
    pub fn list(&mut self, bytes: usize) -> io::Result<()> {
        self.controller.write_all(b"LIST\n")?;
        self.content.resize(bytes, 0);
        self.controller.read_exact(&mut self.content)
    }

    fn ask(&mut self, request: &[u8], reply: &mut [u8]) -> io::Result<usize> {
        self.controller.write_all(request)?;
        self.controller.read(reply)
    }

    fn expect(&mut self, reply: &[u8]) -> io::Result<()> {
        let mut received = [0; 16];
        let received = &mut received[..reply.len()];
        self.controller.read_exact(received)?;
        if received == reply { Ok(()) } else { Err(unexpected(received)) }
    }

    /// On the connection that is kept, or on a new one.
    fn ask_kept(&mut self, port: u16, request: &[u8]) -> io::Result<()> {
        if let Some(mut dstore) = self.kept(port) {
            return dstore.write_all(request);
        }
        let mut dstore = connect(port)?;
        dstore.write_all(&[b"KEEP_ALIVE\n", request].concat())?;
        self.kept.push((port, dstore));
        Ok(())
    }

    fn kept(&self, port: u16) -> Option<&TcpStream> {
        self.kept.iter().find(|(known, _)| *known == port).map(|(_, dstore)| dstore)
    }
}

pub(super) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) fn take_ack(dstore: &mut (impl Read + ?Sized)) -> io::Result<()> {
    let mut ack = [0; 4];
    dstore.read_exact(&mut ack)?;
    if ack == *b"ACK\n" { Ok(()) } else { Err(unexpected(&ack)) }
}

/// Ports of five digits, each after a space.
fn ports(text: &[u8]) -> impl Iterator<Item = u16> {
    text.chunks(" 12345".len()).map_while(|port| (port.len() > 5).then(|| number(&port[1..]) as u16))
}

fn unexpected(received: &[u8]) -> io::Error {
    io::Error::other(format!("unexpected {:?}", String::from_utf8_lossy(received)))
}
