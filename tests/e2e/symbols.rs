//! The library's face to ld.so: what it exports, needs and asks for, and that nobody else has its symbols.

use std::collections::BTreeSet;

use crate::support::{clean, compile, finish, repository, shim};

/// Words by which a function of libc that deals with memory is recognised.
const STEMS: [&str; 9] = [
    "alloc", "memalign", "free", "brk", "mmap", "munmap", "remap", "mprotect", "shmat",
];

/// Functions of libc with such a word in their names that are not hooked, and why.
const LEFT_OUT: [(&str, &[&str]); 7] = [
    (
        "second names of hooked functions, for the inside of libc and for other interposers",
        &[
            "__libc_calloc",
            "__libc_free",
            "__libc_malloc",
            "__libc_memalign",
            "__libc_pvalloc",
            "__libc_realloc",
            "__libc_reallocarray",
            "__libc_valloc",
            "__mmap",
            "__mprotect",
            "__munmap",
            "__sbrk",
            "cfree",
        ],
    ),
    (
        "they get their memory by malloc, which is hooked",
        &["obstack_free", "_obstack_free", "_obstack_allocated_p"],
    ),
    (
        "shared memory segments are files, not memory of this process alone",
        &["shmat"],
    ),
    (
        "they change pages that somebody mapped; the mapping was seen",
        &["pkey_mprotect", "remap_file_pages"],
    ),
    (
        "they look at the heap and change nothing that is in use",
        &["malloc_usable_size", "malloc_info", "malloc_stats"],
    ),
    (
        "a break that it moves is noticed at the next call",
        &["malloc_trim"],
    ),
    (
        "files, processor sets, protection keys, signals, network structures, text: not memory",
        &[
            "__sched_cpualloc",
            "__sched_cpufree",
            "__libc_alloca_cutoff",
            "__libc_allocate_rtsig",
            "__strpbrk_c2",
            "__strpbrk_c3",
            "strpbrk",
            "wcspbrk",
            "fallocate",
            "fallocate64",
            "posix_fallocate",
            "posix_fallocate64",
            "pkey_alloc",
            "pkey_free",
            "inet6_option_alloc",
        ],
    ),
];

/// The functions that a library exports, without their versions.
fn exported(library: &str) -> BTreeSet<String> {
    let listed = finish(clean("nm").args(["-D", "--defined-only", library])).success();
    let function = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let name = words.next()?.split('@').next()?;
        ["T", "W", "i"].contains(&kind).then(|| name.to_owned())
    };
    listed.stdout().lines().filter_map(function).collect()
}

#[test]
fn the_library_exports_the_hooks_and_needs_nothing_that_may_be_missing() {
    let mut check = clean(repository().join("scripts/check-symbols"));
    check.arg(shim()).arg(env!("CARGO_BIN_EXE_memspy"));
    check.arg(std::env::current_exe().expect("the test knows its own path"));
    finish(&mut check).success();
}

#[test]
fn a_binary_with_a_malloc_of_its_own_does_not_pass() {
    let program = compile("own_allocator.c");
    let mut check = clean(repository().join("scripts/check-symbols"));
    let refused = finish(check.arg(shim()).arg(&program)).code(1);
    assert!(
        refused
            .stderr()
            .contains("defines hooks: calloc free malloc realloc"),
        "{refused}"
    );
}

#[test]
fn every_memory_function_of_this_libc_is_hooked_or_left_out_for_a_reason() {
    let list = finish(clean("ldd").arg("/bin/sh")).success();
    let libc = list
        .stdout()
        .lines()
        .find(|line| line.trim().starts_with("libc.so.6"));
    let libc = libc
        .and_then(|line| line.split_whitespace().nth(2))
        .expect("sh has a libc");
    let hooks = exported(shim().to_str().expect("a plain path"));
    let left_out: BTreeSet<&str> = LEFT_OUT
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let about_memory = |name: &&String| {
        let internal = name.starts_with("_IO_") || name.starts_with("__libc_alloc");
        !internal && STEMS.iter().any(|stem| name.contains(stem))
    };
    let functions = exported(libc);
    let forgotten: Vec<&String> = functions
        .iter()
        .filter(about_memory)
        .filter(|name| !hooks.contains(*name) && !left_out.contains(name.as_str()))
        // Lists and structures that have a function of their own to give them back.
        .filter(|name| !is_destructor(name))
        .collect();
    assert_eq!(forgotten, [""; 0], "functions of {libc}");
    assert!(
        functions.contains("malloc") && functions.contains("reallocarray"),
        "{libc} was read"
    );
}

/// `freeaddrinfo`, `globfree64`, `__libc_freeres`: they give back what libc took by malloc.
fn is_destructor(name: &str) -> bool {
    let first = |word| name.trim_start_matches('_').starts_with(word);
    let last = |word| name.trim_end_matches("64").ends_with(word);
    let sized = name.starts_with("free_");
    name != "free"
        && !sized
        && (first("free") || first("libc_freeres") || first("if_free") || last("free"))
}
