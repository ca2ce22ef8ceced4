//! Why a check fails.

/// What a check holds on to when it fails; the transcript tells the rest.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the spec asks for.
    pub expected: String,
    /// What came instead.
    pub came: String,
    /// Whether the last arrow that the recorder has marked is what it is about.
    pub is_marked: bool,
}

/// What a check comes to.
pub type Verdict = Result<(), Failure>;

impl Failure {
    /// Both in words that follow a colon.
    pub fn new(expected: impl ToString, came: impl ToString) -> Self {
        Self { expected: expected.to_string(), came: came.to_string(), is_marked: false }
    }

    /// The last arrow that the recorder has marked is what it is about.
    pub fn marked(self) -> Self {
        Self { is_marked: true, ..self }
    }
}

/// Fails unless the claim holds.
pub fn claim(holds: bool, expected: impl ToString, came: impl ToString) -> Verdict {
    if holds { Ok(()) } else { Err(Failure::new(expected, came)) }
}
