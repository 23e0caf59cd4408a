//! What an observer of the host could see: nothing but the preload itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::oracle::{assert_same, record_program};
use crate::support::{Log, TestDir, clean, compile, finish, preloaded, shim};

/// A library that does nothing, at a path as long as the shim's, so that both runs have environments of equal length.
fn empty_preload(work: &TestDir) -> PathBuf {
    let wanted = shim().as_os_str().len();
    let source = work.write("empty.c", "");
    let short = work.path().as_os_str().len() + "/.so".len();
    assert!(
        wanted > short,
        "{wanted} bytes are too few for a path in {:?}",
        work.path()
    );
    let path = work.join(format!("{}.so", "x".repeat(wanted - short)));
    let mut cc = clean("cc");
    finish(cc.args(["-shared", "-o"]).arg(&path).arg(source)).success();
    path
}

#[test]
fn blocks_lie_where_they_would_lie() {
    let work = TestDir::on_tmpfs();
    let logs = TestDir::on_tmpfs();
    let run = |preload: &Path| {
        let mut command = clean("setarch");
        command
            .args(["-R", compile("pointers.c").to_str().unwrap()])
            .env("LD_PRELOAD", preload)
            .env("MEMSPY_LOG", format!("{}/", logs.path().display()));
        finish(&mut command).success()
    };
    let (plain, recorded) = (run(&empty_preload(&work)), run(shim()));
    assert!(!logs.names().is_empty());
    assert_same(&plain, &recorded);
}

#[test]
fn threads_signals_descriptors_limits_and_environment_stay_as_they_are() {
    let work = TestDir::on_tmpfs();
    let logs = TestDir::on_tmpfs();
    let run = |preload: &Path| {
        // By way of a shell: a new process's table of descriptors is as large as its parent's highest descriptor needs,
        // and that of these tests, which run at the same time, is now this and now that.
        let mut command = clean("sh");
        command
            .args(["-c", "LD_PRELOAD=$1 \"$0\"; exit $?"])
            .arg(compile("host_state.c"))
            .arg(preload)
            .current_dir(work.path())
            .env("MEMSPY_LOG", format!("{}/", logs.path().display()));
        finish(&mut command).success()
    };
    let (plain, recorded) = (run(&empty_preload(&work)), run(shim()));
    let but_the_preload = |text: &str| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.starts_with("LD_PRELOAD="));
        kept.map(str::to_owned).collect()
    };
    assert_eq!(
        but_the_preload(plain.stdout()),
        but_the_preload(recorded.stdout())
    );
    assert_eq!(logs.names().len(), 1, "it was recorded");
    assert_eq!(recorded.stderr(), "");
}

/// Programs as they are used, without clocks and process numbers in what they print.
fn real_programs() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("cat", vec!["/etc/passwd"]),
        ("ls", vec!["-la", "/usr/bin"]),
        ("sort", vec!["-r", "/etc/services"]),
        ("find", vec!["/usr/share/perl5", "-name", "*.pm"]),
        ("grep", vec!["-rc", "the", "/usr/share/common-licenses"]),
        (
            "awk",
            vec!["{n[$1]++} END {print length(n)}", "/etc/services"],
        ),
        ("sed", vec!["-n", "s/tcp/TCP/p", "/etc/services"]),
        (
            "tar",
            vec!["cf", "-", "-C", "/usr/share", "common-licenses"],
        ),
        (
            "sh",
            vec![
                "-c",
                "gzip -9nc /etc/services | gunzip | md5sum; xz -c /etc/services | xz -d | wc",
            ],
        ),
        (
            "bash",
            vec![
                "-c",
                "for i in {1..300}; do a[i]=$((i*i)); done; echo ${a[@]} | wc; (exit 3); echo $?",
            ],
        ),
        (
            "bash",
            vec![
                "-c",
                "trap 'echo trapped' USR1; kill -USR1 $BASHPID; x=$(echo $(echo deep)); echo $x; ulimit -a",
            ],
        ),
        (
            "perl",
            vec![
                "-e",
                "my %h = map { $_ => $_ ** 2 } 1..20000; my $s = 0; $s += $_ for values %h; print \"$s\\n\"; exit 3",
            ],
        ),
        (
            "/usr/bin/python3",
            vec![
                "-c",
                "import json, threading, subprocess\nt = [threading.Thread(target=lambda: json.dumps(list(range(9999)))) for _ in range(8)]\n[x.start() for x in t]; [x.join() for x in t]\nprint(subprocess.check_output(['echo', 'hello']))",
            ],
        ),
        (
            "/usr/bin/python3",
            vec![
                "-c",
                "import mmap, ctypes\nm = mmap.mmap(-1, 1 << 20); m[0:5] = b'hello'; m.resize(1 << 22); print(m[0:5], len(m)); m.close()\nlibc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p; p = libc.malloc(20001); libc.free(ctypes.c_void_p(p)); print('freed')",
            ],
        ),
        (
            "sqlite3",
            vec![
                ":memory:",
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) SELECT sum(i), count(DISTINCT i % 97) FROM n;",
            ],
        ),
        ("tclsh", vec!["/dev/null"]),
        (
            "node",
            vec![
                "-e",
                "let m = new Map(); for (let i = 0; i < 200000; i++) m.set('k' + i, {i}); console.log(m.size); process.exitCode = 4",
            ],
        ),
        ("java", vec!["-version"]),
        (
            "luajit",
            vec![
                "-e",
                "local t = {} for i = 1, 300000 do t[i] = {i} end print(#t)",
            ],
        ),
        (
            "gcc",
            vec!["-O1", "-S", "-o", "-", "-x", "c", "/usr/include/stdlib.h"],
        ),
        ("git", vec!["hash-object", "/etc/services"]),
        ("bash", vec!["-c", GIT]),
        ("bash", vec!["-c", MAKE]),
        ("bash", vec!["-c", SQLITE]),
        ("ssh-keygen", vec!["-l", "-f", "/dev/null"]),
        ("file", vec!["/bin/sh", "/etc/passwd"]),
        ("openssl", vec!["dgst", "-sha256", "/etc/services"]),
        ("cat", vec!["/nonexistent"]),
        ("sh", vec!["-c", "kill -SEGV $$"]),
        ("sh", vec!["-c", "yes | head -1000 | md5sum"]),
        ("timeout", vec!["-s", "TERM", "0.2", "sleep", "60"]),
    ]
}

/// A repository with some history, cloned, packed, checked; by a git that the environment tells nothing.
const GIT: &str = "\
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='@1800000000 +0000' GIT_COMMITTER_DATE='@1800000000 +0000'
git config --global user.name A && git config --global user.email a@example.org && git init -q -b main source
for i in $(seq 120); do
    printf 'commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 2\nx\n' $((1700000000 + i))
    printf 'M 100644 inline d%d/f%d\ndata %d\n%s\n' $((i % 3)) $((i % 20)) 9 $((100000000 + i))
done | git -C source fast-import --quiet
git clone -q --no-local source clone && cd clone && git -c pack.threads=2 gc -q --prune=now && git fsck --full
git checkout -q -b side HEAD~50 && echo more >>d1/f1 && git commit -qam side && git merge -q main -m merged
git log --stat | md5sum; git rev-parse side main; git archive main | md5sum; ls .git/objects/pack | wc -l";

/// A small project of C files, built by two jobs at once, then nothing to do, then one file again.
const MAKE: &str = "\
command -v make >/dev/null || exit 0
for i in 1 2 3 4 5; do printf 'int f%d(void) { return %d; }\n' $i $i >f$i.c; done
printf 'int f3(void); int main(void) { return f3(); }\n' >main.c
printf 'objects := $(patsubst %%.c,%%.o,$(wildcard *.c))\nprogram: $(objects)\n\t$(CC) -o $@ $^\n' >Makefile
make -s -j2 && make -j2; touch f2.c; make -n; ./program; echo $?";

/// A database on disk: two connections at once, which wait for each other, a missing table, a vacuum.
const SQLITE: &str = "\
sqlite3 d.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); WITH RECURSIVE n(i) AS \
(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) INSERT INTO t SELECT i, hex(i * i) FROM n; CREATE INDEX tb ON t(b);'
sqlite3 -cmd '.timeout 60000' d.db 'SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;' >one &
sqlite3 -cmd '.timeout 60000' d.db 'SELECT count(*) FROM t AS x JOIN t AS y ON x.b = y.b'; wait; cat one
sqlite3 d.db 'SELECT * FROM missing'; sqlite3 d.db 'VACUUM'; sqlite3 d.db .dump | md5sum";

/// The place of a program in the PATH.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places.find(|place| place.is_file())
}

#[test]
fn real_programs_print_and_end_as_without_memspy() {
    let mut ran = 0;
    for (program, arguments) in real_programs() {
        let Some(path) = which(program) else {
            eprintln!("not installed, not tried: {program}");
            continue;
        };
        let recorded = record_program(&path, &arguments);
        assert!(!recorded.logs.names().is_empty(), "{program}");
        ran += 1;
    }
    assert!(ran >= 15, "{ran} programs");
}

#[test]
fn jq_reads_every_line_of_every_log() {
    let logs = TestDir::new();
    let script = "ls -l /usr/bin | sort | awk '{print $1}' >/dev/null; perl -e 'fork; my @a = (1) x 9999'; \
                  python3 -c 'print(1)'; printf 'odd\\377\\n' | cat";
    let mut shell = preloaded("/bin/bash", &logs);
    finish(shell.args(["-c", script, "name \u{1b}[31m \"quoted\" \\ \u{7f}"])).success();
    let mut programs = BTreeSet::new();
    for log in Log::all_in(logs.path()) {
        let mut jq = clean("jq");
        let counted = finish(jq.args(["-c", ".op"]).arg(&log.path)).success();
        assert_eq!(counted.stdout().lines().count(), log.lines.len());
        programs.insert(log.start()["exe"].as_str().unwrap().to_owned());
    }
    assert!(programs.len() >= 5, "{programs:?}");
}

#[test]
fn a_relative_place_and_the_default_place_are_where_the_program_started() {
    let work = TestDir::new();
    let script = "cd / && cat /dev/null";
    for (template, place) in [
        (None, "."),
        (Some("%e-%p.jsonl"), "."),
        (Some("logs/"), "logs"),
    ] {
        fs::create_dir_all(work.join("logs")).unwrap();
        let mut command = clean("sh");
        command
            .current_dir(work.path())
            .env("LD_PRELOAD", shim())
            .args(["-c", script]);
        if let Some(template) = template {
            command.env("MEMSPY_LOG", template);
        }
        finish(&mut command).success();
        let shells: Vec<Log> = Log::all_in(&work.join(place))
            .into_iter()
            .filter(|log| log.start()["exe"].as_str().unwrap().ends_with("sh"))
            .collect();
        assert_eq!(shells.len(), 1, "{template:?}: {:?}", work.names());
        for log in Log::all_in(&work.join(place)) {
            fs::remove_file(log.path).unwrap();
        }
    }
}
