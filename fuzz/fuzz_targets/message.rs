//! What must hold is said at [`stevedore_fuzz::message`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| stevedore_fuzz::message::check(input));

#[cfg(not(fuzzing))]
fn main() {
    stevedore_fuzz::replay(stevedore_fuzz::message::check);
}
