#![no_main]
// Its walks read pretended stacks word by word: the address sanitizer has no say there (cargo fuzz run -s none).
libfuzzer_sys::fuzz_target!(|data: &[u8]| memspy_shim::walk_spoilt(data));
