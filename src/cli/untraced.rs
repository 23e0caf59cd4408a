//! Programs that ran inside a recorded tree and left no log of their own.
//!
//! What can be known after the end: whether the launched process has a log at all, and what the logs of the others tell
//! of programs that their processes became or began ([`memspy_analysis::lineage`], as `memspy check` has it).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use memspy_analysis::lineage::{Lineage, NO_LOG, lost_children, lost_images};
use memspy_analysis::printable;

use crate::preflight::Program;

/// Says, one sentence each, which programs of the tree were not recorded. `images` is what each log tells, `root` the
/// launched process; its children are looked for where `follow`.
pub(crate) fn untraced(images: &[Lineage], root: u32, follow: bool) -> Vec<String> {
    let mut sentences = Vec::new();
    let images: Vec<&Lineage> = images.iter().collect();
    if !images.iter().any(|image| image.pid == root) {
        sentences.push(format!(
            "the program itself (pid {root}) left no log: libmemspy.so was not loaded into it; \
             memspy doctor may say why"
        ));
    }
    for lost in lost_images(&images) {
        let image = images[lost];
        sentences.push(format!(
            "process {} went on from {} to a program that {NO_LOG}",
            image.pid,
            printable(&image.exe)
        ));
    }
    let children = if follow {
        lost_children(&images)
    } else {
        Vec::new()
    };
    for child in children {
        let parent = images[child.parent];
        let reason = reason(&child.path).map_or_else(
            || NO_LOG.to_owned(),
            |reason| format!("left no log: {reason}"),
        );
        let name = match &*child.path {
            b"" => "a program".into(),
            path => printable(path),
        };
        sentences.push(format!(
            "process {} ({name}), which process {} ({}) began, {reason}",
            child.pid,
            parent.pid,
            printable(&parent.exe)
        ));
    }
    sentences
}

/// Why a program that just ran was not recorded, by what its file is now; nothing where that does not tell.
pub(crate) fn reason(path: &[u8]) -> Option<String> {
    let path = Path::new(OsStr::from_bytes(path));
    // What a relative one meant is not known.
    let program = path
        .is_absolute()
        .then(|| Program::find(path.as_os_str()))?;
    program.ok()?.refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;
    use std::fs;
    use std::path::PathBuf;

    /// A directory that is removed again.
    struct Logs(PathBuf);

    impl Logs {
        fn new(name: &str, logs: &[&str]) -> (Self, Vec<PathBuf>) {
            let directory =
                std::env::temp_dir().join(format!("memspy-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).expect("a temporary directory can be made");
            let write = |(number, text): (usize, &&str)| {
                let path = directory.join(format!("{number}.jsonl"));
                fs::write(&path, text).expect("a log can be written");
                path
            };
            let paths = logs.iter().enumerate().map(write).collect();
            (Self(directory), paths)
        }
    }

    impl Drop for Logs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What is said of the programs of these logs, however they are read.
    fn said(paths: &[PathBuf], root: u32, follow: bool) -> Vec<String> {
        let [gone_through, searched] =
            [true, false].map(|summarise| Recorded::read(paths, summarise).images);
        let sentences = untraced(&gone_through, root, follow);
        assert_eq!(untraced(&searched, root, follow), sentences);
        sentences
    }

    const SHELL: &str = r#"{"op":"start","v":1,"pid":7,"start_ticks":5,"mono_ns":10,"exe":"/bin/sh"}
{"op":"spawn","t":4,"pid":8,"path":"/bin/\u001benv"}
{"op":"end","t":9,"how":"execve"}
"#;

    #[test]
    fn what_became_of_a_process_and_its_child_is_said_without_control_characters() {
        let (_directory, paths) = Logs::new("lonely", &[SHELL]);
        let sentences = said(&paths, 7, true);
        let [became, began] = sentences.as_slice() else {
            panic!("{sentences:?}");
        };
        assert!(
            became.starts_with("process 7 went on from /bin/sh"),
            "{became}"
        );
        assert!(began.starts_with("process 8 (/bin/\\x1benv)"), "{began}");
    }

    #[test]
    fn children_are_not_missed_where_nobody_follows_them() {
        let (_directory, paths) = Logs::new("alone", &[SHELL]);
        assert_eq!(said(&paths, 7, false).len(), 1);
    }

    #[test]
    fn a_root_without_a_log_is_reported() {
        let (_directory, paths) = Logs::new(
            "no-root",
            &["", "\0{", SHELL.lines().next().unwrap_or_default()],
        );
        let sentences = said(&paths, 6, true);
        assert!(
            sentences.len() == 1 && sentences[0].contains("pid 6"),
            "{sentences:?}"
        );
    }
}
