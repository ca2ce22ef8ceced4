//! Bugs put into Stevedore on purpose, each of which the torture has to find.

use stevedore::program::Failure;

/// Tries the mutants.
pub fn hunt(_chosen: &[String], _seconds: u64) -> Result<(), Failure> {
    Ok(())
}
