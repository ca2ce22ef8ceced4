//! Passwords: how they are kept, and how one is found to be right.

use std::collections::HashSet;
use std::io;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use depot::disk::random;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;

/// So many right passwords are remembered.
const MOST_REMEMBERED: usize = 1_024;

/// The hash under which a password is kept.
pub(super) fn hash(password: &str) -> io::Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| io::Error::other(format!("cannot hash a password: {error}")))
}

/// A password that no one guesses: 100 random bits, in letters and digits that are hard to confuse.
pub fn random_password() -> io::Result<String> {
    let letters = random_letters::<20>()?;
    Ok([&letters[..5], &letters[5..10], &letters[10..15], &letters[15..]].join("-"))
}

/// So many letters and digits that are hard to confuse, of five random bits each.
pub(super) fn random_letters<const N: usize>() -> io::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes: [u8; N] = random()?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect())
}

/// Finds out whether passwords are right.
pub(super) struct Passwords {
    /// Drawn for this process: what is remembered is of no use to any other.
    key: [u8; 32],
    /// Keyed hashes of what was right.
    remembered: Mutex<HashSet<[u8; 32]>>,
    /// Held while a hash is computed, which takes memory and time: attempts take turns.
    turn: Mutex<()>,
    /// Compared with if there is no such user, to take as long.
    nobodys: String,
}

impl Passwords {
    pub(super) fn new() -> io::Result<Self> {
        let nobodys = hash(&random_password()?)?;
        Ok(Self { key: random()?, remembered: Mutex::default(), turn: Mutex::default(), nobodys })
    }

    /// Whether this password has been found to be right for this stored hash.
    pub(super) fn remembers(&self, name: &str, stored: &str, password: &str) -> bool {
        self.remembered.lock().contains(&self.keyed(name, stored, password))
    }

    /// Whether the password is right, and remembers it if it is. Without a stored hash none is, which takes as long.
    pub(super) fn verify(&self, name: &str, stored: Option<&str>, password: &str) -> bool {
        let _turn = self.turn.lock();
        let hash = stored.unwrap_or(&self.nobodys);
        let matches = |hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        let (true, Some(stored)) = (PasswordHash::new(hash).is_ok_and(matches), stored) else { return false };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(self.keyed(name, stored, password));
        true
    }

    /// One number for all three. None of them holds NUL but the last, so no two differ in where one ends.
    fn keyed(&self, name: &str, stored: &str, password: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        for part in [name, "\0", stored, "\0", password] {
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_as_a_salted_hash() {
        let (first, second) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !first.contains("secret"), "{first}");
        assert_ne!(first, second);
        let passwords = Passwords::new().unwrap();
        for (stored, password, expected) in [
            (Some(&*first), "secret", true),
            (Some(&*second), "secret", true),
            (Some(&*first), "Secret", false),
            (Some(&*first), "", false),
            (Some("secret"), "secret", false),
            (Some(""), "", false),
            (None, "secret", false),
        ] {
            assert_eq!(passwords.verify("alice", stored, password), expected, "{stored:?} {password:?}");
        }
    }

    #[test]
    fn what_was_right_is_remembered_for_this_user_and_hash_only() {
        let passwords = Passwords::new().unwrap();
        let stored = hash("secret").unwrap();
        assert!(!passwords.remembers("alice", &stored, "secret"));
        assert!(!passwords.verify("alice", Some(&stored), "wrong"));
        assert!(!passwords.remembers("alice", &stored, "wrong"));
        assert!(passwords.verify("alice", Some(&stored), "secret"));
        assert!(passwords.remembers("alice", &stored, "secret"));
        assert!(!passwords.remembers("bob", &stored, "secret"));
        assert!(!passwords.remembers("alice", &hash("secret").unwrap(), "secret"));
        assert!(!Passwords::new().unwrap().remembers("alice", &stored, "secret"));
    }

    #[test]
    fn no_two_random_passwords_are_the_same() {
        let drawn: HashSet<String> = (0..100).map(|_| random_password().unwrap()).collect();
        assert_eq!(drawn.len(), 100);
        assert!(drawn.iter().all(|password| password.len() == 23));
    }
}
