//! The parser. The input is a line.
//!
//! - No line makes it panic. (spec 2.6)
//! - `parse` after `Display` changes nothing, and `Display` after `parse` only what does not matter: spaces at the end
//!   and leading zeros. (spec 2.2)
//! - What it makes of a line is no larger than the line, whatever counts stand in it; nor is its complaint. (spec 4.6)
//! - Every name it lets through stays inside its folder. (spec 7.12)

use std::collections::HashSet;
use std::path::{Component, Path};

use stevedore::protocol::{Message, Order};

/// No complaint is longer than this in bytes: it quotes a word of 60 characters at most, each escaped.
const LONGEST_COMPLAINT: usize = 1000;

/// Checks one line.
pub fn check(input: &[u8]) {
    let line = &*String::from_utf8_lossy(input);
    match Message::parse(line) {
        Ok(message) => {
            let printed = message.to_string();
            assert_eq!(Message::parse(&printed).as_ref(), Ok(&message), "{line:?}");
            let words = line.trim_end_matches(' ').split(' ');
            assert!(words.map(normal).eq(printed.split(' ').map(normal)), "{line:?} was read as {printed:?}");
            check_parts(line, message);
        }
        Err(error) => {
            let complaint = error.to_string();
            assert!(complaint.len() <= LONGEST_COMPLAINT, "{} bytes: {complaint}", complaint.len());
        }
    }
}

/// A number without its leading zeros; any other word as it is.
fn normal(word: &str) -> &str {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { word.trim_start_matches('0') } else { word }
}

fn check_parts(line: &str, message: Message) {
    let words: HashSet<&str> = line.split(' ').collect();
    let (names, reserved) = match message {
        Message::Store { name, .. }
        | Message::StoreAck { name }
        | Message::Load { name }
        | Message::Reload { name }
        | Message::LoadData { name }
        | Message::Remove { name }
        | Message::RemoveAck { name }
        | Message::RebalanceStore { name, .. }
        | Message::FileDoesNotExist { name: Some(name) } => (vec![name], 0),
        Message::List { names } => {
            let reserved = names.capacity();
            (names, reserved)
        }
        Message::StoreTo { dstores } => (Vec::new(), dstores.capacity()),
        Message::Rebalance { order: Order { sends, removes } } => {
            let reserved = sends.capacity() + removes.capacity();
            let reserved = reserved + sends.iter().map(|send| send.to.capacity()).sum::<usize>();
            (sends.into_iter().map(|send| send.name).chain(removes).collect(), reserved)
        }
        _ => return,
    };
    // A vector doubles from 4 on.
    assert!(reserved <= 4 * line.split(' ').count(), "{line:?} reserves {reserved}");
    for name in &names {
        assert!(words.contains(name.as_str()), "{name} is not in {line:?}");
        let mut components = Path::new(name.as_str()).components();
        let is_inside = matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none();
        assert!(is_inside && name.len() <= 255 && !name.contains(char::is_control), "{name:?}");
    }
}
