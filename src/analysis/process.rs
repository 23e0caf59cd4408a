//! Whether a recorded process still runs, by what names it for ever.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Whether the process `pid` of this boot, started at `start_ticks`, still runs.
///
/// False for a zombie: it has ended and writes nothing. False also when /proc can't tell.
pub(crate) fn is_running(pid: u32, start_ticks: u64, boot_id: &str) -> bool {
    if pid == 0 || !is_this_boot(boot_id) {
        return false;
    }
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // proc_pid_stat(5): the name, field 2, is in parentheses and may hold anything; the state is
    // field 3, the start time field 22.
    let Some(name_end) = stat.iter().rposition(|byte| *byte == b')') else {
        return false;
    };
    let rest = String::from_utf8_lossy(&stat[name_end + 1..]);
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let ticks = fields.nth(18).and_then(|field| field.parse().ok());
    !matches!(state, "Z" | "X" | "x") && ticks == Some(start_ticks)
}

/// Whether this is the present boot of this machine.
pub(crate) fn is_this_boot(boot_id: &str) -> bool {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.trim() == boot_id
}

/// The inode of this process's pid namespace, 0 when /proc can't tell.
pub(crate) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |about| about.ino())
}

#[cfg(test)]
mod tests {
    use super::is_running;
    use std::fs;

    #[test]
    fn this_process_runs_and_an_earlier_one_of_its_number_does_not() {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
        let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
        let after = stat.rsplit(')').next().expect("has a name");
        let ticks: u64 = after
            .split_whitespace()
            .nth(19)
            .and_then(|field| field.parse().ok())
            .expect("field 22");
        let pid = std::process::id();
        assert!(is_running(pid, ticks, boot.trim()));
        assert!(!is_running(pid, ticks + 1, boot.trim()));
        assert!(!is_running(pid, ticks, "another boot"));
        assert!(!is_running(0, ticks, boot.trim()));
    }
}
