//! Why a check fails, or cannot be judged.

/// What a check holds on to when it fails; the transcript tells the rest.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the spec asks for.
    pub expected: String,
    /// What came instead.
    pub came: String,
    /// Whether the last arrow that the recorder has marked is what it is about.
    pub is_marked: bool,
    /// The check whose claim this step is, by its id: a store that is never completed is judged by the check of just that.
    pub judged_by: Option<&'static str>,
    /// Whether it came while the check was still bringing about its situation: then it is not what the check is about.
    pub is_in_preparation: bool,
}

/// What a check comes to.
pub type Verdict = Result<(), Failure>;

impl Failure {
    /// Both in words that follow a colon.
    pub fn new(expected: impl ToString, came: impl ToString) -> Self {
        let (expected, came) = (expected.to_string(), came.to_string());
        Self { expected, came, is_marked: false, judged_by: None, is_in_preparation: false }
    }

    /// The last arrow that the recorder has marked is what it is about.
    pub fn marked(self) -> Self {
        Self { is_marked: true, ..self }
    }

    /// The step that failed is the claim of this check.
    pub fn judged_by(self, check: &'static str) -> Self {
        Self { judged_by: Some(check), ..self }
    }
}

/// A step that only brings about the situation of which the check is. If it fails, the check is not judged.
pub fn given<T>(step: Result<T, Failure>) -> Result<T, Failure> {
    step.map_err(|failure| Failure { is_in_preparation: true, ..failure })
}

/// Fails unless the claim holds.
pub fn claim(holds: bool, expected: impl ToString, came: impl ToString) -> Verdict {
    if holds { Ok(()) } else { Err(Failure::new(expected, came)) }
}
