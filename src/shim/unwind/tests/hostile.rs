use crate::unwind::hostile;

/// Walks in a child process: a fault ends the child and not the tests, and the module that is pretended there is
/// nobody else's.
fn in_a_child(walks: impl Fn()) -> i32 {
    // SAFETY: the child calls nothing that another thread may hold a lock of: the walks, and _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(walks));
        // SAFETY: it ends the child.
        unsafe { libc::_exit(i32::from(walked.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` is a place for its status.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    status
}

#[test]
fn no_unwind_data_make_a_walk_fault_or_panic() {
    let mut state: u64 = 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    // Made before the fork, in batches of changes that are walked with one after the other.
    let inputs: Vec<Vec<u8>> = (0..4_000)
        .map(|_| (0..3 * (next() % 12)).map(|_| next() as u8).collect())
        .collect();
    let status = in_a_child(|| {
        let frames = hostile::run(&[]);
        assert!(
            frames > 3,
            "the unchanged data lead through {frames} frames"
        );
        for input in &inputs {
            let _ = hostile::run(input);
        }
    });
    assert_eq!(status, 0, "the child's wait status");
}
