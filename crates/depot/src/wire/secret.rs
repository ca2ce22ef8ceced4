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

/// What all servers of a store know: 32 random bytes. While it is being replaced by another one, they know both.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    newest: [u8; 32],
    /// What `newest` replaces: servers and clients that know nothing newer are still let in.
    before: Option<[u8; 32]>,
}

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

/// What an end of a connection may prove itself by, and takes as a proof: one key, or two while the secret is being replaced.
pub(super) struct Keys(Vec<[u8; 32]>);

impl Secret {
    /// A new one.
    pub fn draw() -> io::Result<Self> {
        random().map(|newest| Self { newest, before: None })
    }

    /// Another one, beside which this one is still accepted.
    pub fn renewed(&self) -> io::Result<Self> {
        random().map(|newest| Self { newest, before: Some(self.newest) })
    }

    /// The newest alone: what it has replaced is accepted no longer.
    pub fn settled(&self) -> Self {
        Self { newest: self.newest, before: None }
    }

    /// Whether an older one is still accepted.
    pub fn is_renewed(&self) -> bool {
        self.before.is_some()
    }

    /// The key of this client, by the newest secret.
    pub fn client_key(&self, client: ClientId) -> ClientKey {
        client_key(&self.newest, client)
    }

    pub(super) fn keys(&self) -> Keys {
        Keys([self.newest].into_iter().chain(self.before).collect())
    }

    pub(super) fn client_keys(&self, client: ClientId) -> Keys {
        Keys(self.keys().0.iter().map(|secret| client_key(secret, client).0).collect())
    }

    /// As it is kept in a file: the newest first.
    pub fn reveal(&self) -> String {
        self.keys().0.iter().map(to_hexadecimal).collect::<Vec<_>>().join(" ")
    }
}

impl FromStr for Secret {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (newest, before) = match text.split_once(' ') {
            Some((newest, before)) => (newest, Some(from_hexadecimal(before)?)),
            None => (text, None),
        };
        Ok(Self { newest: from_hexadecimal(newest)?, before })
    }
}

// Never in a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn client_key(secret: &[u8; 32], client: ClientId) -> ClientKey {
    ClientKey(mac(secret, &format!("client {client}")))
}

impl ClientKey {
    pub(super) fn keys(&self) -> Keys {
        Keys(vec![self.0])
    }

    /// As it is kept in a file.
    pub fn reveal(&self) -> String {
        to_hexadecimal(&self.0)
    }
}

impl FromStr for ClientKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        from_hexadecimal(text).map(Self)
    }
}

// Never in a log.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(…)")
    }
}

impl Keys {
    /// A proof by each.
    pub(super) fn proofs(&self, of: &str) -> Vec<Proof> {
        self.0.iter().map(|key| Proof(mac(key, of))).collect()
    }

    /// Whether one of them is proven.
    pub(super) fn is_proven(&self, of: &str, proof: Proof) -> bool {
        self.0.iter().any(|key| is_mac(key, of, proof))
    }

    /// A proof by the key that the other end has proven to know with one of its proofs; `None` if it knows none of these.
    pub(super) fn answer(&self, theirs: (&str, &[Proof]), of: &str) -> Option<Proof> {
        let (text, proofs) = theirs;
        let shared = self.0.iter().find(|key| proofs.iter().any(|proof| is_mac(key, text, *proof)));
        shared.map(|key| Proof(mac(key, of)))
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

impl Words for Proof {
    fn write(&self, line: &mut Line) {
        line.plain(&to_hexadecimal(&self.0));
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
        let secret = Secret { newest: [7; 32], before: None };
        let one = secret.client_keys(ClientId(1));
        let proof = one.proofs("text")[0];
        assert!(one.is_proven("text", proof));
        assert!(!one.is_proven("texts", proof));
        assert!(!secret.client_keys(ClientId(2)).is_proven("text", proof), "another client's");
        assert!(!secret.keys().is_proven("text", proof), "a server's");
    }

    #[test]
    fn a_secret_that_is_replaced_is_kept_beside_the_new_one() {
        let old = Secret::draw().expect("random bytes");
        let both = old.renewed().expect("random bytes");
        assert!(both.is_renewed() && !both.settled().is_renewed() && !old.is_renewed());
        assert_eq!(both.reveal().parse::<Secret>(), Ok(both.clone()));
        assert!(both.reveal().starts_with(&both.settled().reveal()) && both.reveal().ends_with(&old.reveal()));
        let again = both.renewed().expect("random bytes");
        assert!(again.reveal().ends_with(&both.settled().reveal()), "only the last one before it is kept");
    }
}
