#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| memspy_fuzz::program::run(data));
