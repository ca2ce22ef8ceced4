//! Reads a transcript: text in, cases out. The grammar is told at the top of `main.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

/// A party, or a `{variable}` that stands for one.
pub type Name = String;

/// One case of a file.
#[derive(Debug)]
pub struct Case {
    /// The comment above the header, in one line.
    pub title: String,
    /// Where the header is; lines count from 1.
    pub line: usize,
    /// Where the last step is: more can be recorded after it.
    pub last_line: usize,
    pub setting: Setting,
    pub steps: Vec<Step>,
}

/// What is really there; all others are played.
#[derive(Debug)]
pub enum Setting {
    Cluster {
        replicas: usize,
        /// The Dstores that have joined when the transcript begins, in this order.
        dstores: Vec<Name>,
        timeout: Duration,
        period: Option<Duration>,
    },
    Dstore {
        timeout: Duration,
        /// Files that are in the folder before the Dstore starts.
        leftovers: Vec<String>,
        /// Whether the transcript hears the JOIN itself.
        shows_join: bool,
    },
}

#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub action: Action,
}

#[derive(Debug)]
pub enum Action {
    Say { who: Vec<Name>, what: Said },
    Hear { who: Vec<Name>, what: Heard },
    Join { who: Name },
    Leave { who: Name },
    Connect { who: Name, to: String },
    Folder { files: Vec<String> },
    End,
}

#[derive(Debug)]
pub enum Said {
    /// A line, to be ended with `\n`.
    Line(String),
    Bytes(Vec<u8>),
    Close,
    End,
    Reset,
}

#[derive(Debug)]
pub enum Heard {
    /// A line that ends with `\n`.
    Line(String),
    Bytes(Vec<u8>),
    /// The orderly end of what the other says. The connection stays, for what is to be said.
    End,
    /// The orderly end, too, and of all the connection.
    Closed,
    Reset,
    Nothing,
}

/// Unless the header says otherwise: longer than the runner waits for anything, so that what should happen at once
/// and happens only after a timeout is noticed.
const LONG: Duration = Duration::from_secs(20);

/// Reads a whole file; an error names the line.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        let at_line = |error| format!("{line}: {error}");
        if let Some(sentence) = text.strip_prefix('#') {
            comment.push(sentence.trim());
            continue;
        }
        let title = std::mem::take(&mut comment).join(" ");
        if text.is_empty() {
            continue;
        }
        if let Some(setting) = parse_header(text).map_err(at_line)? {
            if !title.contains("(spec ") {
                return Err(at_line("the comment above a header says what is shown, and cites it: (spec 4.2)".into()));
            }
            cases.push(Case { title, line, last_line: line, setting, steps: Vec::new() });
        } else {
            let case = cases.last_mut().ok_or_else(|| at_line("a step before the first header".into()))?;
            case.steps.push(Step { line, action: parse_action(text).map_err(at_line)? });
            case.last_line = line;
        }
    }
    Ok(cases)
}

/// `None` if the line is no header.
fn parse_header(text: &str) -> Result<Option<Setting>, String> {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let words: Vec<_> = words.collect();
    // `dstore ends` is a step.
    if !matches!(kind, "cluster" | "dstore") || !words.iter().all(|word| word.contains('=')) {
        return Ok(None);
    }
    let mut options: BTreeMap<&str, &str> = words.iter().filter_map(|word| word.split_once('=')).collect();
    let timeout = options.remove("timeout").map_or(Ok(LONG), parse_ms)?;
    let names = |list: &str| list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let setting = if kind == "cluster" {
        let replicas = options.remove("replicas").ok_or("cluster without replicas=")?;
        Setting::Cluster {
            replicas: replicas.parse().map_err(|_| format!("not a number: {replicas}"))?,
            dstores: options.remove("dstores").map(names).unwrap_or_default(),
            timeout,
            period: options.remove("period").map(parse_ms).transpose()?,
        }
    } else {
        Setting::Dstore {
            timeout,
            leftovers: options.remove("leftovers").map(names).unwrap_or_default(),
            shows_join: options.remove("join") == Some("shown"),
        }
    };
    match options.keys().next() {
        Some(option) => Err(format!("no option of {kind} is called {option}")),
        None => Ok(Some(setting)),
    }
}

fn parse_ms(number: &str) -> Result<Duration, String> {
    number.parse().map(Duration::from_millis).map_err(|_| format!("not a number of milliseconds: {number}"))
}

fn parse_action(text: &str) -> Result<Action, String> {
    if let Some(files) = text.strip_prefix("folder:") {
        let files = files.split_whitespace().filter(|word| *word != "(empty)").map(expand).collect::<Result<_, _>>()?;
        return Ok(Action::Folder { files });
    }
    let (who, rest) = text.split_once(' ').ok_or_else(|| format!("no step is called {text}"))?;
    let list = || who.split(',').map(parse_name).collect::<Result<Vec<_>, _>>();
    if let Some(said) = rest.strip_prefix("->") {
        return Ok(Action::Say { who: list()?, what: parse_said(said.trim())? });
    }
    if let Some(heard) = rest.strip_prefix("<-") {
        return Ok(Action::Hear { who: list()?, what: parse_heard(heard.trim())? });
    }
    if text == "dstore ends" {
        return Ok(Action::End);
    }
    let name = parse_name(who)?;
    match rest.split_whitespace().collect::<Vec<_>>()[..] {
        ["joins"] => Ok(Action::Join { who: name }),
        ["leaves"] => Ok(Action::Leave { who: name }),
        ["connects"] => Ok(Action::Connect { who: name, to: "127.0.0.1".to_owned() }),
        ["connects", "to", address] => Ok(Action::Connect { who: name, to: address.to_owned() }),
        _ => Err(format!("not a step: {text}")),
    }
}

fn parse_name(word: &str) -> Result<Name, String> {
    let bare = variable(word).unwrap_or(word);
    let is_name = bare.starts_with(|c: char| c.is_ascii_lowercase()) && bare.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_name { Ok(word.to_owned()) } else { Err(format!("not a party: {word:?}")) }
}

/// The name inside `{name}`.
pub fn variable(word: &str) -> Option<&str> {
    word.strip_prefix('{')?.strip_suffix('}')
}

fn parse_said(text: &str) -> Result<Said, String> {
    match text {
        "(close)" => Ok(Said::Close),
        "(end)" => Ok(Said::End),
        "(reset)" => Ok(Said::Reset),
        _ => match parse_bytes(text)? {
            Some(bytes) => Ok(Said::Bytes(bytes)),
            None => Ok(Said::Line(expand(text)?)),
        },
    }
}

fn parse_heard(text: &str) -> Result<Heard, String> {
    match text {
        "(end)" => Ok(Heard::End),
        "(closed)" => Ok(Heard::Closed),
        "(reset)" => Ok(Heard::Reset),
        "(nothing)" => Ok(Heard::Nothing),
        _ => match parse_bytes(text)? {
            Some(bytes) => Ok(Heard::Bytes(bytes)),
            None => Ok(Heard::Line(expand(text)?)),
        },
    }
}

/// `raw "..."`, `content "..."` and `content 1000 "..."`; `None` if the text is a plain line.
fn parse_bytes(text: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(rest) = text.strip_prefix("raw ").or_else(|| text.strip_prefix("content ")) else {
        // A line that begins like this and is not content is hardly a message, but a likely mistake.
        return if text.starts_with('(') { Err(format!("what is {text}?")) } else { Ok(None) };
    };
    let (times, quoted) = match rest.split_once(' ') {
        Some((number, quoted)) if number.bytes().all(|b| b.is_ascii_digit()) => {
            (number.parse().map_err(|_| format!("not a number: {number}"))?, quoted)
        }
        _ => (1, rest),
    };
    unquote(quoted).map(|bytes| Some(bytes.repeat(times)))
}

fn unquote(quoted: &str) -> Result<Vec<u8>, String> {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let mut rest = inner.ok_or_else(|| format!("not in quotes: {quoted}"))?.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'x') => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                u8::try_from(value.ok_or("\\x needs two digits")?).expect("two hexadecimal digits")
            }
            Some(literal @ (b'\\' | b'"')) => literal,
            _ => return Err(format!("an unknown escape in {quoted}")),
        });
    }
    Ok(bytes)
}

/// How a transcript would write these bytes.
pub fn quote(bytes: &[u8]) -> String {
    if let [first, .., _] = bytes
        && bytes.len() > 80
        && bytes.iter().all(|byte| byte == first)
    {
        return format!("content {} {}", bytes.len(), quoted(&[*first]));
    }
    format!("raw {}", quoted(bytes))
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii().to_string().replace("\\'", "'"))
}

/// Writes `{x*255}` out: `x`, 255 times.
fn expand(text: &str) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or_else(|| format!("an open brace in {text}"))?;
        expanded.push_str(before);
        match inside.split_once('*') {
            Some((what, times)) => {
                expanded.push_str(&what.repeat(times.parse().map_err(|_| format!("not a number: {times}"))?));
            }
            None => expanded.push_str(&format!("{{{inside}}}")),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
