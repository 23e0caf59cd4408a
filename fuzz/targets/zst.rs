//! A compressed log.

use std::fs;

/// Reads the bytes as a compressed log; the mark that makes it one is put in.
pub fn run(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(mark) = bytes.first_chunk_mut() {
        *mark = [0x28, 0xb5, 0x2f, 0xfd];
    }
    let path = super::place("zst", "memspy.fuzz.1.jsonl.zst");
    fs::write(&path, bytes).expect("the file can be written");
    super::log::read(&path);
}
