//! The log's place fails, or the program meddles with descriptors: the program runs on as it would, and the log says what it
//! lacks.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::oracle::{assert_complete, assert_told_calls_are_logged, number, record, tails};
use crate::remains::{assert_contiguous, remains};
use crate::support::{Finished, Log, TestDir, clean, compile, finish, memspy, preloaded, shim};

/// A run of a shell script with `$PROGRAM` set and, when `logs` is given, memspy told by `$MEMSPY` (to be put before a program).
fn script(text: &str, program: &str, work: &TestDir, logs: Option<&Path>) -> Finished {
    let mut shell = clean("bash");
    shell
        .current_dir(work.path())
        .env("PROGRAM", compile(program))
        .args(["-c", text]);
    if let Some(logs) = logs {
        let preload = format!("LD_PRELOAD={}", shim().display());
        let place = format!("MEMSPY_LOG={}/", logs.display());
        shell.env("MEMSPY", format!("env {preload} {place}"));
    }
    finish(&mut shell)
}

/// Runs a script without and with memspy and asserts that both ended alike.
#[track_caller]
fn script_both(text: &str, program: &str, logs: &Path) -> Finished {
    let plain = script(text, program, &TestDir::new(), None);
    let recorded = script(text, program, &TestDir::new(), Some(logs));
    assert_same_but_for_our_word(&plain, &recorded);
    recorded
}

/// Asserts that two runs ended alike and printed the same, but memspy may have said on standard error that it can't write.
#[track_caller]
fn assert_same_but_for_our_word(plain: &Finished, recorded: &Finished) {
    let foreign: Vec<&str> = recorded
        .stderr()
        .lines()
        .filter(|line| !line.starts_with("memspy: "))
        .collect();
    let own = recorded.stderr().lines().count() - foreign.len();
    // The shell names pids, right-aligned.
    let nameless = |line: &str| line.replace(|c: char| c.is_ascii_digit() || c == ' ', "");
    let same = plain.status == recorded.status
        && plain.stdout() == recorded.stdout()
        && plain
            .stderr()
            .lines()
            .map(nameless)
            .eq(foreign.into_iter().map(nameless))
        && own <= 1;
    assert!(same, "without memspy: {plain}\nwith memspy: {recorded}");
}

#[test]
fn a_program_that_closes_everything_keeps_its_files_and_its_log() {
    for how in ["closefrom", "close_range", "loop", "dup2"] {
        let recorded = record("closes_everything", &[how]);
        let log = recorded.log();
        assert_complete(&log);
        let blocks = log
            .ops("malloc")
            .filter(|e| (100..150).contains(&number(e, "size")));
        assert_eq!(blocks.count(), 40_000, "{how}");
    }
}

#[test]
fn a_program_may_start_without_its_first_descriptors() {
    for closed in [
        "<&-",
        ">&-",
        "2>&-",
        "<&- >&-",
        ">&- 2>&-",
        "<&- 2>&-",
        "<&- >&- 2>&-",
    ] {
        let logs = TestDir::new();
        let text =
            format!("$MEMSPY $PROGRAM 20000 {closed}; echo status $?; cat result; ls -s result");
        script_both(&text, "many_events.c", logs.path());
        let log = Log::of_program(logs.path(), "many_events");
        assert_complete(&log);
    }
}

#[test]
fn a_program_that_uses_up_its_descriptors_loses_no_event_it_has_room_for() {
    let recorded = record("no_descriptors", &[]);
    let log = recorded.log();
    assert_told_calls_are_logged(&recorded.told(), &log.lines);
    let lost = number(log.end(), "lost");
    assert!(lost > 0, "{}", log.end());
    assert_eq!(missing(&log), lost, "{}", log.end());
    let said: u64 = log.ops("resumed").map(|line| number(line, "lost")).sum();
    assert_eq!(said, lost);
    assert_eq!(log.ops("stopped").count(), log.ops("resumed").count());
}

#[test]
fn the_lines_about_a_stop_survive_a_sudden_end() {
    let recorded = record("no_descriptors", &["killed"]);
    let log = recorded.log().path;
    let mut tail = log.clone().into_os_string();
    tail.push(".tail");
    let lost = std::fs::read(tail).expect("a killed process leaves its tail")[88..96].to_vec();
    let lost = u64::from_le_bytes(lost.try_into().expect("eight bytes"));
    let events = remains(&log);
    let missing = |thread: &BTreeMap<u64, Value>| {
        let last = thread.keys().next_back().copied().unwrap_or_default();
        last - thread.len() as u64
    };
    assert_eq!(events.values().map(missing).sum::<u64>(), lost);
    let stops = |op| {
        let all = events.values().flat_map(BTreeMap::values);
        all.filter(|line| line["op"] == op).count()
    };
    assert_eq!((stops("stopped"), stops("resumed")), (1, 1));
}

/// How many numbers of events are missing in a log, up to the last that its block lines and its end vouch for.
fn missing(log: &Log) -> u64 {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = 0;
    for block in log.ops("block") {
        let (n, events) = (number(block, "n"), number(block, "events"));
        let last = last.entry(number(block, "thread")).or_default();
        *last = (n + events - 1).max(*last);
        found += events;
    }
    for open in log.end()["open"].as_array().expect("a list") {
        let [thread, n] = [0, 1].map(|at| open[at].as_u64().expect("a number"));
        let last = last.entry(thread).or_default();
        *last = n.max(*last);
    }
    last.values().sum::<u64>() - found
}

#[test]
fn limits_on_the_program_are_met_exactly_when_they_would_be() {
    for limit in [
        "-f 64",
        "-f 0",
        "-n 6",
        "-v 200000",
        "-l 0",
        "-s 256",
        "-u 1000",
    ] {
        let logs = TestDir::new();
        let text = format!("ulimit {limit}; $MEMSPY $PROGRAM 200000; echo status $?");
        script_both(&text, "many_events.c", logs.path());
    }
}

#[test]
fn a_log_that_may_not_grow_says_that_it_stopped() {
    let logs = TestDir::new();
    let text = "ulimit -f 64; $MEMSPY $PROGRAM 200000; echo status $?";
    script_both(text, "many_events.c", logs.path());
    let log = Log::of_program(logs.path(), "many_events");
    assert_eq!(
        log.ops("stopped").count() + tails(logs.path()).len(),
        1,
        "{:?}",
        logs.names()
    );
}

#[test]
fn a_directory_that_is_missing_or_no_directory_costs_the_log_and_nothing_else() {
    let place = TestDir::new();
    place.write("file", "a file\n");
    for name in ["missing", "file"] {
        let text = "$MEMSPY $PROGRAM 20000; echo status $?; cat result";
        let recorded = script_both(text, "many_events.c", &place.join(name));
        let said = recorded.stderr();
        assert!(
            said.starts_with("memspy: cannot create the log: "),
            "{said}"
        );
        let place = place.join(name);
        let where_to = format!(
            "set MEMSPY_LOG to a directory that is there and can be written: {}",
            place.display()
        );
        assert!(said.contains(&where_to), "{said}");
    }
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn nothing_that_is_there_is_written_to_or_waited_for() {
    let (place, work) = (TestDir::new(), TestDir::new());
    let precious = place.write("precious", "precious\n");
    symlink(&precious, place.join("link.jsonl")).unwrap();
    place.write("taken.jsonl", "taken\n");
    finish(clean("mkfifo").arg(place.join("pipe.jsonl"))).success();
    symlink("/dev/full", place.join("full.jsonl")).unwrap();
    for name in ["link", "taken", "pipe", "full"] {
        let mut command = preloaded(compile("many_events.c"), &place);
        command
            .current_dir(work.path())
            .arg("20000")
            .env("MEMSPY_LOG", place.join(format!("{name}.jsonl")));
        assert_eq!(finish(&mut command).success().stdout(), "all well\n");
        let second = Log::read(&place.join(format!("{name}.2.jsonl")));
        assert_complete(&second);
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious\n");
    assert_eq!(
        fs::read_to_string(place.join("taken.jsonl")).unwrap(),
        "taken\n"
    );
}

#[test]
fn a_log_is_its_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        let logs = TestDir::new();
        let text = format!("umask {umask}; $MEMSPY $PROGRAM 1000 >/dev/null");
        script(&text, "many_events.c", &TestDir::new(), Some(logs.path()));
        for log in Log::all_in(logs.path()) {
            let mode = fs::metadata(&log.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "umask {umask}");
        }
    }
}

#[test]
fn a_full_disk_stops_the_log_and_not_the_program() {
    let saved = TestDir::new();
    let text = "mkdir small && mount -t tmpfs -o size=1m tmpfs small && $MEMSPY $PROGRAM 200000; \
                echo status $?; cp small/* $SAVED 2>/dev/null; true";
    let mut shell = clean("unshare");
    let work = TestDir::new();
    shell
        .current_dir(work.path())
        .env("PROGRAM", compile("many_events.c"))
        .env("SAVED", saved.path())
        .env(
            "MEMSPY",
            format!("env LD_PRELOAD={} MEMSPY_LOG=small/", shim().display()),
        )
        .args(["-Urm", "bash", "-c", text]);
    let ended = finish(&mut shell).success();
    assert_eq!(ended.stdout(), "all well\nstatus 0\n", "{ended}");
    let tail = tails(saved.path())
        .pop()
        .expect("the tail of a stopped log stays");
    let events = remains(&tail.with_extension(""));
    assert_contiguous(&events);
    let kept: usize = events.values().map(|thread| thread.len()).sum();
    assert!(kept > 1000 && kept < 400_000, "{kept}");
    let control = fs::read(&tail).unwrap();
    assert_eq!(i32::from(control[104]), libc::ENOSPC);
}

#[test]
fn a_log_goes_on_when_a_full_disk_has_room_again_and_says_what_is_missing() {
    // The state in the tail (at 12) says when the disk was full and when writing went on: nothing here waits for a time.
    let text = "mkdir small && mount -t tmpfs -o size=300k tmpfs small && ($MEMSPY $PROGRAM told & \
                state() { od -An -tu1 -j12 -N1 small/*.tail | tr -d ' '; }; \
                until [ \"$(state)\" = 3 ]; do sleep 0.05; done; mount -o remount,size=64m small; \
                until [ \"$(state)\" = 1 ]; do sleep 0.05; done; touch told; wait $!; echo status $?); \
                cp small/* $SAVED";
    let (work, saved) = (TestDir::new(), TestDir::new());
    let recorder = format!("env LD_PRELOAD={} MEMSPY_LOG=small/", shim().display());
    let mut shell = clean("unshare");
    shell
        .current_dir(work.path())
        .env("PROGRAM", compile("until_told.c"))
        .env("SAVED", saved.path())
        .env("MEMSPY", recorder)
        .args(["-Urm", "bash", "-c", text]);
    let ended = finish(&mut shell).success();
    assert_eq!(ended.stdout(), "told\nstatus 0\n", "{ended}");
    assert!(tails(saved.path()).is_empty());
    let log = Log::only_in(&saved);
    let after = |event: &&Value| event["size"].as_u64().is_some_and(|size| size >= 30_001);
    assert_eq!(log.ops("malloc").filter(after).count(), 5000);
    assert_eq!(log.only("stopped", None)["why"], "ENOSPC");
    let lost = number(log.only("resumed", None), "lost");
    assert!(lost > 0);
    assert_eq!(number(log.end(), "lost"), lost);
    let summary = finish(memspy().args(["summary", "--json"]).arg(&log.path)).success();
    let said = &summary.json()["logs"][0];
    assert_eq!(said["complete"], false);
    let reasons = said["reasons"].to_string().replace(',', "");
    assert!(reasons.contains(&format!("{lost} events")), "{reasons}");
}

#[test]
fn a_log_directory_that_is_removed_does_not_disturb_the_program() {
    let (logs, work) = (TestDir::new(), TestDir::new());
    let counters = work.join("oracle");
    let mut child = preloaded(compile("until_killed.c"), &logs)
        .arg("2")
        .env("ORACLE", &counters)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let returned = || {
        let bytes = fs::read(&counters).unwrap_or_default();
        bytes
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    };
    let mut wait_for = |calls: u64| {
        while returned() < calls {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
    };
    wait_for(20_000);
    fs::remove_dir_all(logs.path()).unwrap();
    let then = returned();
    wait_for(then + 1_000_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!logs.path().exists());
}

#[test]
fn a_server_that_drops_its_privileges_and_its_root_runs_as_before() {
    let empty = TestDir::new();
    let root = finish(clean("id").arg("-u")).stdout() == "0\n";
    assert!(root, "chroot and setuid need root: run the tests as root");
    let recorded = record("drops_privilege", &[empty.path().to_str().unwrap()]);
    let made = Log::all_in(recorded.logs.path());
    let first = made
        .iter()
        .find(|log| log.start().get("forked_from").is_none())
        .unwrap();
    let events = remains(&first.path);
    assert_contiguous(&events);
    let sized = |event: &&Value| event["op"] == "malloc" && event["size"] == 150;
    // 200 before the chroot, 400 after it: these stay in the tail.
    assert_eq!(events[&1].values().filter(sized).count(), 600);
    let summary = finish(memspy().args(["summary", "--json"]).arg(&first.path)).success();
    let said = &summary.json()["logs"][0];
    assert_eq!(said["complete"], true, "{}", said["reasons"]);
    assert_eq!(empty.names(), Vec::<String>::new());
}

#[test]
fn a_worker_that_gives_up_root_keeps_its_log() {
    for how in ["setuid", "seteuid", "setreuid", "setresuid"] {
        // On tmpfs, because nobody may not go through every place where tests are built.
        let logs = TestDir::on_tmpfs();
        fs::set_permissions(logs.path(), Permissions::from_mode(0o1777)).unwrap();
        let program = logs.join("program");
        fs::copy(compile("gives_up_root.c"), &program).unwrap();
        finish(preloaded(&program, &logs).arg(how)).success();
        let log = Log::only_in(&logs);
        assert_complete(&log);
        let sized = |event: &&Value| event["size"] == 150;
        assert_eq!(log.ops("malloc").filter(sized).count(), 200, "{how}");
        assert!(tails(logs.path()).is_empty(), "{how}");
        let about = fs::metadata(&log.path).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (65534, 0o600), "{how}");
    }
}

#[test]
fn a_worker_that_gives_up_root_is_recorded_by_run_too() {
    let work = TestDir::on_tmpfs();
    fs::set_permissions(work.path(), Permissions::from_mode(0o755)).unwrap();
    let program = work.join("program");
    fs::copy(compile("gives_up_root.c"), &program).unwrap();
    let run = ["run", "--output", "logs", "--"];
    let mut recorder = memspy();
    recorder.current_dir(work.path()).args(run).arg(&program);
    finish(recorder.arg("setuid")).success();
    let log = Log::all_in(&work.join("logs")).remove(0);
    assert_complete(&log);
    let sized = |event: &&Value| event["size"] == 150;
    assert_eq!(log.ops("malloc").filter(sized).count(), 200);
}
