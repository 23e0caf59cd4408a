//! `memspy run`: the program must not notice, and its status must come through.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::{
    Finished, Log, TestDir, address, clean, finish, finish_with_input, memspy, preloaded,
    repository,
};

/// `memspy run -q -o DIR -- …` with the directory inside `dir`.
fn run(dir: &TestDir) -> Command {
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["run", "-q", "-o", "logs", "--"]);
    command
}

fn shell(dir: &TestDir, script: &str) -> Finished {
    finish(run(dir).args(["sh", "-c", script]))
}

#[test]
fn input_output_and_status_are_the_programs_own() {
    let dir = TestDir::new();
    let mut command = run(&dir);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let copied = finish_with_input(command.arg("cat"), &bytes).success();
    assert_eq!(copied.stdout_bytes, bytes);
    for code in [0, 1, 2, 23, 125, 126, 127, 255] {
        shell(&dir, &format!("exit {code}")).code(code);
    }
}

#[test]
fn a_signal_that_kills_the_program_kills_memspy_too() {
    let dir = TestDir::new();
    for signal in [
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGPIPE,
    ] {
        // A job in the background of a shell without job control inherits that SIGINT is ignored.
        let script = format!("kill -{signal} $$");
        let mut command = run(&dir);
        command.args(["env", "--default-signal", "sh", "-c", &script]);
        finish(&mut command).killed_by(signal);
    }
    assert!(
        !dir.names().iter().any(|name| name.starts_with("core")),
        "{:?}",
        dir.names()
    );
}

#[test]
fn arguments_pass_through_untouched() {
    let dir = TestDir::new();
    let arguments = ["-o", "--help", "", "a b", "\u{1b}[2J", "--", "$HOME"];
    let mut command = run(&dir);
    let printed = finish(command.args(["printf", "<%s>"]).args(arguments)).success();
    assert_eq!(
        printed.stdout(),
        "<-o><--help><><a b><\u{1b}[2J><--><$HOME>"
    );
}

#[test]
fn the_program_finds_the_signal_state_that_memspy_was_started_with() {
    let dir = TestDir::new();
    let state = "grep -E '^(Sig(Blk|Ign|Cgt)|ShdPnd|Threads)' /proc/self/status; ulimit -a";
    for prepare in [
        "",
        "trap '' PIPE;",
        "trap '' CHLD HUP;",
        "trap '' INT QUIT;",
    ] {
        let plain = format!("{prepare} exec sh -c \"{state}\"");
        let plain = finish(clean("sh").args(["-c", &plain])).success();
        let script = format!("{prepare} exec \"$0\" run -q -o logs -- sh -c \"{state}\"");
        let mut command = clean("sh");
        command
            .current_dir(dir.path())
            .args(["-c", &script, env!("CARGO_BIN_EXE_memspy")]);
        let recorded = finish(&mut command).success();
        assert_eq!(recorded.stdout(), plain.stdout(), "after {prepare:?}");
    }
}

#[test]
fn the_program_has_only_the_descriptors_it_would_have() {
    let dir = TestDir::new();
    let list = ["ls", "-l", "/proc/self/fd"];
    let count = |listing: Finished| listing.success().stdout().lines().count();
    let plain = count(finish(clean(list[0]).args(&list[1..])));
    assert_eq!(count(finish(run(&dir).args(list))), plain);
}

#[test]
fn a_closed_standard_descriptor_stays_closed() {
    let dir = TestDir::new();
    for closing in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let program =
            "ls /proc/self/fd >open; echo out; echo $? >>open; echo err >&2; echo $? >>open";
        let plain = format!("sh -c '{program}' {closing}");
        finish(clean("sh").current_dir(dir.path()).args(["-c", &plain]));
        let expected = fs::read_to_string(dir.join("open")).expect("the program wrote it");
        let recorded = format!("exec \"$0\" run -q -o logs -- sh -c '{program}' {closing}");
        let mut command = clean("sh");
        command
            .current_dir(dir.path())
            .args(["-c", &recorded, env!("CARGO_BIN_EXE_memspy")]);
        finish(&mut command);
        let found = fs::read_to_string(dir.join("open")).expect("the program wrote it");
        assert_eq!(found, expected, "after {closing}");
    }
}

#[test]
fn the_environment_differs_by_what_memspy_adds() {
    let dir = TestDir::new();
    let names = |env: &Finished| -> Vec<String> {
        let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
        env.stdout()
            .lines()
            .map(name)
            .filter(|name| name != "_")
            .collect()
    };
    let plain = names(&finish(clean("env").env("MARK", "1")).success());
    let recorded = finish(run(&dir).arg("env").env("MARK", "1")).success();
    let added: Vec<String> = {
        let mut all = names(&recorded);
        all.retain(|name| !plain.contains(name));
        all.sort();
        all
    };
    assert_eq!(added, ["LD_PRELOAD", "MEMSPY_LOG", "XDG_CACHE_HOME"]);
}

#[test]
fn what_the_user_preloads_stays_first() {
    let dir = TestDir::new();
    let mut command = run(&dir);
    command
        .env("LD_PRELOAD", "libm.so.6")
        .args(["sh", "-c", "echo $LD_PRELOAD"]);
    let printed = finish(&mut command).success();
    let value = printed.stdout().trim_end();
    assert!(
        value.starts_with("libm.so.6:/") && value.ends_with("/libmemspy.so"),
        "{value}"
    );
}

#[test]
fn programs_that_can_not_be_executed_get_the_shells_codes() {
    let dir = TestDir::new();
    let directory = dir.path().to_str().expect("a plain path");
    let plain = dir.write("plain", "text\n");
    let binary = dir.write("binary", b"\x01\x00\x02\n");
    let lost = dir.write("lost", "#!/nonexistent/interpreter -x\n");
    let nameless = dir.write("nameless", "#!\n");
    for path in [&binary, &lost, &nameless] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod works");
    }
    let cases = [
        ("nonexistent-program", 127, "no such program"),
        ("./nonexistent", 127, "No such file"),
        (plain.to_str().expect("a plain path"), 126, "not executable"),
        (directory, 126, "is a directory"),
        (
            binary.to_str().expect("a plain path"),
            126,
            "neither an ELF program nor a script",
        ),
        (
            lost.to_str().expect("a plain path"),
            127,
            "/nonexistent/interpreter",
        ),
        (
            nameless.to_str().expect("a plain path"),
            126,
            "without an interpreter",
        ),
    ];
    for (program, code, why) in cases {
        let refused = finish(run(&dir).arg(program)).code(code);
        assert!(refused.stderr().contains(why), "{refused}");
        assert_eq!(refused.stderr().lines().count(), 1, "{refused}");
    }
    assert!(
        !dir.names().contains(&"logs".to_owned()),
        "a refusal leaves nothing behind"
    );
}

#[test]
fn a_text_file_without_an_interpreter_line_runs_in_the_shell() {
    let dir = TestDir::new();
    let script = dir.write("script", "echo from the shell; exit 7\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod works");
    let ran = finish(run(&dir).arg(&script)).code(7);
    assert_eq!(ran.stdout(), "from the shell\n");
}

#[test]
fn a_signal_sent_to_memspy_reaches_the_program() {
    let dir = TestDir::new();
    for (name, signal) in [
        ("TERM", libc::SIGTERM),
        ("HUP", libc::SIGHUP),
        ("USR1", libc::SIGUSR1),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut child = run(&dir)
            .args(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("memspy can be started");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let mut ready = [0; 6];
        stdout
            .read_exact(&mut ready)
            .expect("the program prints ready");
        let pid = child.id().to_string();
        finish(clean("kill").args([format!("-{signal}"), pid])).success();
        let mut rest = String::new();
        stdout
            .read_to_string(&mut rest)
            .expect("the program prints text");
        assert_eq!(rest, format!("got {name}\n"));
        assert_eq!(child.wait().expect("memspy ends").code(), Some(9));
    }
}

#[test]
fn static_programs_are_refused_in_one_line() {
    let dir = TestDir::new();
    let source = dir.write("hello.c", "int main(void) { return 0; }\n");
    let program = dir.join("hello");
    for flags in ["-static", "-static-pie"] {
        finish(clean("cc").arg(flags).arg("-o").arg(&program).arg(&source)).success();
        let refused = finish(run(&dir).arg(&program)).code(125);
        assert!(refused.stderr().contains("statically linked"), "{refused}");
        assert_eq!(refused.stderr().lines().count(), 1, "{refused}");
    }
}

#[test]
fn musl_programs_are_refused_in_one_line() {
    let dir = TestDir::new();
    let source = dir.write("hello.c", "int main(void) { return 0; }\n");
    let program = dir.join("hello");
    finish(clean("musl-gcc").arg("-o").arg(&program).arg(&source)).success();
    let refused = finish(run(&dir).arg(&program)).code(125);
    assert!(refused.stderr().contains("musl"), "{refused}");
}

#[test]
fn programs_for_other_machines_are_refused_in_one_line() {
    let dir = TestDir::new();
    let mut elf = fs::read("/bin/true").expect("/bin/true can be read");
    elf[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let arm = dir.write("arm", &elf);
    elf[4] = 1;
    let narrow = dir.write("narrow", &elf);
    for (program, why) in [(arm, "aarch64"), (narrow, "32-bit")] {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod works");
        let refused = finish(run(&dir).arg(&program)).code(125);
        assert!(refused.stderr().contains(why), "{refused}");
    }
}

#[test]
fn a_program_cut_at_any_byte_never_makes_memspy_panic() {
    let dir = TestDir::new();
    let elf = fs::read("/bin/true").expect("/bin/true can be read");
    let lengths = (0..600).chain((600..elf.len()).step_by(997));
    let program = dir.join("cut");
    for length in lengths {
        fs::write(&program, &elf[..length]).expect("the program can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod works");
        let cut = finish(run(&dir).arg(&program));
        assert!(!cut.stderr().contains("panicked"), "{cut}");
    }
}

#[test]
fn a_shim_path_with_a_blank_or_a_colon_is_not_used() {
    let dir = TestDir::new();
    for name in ["with blank", "with:colon"] {
        let cache = dir.join(name);
        let mut command = memspy();
        command
            .env("XDG_CACHE_HOME", &cache)
            .env("TMPDIR", dir.path())
            .arg("shim-path");
        let path = finish(&mut command)
            .success()
            .stdout()
            .trim_end()
            .to_owned();
        assert!(!path.contains([' ', ':']), "{path}");
        assert!(
            fs::metadata(&path).is_ok_and(|file| file.is_file()),
            "{path}"
        );
    }
}

#[test]
fn a_damaged_cached_shim_is_replaced() {
    let dir = TestDir::new();
    let path = || {
        let found = finish(memspy().env("XDG_CACHE_HOME", dir.path()).arg("shim-path")).success();
        found.stdout().trim_end().to_owned()
    };
    let shim = path();
    let whole = fs::read(&shim).expect("the shim can be read");
    fs::write(&shim, &whole[..100]).expect("the shim can be written");
    assert_eq!(path(), shim);
    assert!(fs::read(&shim).expect("the shim can be read") == whole);
}

#[test]
fn a_cache_that_others_can_write_to_is_not_used() {
    let dir = TestDir::new();
    let cache = dir.join("memspy");
    fs::create_dir(&cache).expect("the directory can be made");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("chmod works");
    let temporary = dir.join("tmp");
    fs::create_dir(&temporary).expect("the directory can be made");
    let mut command = memspy();
    command
        .env("XDG_CACHE_HOME", dir.path())
        .env("TMPDIR", &temporary)
        .arg("shim-path");
    let found = finish(&mut command).success();
    assert!(
        found
            .stdout()
            .starts_with(temporary.to_str().expect("a plain path")),
        "{found}"
    );
}

#[test]
fn a_job_stops_continues_and_is_interrupted_from_the_terminal() {
    let dir = TestDir::new();
    let driver = repository().join("tests/programs/job.py");
    let mut command = clean("python3");
    command
        .arg(driver)
        .arg(env!("CARGO_BIN_EXE_memspy"))
        .arg(dir.join("logs"))
        .arg(dir.join("job"));
    let driven = finish(&mut command).success();
    assert_eq!(
        driven.stdout(),
        "stopped\ncontinued\nstatus 44\n",
        "{driven}"
    );
}

#[test]
fn without_an_option_the_logs_go_to_a_directory_named_after_the_program() {
    let dir = TestDir::new();
    let ran = finish(
        memspy()
            .current_dir(dir.path())
            .args(["run", "--", "/bin/cat", "/dev/null"]),
    );
    ran.success();
    let names = dir.names();
    let [name] = names.as_slice() else {
        panic!("one directory, not {names:?}")
    };
    assert!(
        name.starts_with("memspy.cat.") && name.ends_with(".d"),
        "{name}"
    );
    let log = Log::of_program(&dir.join(name), "cat");
    let file = log
        .path
        .file_name()
        .expect("a log has a name")
        .to_string_lossy()
        .into_owned();
    assert_eq!(file, format!("memspy.cat.{}.jsonl", log.start()["pid"]));
    assert_eq!(log.end()["how"], "exit");
}

#[test]
fn memspy_says_on_stderr_how_the_program_ended_and_where_the_log_is() {
    let dir = TestDir::new();
    let run =
        |arguments: &[&str]| finish(memspy().current_dir(dir.path()).arg("run").args(arguments));
    let ran = run(&["-o", "some logs", "--", "sh", "-c", "exit 3"]).code(3);
    assert!(
        ran.stderr().contains("exit status 3") && ran.stderr().contains("some logs"),
        "{ran}"
    );
    assert_eq!(ran.stdout(), "");
    assert!(ran.stderr().contains("Where the memory came from"), "{ran}");
    let ran = run(&["-o", "killed", "--", "sh", "-c", "kill -9 $$"]).killed_by(libc::SIGKILL);
    assert!(ran.stderr().contains("killed by signal 9"), "{ran}");
    let leaks = run(&["-o", "leaks", "--mode", "leaks", "--", "true"]).success();
    assert!(leaks.stderr().contains("memspy leaks leaks"), "{leaks}");
    let quiet = run(&["-q", "-o", "quiet", "--", "true"]).success();
    assert_eq!(quiet.stderr(), "");
}

#[test]
fn a_directory_with_any_name_collects_the_logs() {
    let dir = TestDir::new();
    for name in ["with blank", "a:b", "100%p %e%%", "ü\u{1b}[1m", "deep/er"] {
        finish(
            memspy()
                .current_dir(dir.path())
                .args(["run", "-q", "-o", name, "--", "true"]),
        )
        .success();
        assert_eq!(Log::all_in(&dir.join(name)).len(), 1, "{name}");
    }
}

#[test]
fn every_process_of_the_tree_has_a_log_that_names_its_parent() {
    let dir = TestDir::new();
    shell(
        &dir,
        "cd /; ls >/dev/null; /bin/cat /dev/null | wc -c; true",
    )
    .success();
    let logs = dir.join("logs");
    let pid = |program: &str| Log::of_program(&logs, program).start()["ppid"].clone();
    let all = Log::all_in(&logs);
    let is_shell = |log: &&Log| {
        log.start()["exe"]
            .as_str()
            .is_some_and(|exe| exe.ends_with("sh"))
    };
    // Each child of the shell began as a copy of it; only the first one has no parent in the log.
    let root = all
        .iter()
        .filter(is_shell)
        .find(|log| log.start().get("parent").is_none());
    let root = root.expect("the shell has a log");
    for program in ["ls", "cat", "wc"] {
        assert_eq!(pid(program), root.start()["pid"], "{program}");
    }
}

#[test]
fn no_follow_records_the_program_alone() {
    let dir = TestDir::new();
    let mut command = memspy();
    command
        .current_dir(dir.path())
        .args(["run", "-q", "--no-follow", "-o", "logs", "--"]);
    finish(command.args(["sh", "-c", "ls / >/dev/null; (exit 3); exec cat /dev/null"])).success();
    let mut programs: Vec<String> = Log::all_in(&dir.join("logs"))
        .iter()
        .map(|log| {
            log.start()["exe"]
                .as_str()
                .unwrap_or_default()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    programs.sort();
    assert_eq!(
        programs.len(),
        2,
        "the shell and what it became: {programs:?}"
    );
    assert_eq!(programs[0], "cat");
}

#[test]
fn a_program_that_becomes_a_static_one_is_named() {
    let dir = TestDir::new();
    let source = dir.write("hello.c", "int main(void) { return 5; }\n");
    let program = dir.join("hello");
    finish(
        clean("cc")
            .arg("-static")
            .arg("-o")
            .arg(&program)
            .arg(&source),
    )
    .success();
    let script = format!("exec {}", program.display());
    let ran = shell(&dir, &script).code(5);
    assert!(
        ran.stderr().contains("went on from") && ran.stderr().contains("left no log"),
        "{ran}"
    );
    let failed = shell(&dir, "exec /nonexistent 2>/dev/null").code(127);
    assert!(!failed.stderr().contains("went on from"), "{failed}");
}

#[test]
fn options_reach_the_recorder() {
    let dir = TestDir::new();
    let run = |name: &str, options: &[&str]| {
        let mut command = memspy();
        command
            .current_dir(dir.path())
            .args(["run", "-q", "-o", name])
            .args(options);
        finish(command.args(["--", "true"])).success();
        Log::of_program(&dir.join(name), "true")
    };
    let plain = run("plain", &[]);
    assert_eq!(plain.start()["mode"], "events");
    assert!(plain.ops("map").count() > 0);
    let stacks = run("stacks", &["--stacks", "off"]);
    assert_eq!(stacks.start()["stacks"], "off");
    assert_eq!(stacks.ops("stack").count(), 0);
    assert_eq!(
        run("maps", &["--maps", "off", "--buffer", "128K"])
            .ops("map")
            .count(),
        0
    );
    let wrong = finish(memspy().args(["run", "--stacks", "sideways", "--", "true"])).code(125);
    assert!(wrong.stderr().contains("sideways"), "{wrong}");
}

#[test]
fn preloaded_by_hand_the_log_appears_here_and_nothing_else_does() {
    let dir = TestDir::new();
    dir.write("file", "some text\n");
    let mut command = preloaded("cat", &dir);
    let ran = finish(
        command
            .env_remove("MEMSPY_LOG")
            .current_dir(dir.path())
            .arg("file"),
    )
    .success();
    assert_eq!((ran.stdout(), ran.stderr()), ("some text\n", ""));
    let names = dir.names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[1].starts_with("memspy.cat.") && names[1].ends_with(".jsonl"),
        "{names:?}"
    );
}

#[test]
fn the_log_of_cat_names_the_call_behind_the_mapping_that_strace_shows() {
    for dir in [TestDir::new(), TestDir::on_tmpfs()] {
        let file = dir.write("file", "some text\n");
        finish(preloaded("cat", &dir).arg(&file)).success();
        let log = Log::only_in(&dir);
        let buffer = log.only("aligned_alloc", Some(131_072));
        assert_eq!(buffer["align"], 4096);
        let mapped = log.only("mmap", None);
        assert_eq!(
            (&mapped["via"], &mapped["size"]),
            (&"aligned_alloc".into(), &139_264.into())
        );
        let start = address(&mapped["addr"]);
        assert!(
            (start..start + 139_264).contains(&address(&buffer["ptr"])),
            "{mapped} {buffer}"
        );
        // The witness: the same number of calls with the same length, strace's only.
        let trace = dir.join("trace");
        let mut strace = clean("strace");
        strace
            .args(["-e", "trace=mmap", "-o"])
            .arg(&trace)
            .arg("cat")
            .arg(&file);
        finish(&mut strace).success();
        let trace = fs::read_to_string(&trace).expect("strace wrote its trace");
        assert_eq!(trace.matches("mmap(NULL, 139264, ").count(), 1, "{trace}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_said_once_and_ignored() {
    let dir = TestDir::new();
    let ran = finish(
        preloaded("cat", &dir)
            .env("MEMSPY_STACKS", "sideways")
            .arg("/dev/null"),
    )
    .success();
    assert_eq!(ran.stderr().lines().count(), 1, "{ran}");
    assert!(
        ran.stderr().starts_with("memspy: ") && ran.stderr().contains("MEMSPY_STACKS=sideways"),
        "{ran}"
    );
    assert_eq!(Log::only_in(&dir).start()["stacks"], "full");
}
