//! What the two ends of a connection know, so that no stranger can speak to a server. (depot 5.8)
//!
//! Every server of a store knows its secret. A client knows only a key that is derived from the secret and from the
//! client's own number: with it, it can speak as that client, and neither as a server nor as another client.

use std::fmt;
use std::io;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::disk::random;
use crate::words::{Line, ParseError, Reader, Words, hexadecimal_word, invalid};

/// What all servers of a store know: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// Which client: drawn at random for each `client.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientId(pub u64);

hexadecimal_word!(ClientId, u64, "client");

/// What a client knows.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey([u8; 32]);

/// That one end of a connection knows the secret or the key: good for this connection only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof([u8; 32]);

impl Secret {
    /// A new one.
    pub fn draw() -> io::Result<Self> {
        random().map(Self)
    }

    /// The key of this client.
    pub fn client_key(&self, client: ClientId) -> ClientKey {
        ClientKey(mac(&self.0, &format!("client {client}")))
    }

    pub(super) fn proof(&self, of: &str) -> Proof {
        Proof(mac(&self.0, of))
    }

    pub(super) fn is_proven(&self, of: &str, proof: Proof) -> bool {
        is_mac(&self.0, of, proof)
    }
}

impl ClientKey {
    pub(super) fn proof(&self, of: &str) -> Proof {
        Proof(mac(&self.0, of))
    }

    pub(super) fn is_proven(&self, of: &str, proof: Proof) -> bool {
        is_mac(&self.0, of, proof)
    }
}

fn begun(key: &[u8; 32], text: &str) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes keys of any length").chain_update(text)
}

fn mac(key: &[u8; 32], text: &str) -> [u8; 32] {
    begun(key, text).finalize().into_bytes().into()
}

/// Takes as long for a wrong proof as for a right one.
fn is_mac(key: &[u8; 32], text: &str, proof: Proof) -> bool {
    begun(key, text).verify_slice(&proof.0).is_ok()
}

/// A text that is not 32 bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key has 64 hexadecimal digits")
    }
}

impl std::error::Error for InvalidKey {}

fn to_hexadecimal(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Result<[u8; 32], InvalidKey> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(InvalidKey);
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| InvalidKey)?;
    }
    Ok(bytes)
}

/// For the files that keep them: the only place where they are written out.
macro_rules! kept_as_text {
    ($name:ident) => {
        impl $name {
            /// As it is kept in a file.
            pub fn reveal(&self) -> String {
                to_hexadecimal(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidKey;

            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                from_hexadecimal(text).map(Self)
            }
        }

        // Never in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}
kept_as_text!(Secret);
kept_as_text!(ClientKey);

impl Words for Proof {
    fn write(&self, line: &mut Line) {
        line.plain(to_hexadecimal(&self.0));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let word = reader.raw("proof")?;
        from_hexadecimal(word).map(Self).map_err(|_| invalid("proof", word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_back_from_their_files_and_stay_out_of_logs() {
        let secret = Secret::draw().expect("random bytes");
        assert_eq!(secret.reveal().parse::<Secret>(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?} {:?}", secret.client_key(ClientId(1))), "Secret(…) ClientKey(…)");
        for bad in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Secret>(), Err(InvalidKey), "{bad:?}");
        }
    }

    #[test]
    fn a_proof_is_good_for_one_key_and_one_text_only() {
        let secret = Secret([7; 32]);
        let one = secret.client_key(ClientId(1));
        let proof = one.proof("text");
        assert!(one.is_proven("text", proof));
        assert!(!one.is_proven("texts", proof));
        assert!(!secret.client_key(ClientId(2)).is_proven("text", proof), "another client's");
        assert!(!secret.is_proven("text", proof), "a server's");
    }
}
