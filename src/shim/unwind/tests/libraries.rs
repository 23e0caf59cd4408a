//! Stacks through libraries that are opened, closed, and followed by others at their addresses.

use super::super::capture;
use super::{Log, a_slot};
use crate::modules;
use core::ffi::c_void;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

static SLOT: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn call_back() {
    SEEN.store(
        capture(&here!(), SLOT.load(Relaxed), &mut Log::default()),
        Relaxed,
    );
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("memspy-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compiles a library whose `run` calls what it is handed. `room` makes each one's code different.
fn compile(directory: &Path, name: &str, room: usize) -> PathBuf {
    let source = directory.join(format!("{name}.c"));
    let library = directory.join(format!("{name}.so"));
    let text = format!(
        "void run(void (*call)(void)) {{ volatile char room[{room}]; room[0] = 1; call(); room[0] = 2; }}\n"
    );
    std::fs::write(&source, text).expect("a source");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wl,--build-id", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler");
    assert!(status.success());
    library
}

/// Opens a library, lets it call back, closes it; answers the path of its frame's module and its base.
fn visit(library: &Path) -> (String, usize) {
    let path = CString::new(library.as_os_str().as_encoded_bytes()).expect("no NUL");
    // SAFETY: the library is ours and `run` has this type.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        let run = libc::dlsym(handle, c"run".as_ptr());
        let run: extern "C" fn(extern "C" fn()) =
            core::mem::transmute::<*mut c_void, extern "C" fn(extern "C" fn())>(run);
        run(call_back);
        run(call_back);
        let log = Log::default();
        let frame = log.frames(SEEN.load(Relaxed))[1];
        let base = modules::find(frame.ip).map_or(0, |module| module.span.at);
        modules::dlclosing();
        assert_eq!(libc::dlclose(handle), 0);
        modules::dlclosed(&mut Log::default());
        (log.path(&frame), base)
    }
}

#[test]
fn a_library_at_the_address_of_another_has_its_own_name() {
    SLOT.store(a_slot(), Relaxed);
    let directory = Directory::new("others");
    let libraries = [("one", 100), ("two", 300), ("three", 100)]
        .map(|(name, room)| compile(&directory.0, name, room));
    let mut bases = Vec::new();
    for round in 0..30 {
        let library = &libraries[round % 3];
        let (path, base) = visit(library);
        assert_eq!(Path::new(&path), library, "round {round}");
        bases.push(base);
    }
    bases.sort_unstable();
    bases.dedup();
    assert!(bases.len() < 30, "no address was used twice: {bases:x?}");
}

#[test]
fn a_library_that_comes_back_keeps_its_number() {
    SLOT.store(a_slot(), Relaxed);
    let before = crate::stacks::count();
    let directory = Directory::new("again");
    let library = compile(&directory.0, "again", 100);
    for _ in 0..50 {
        let (path, _) = visit(&library);
        assert_eq!(Path::new(&path), library);
    }
    // Other tests make nodes too, but not this library's: they would be at least one for each round.
    assert!(before < crate::stacks::count());
    let log = Log::default();
    let modules: std::collections::HashSet<u32> = log
        .frames_of_all()
        .into_iter()
        .filter(|frame| Path::new(&log.path(frame)) == library)
        .map(|frame| frame.module)
        .collect();
    assert!(modules.len() <= 3, "{modules:?}");
}
