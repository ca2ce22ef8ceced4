//! What must hold is said at [`stevedore_fuzz::index`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| stevedore_fuzz::index::check(input));

#[cfg(not(fuzzing))]
fn main() {
    stevedore_fuzz::replay(stevedore_fuzz::index::check);
}
