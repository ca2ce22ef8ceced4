//! What must hold is said at [`stevedore_fuzz::connection`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| stevedore_fuzz::connection::check(input));

#[cfg(not(fuzzing))]
fn main() {
    stevedore_fuzz::replay(stevedore_fuzz::connection::check);
}
