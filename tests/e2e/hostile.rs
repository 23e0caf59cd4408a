//! Logs whose every name is hostile, through every report: nothing of them may act on a terminal, a browser, a CI service
//! or the reader of a format.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Finished, OwnStacks, TestDir, clean, compile_with, finish, memspy};

/// Sets a window's title, ends lines, gives an order to GitHub, closes CDATA, opens elements, turns text round, begins a
/// formula of a table, runs a command in a shell. As a JSON string, with a byte that is no UTF-8 at its end.
const EVIL: &str = r#"=cmd\u001b]0;t\u0007\r\n::error::owned\n::set-output name=x::y\u009b31m]]><script>alert(1)</script>&amp;\"'\u202e\u2066$(id)`id`;%0A\u0000\udcff"#;

/// What a report is written as.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    /// One document, or one on each line.
    Json,
    Xml,
    /// gzip around protocol buffers.
    Pprof,
}
use Form::{Json, Pprof, Text, Xml};

/// Every way to print something of a log. `LOG` stands for the log, `SVG` for a file that is then looked at.
const REPORTS: [(&[&str], Form); 34] = [
    (&["summary", "LOG"], Text),
    (&["summary", "LOG", "LOG"], Text),
    (&["summary", "--json", "LOG"], Json),
    (&["events", "LOG"], Text),
    (&["events", "--json", "LOG"], Json),
    (&["sites", "LOG"], Text),
    (&["sites", "--by", "module", "LOG"], Text),
    (&["sites", "--by", "file", "--source", "LOG"], Text),
    (&["sites", "--json", "LOG"], Json),
    (&["diff", "LOG", "LOG"], Text),
    (&["diff", "--json", "LOG", "LOG"], Json),
    (&["maps", "LOG"], Text),
    (&["maps", "--explain", "LOG"], Text),
    (&["maps", "--json", "LOG"], Json),
    (&["maps", "--svg", "SVG", "LOG"], Xml),
    (&["explain", "LOG"], Text),
    (&["explain", "--json", "LOG"], Json),
    (&["where", "LOG", "0x10000"], Text),
    (&["where", "--json", "LOG", "0x10000"], Json),
    (&["where", "LOG", "0x7f0000000100"], Text),
    (&["timeline", "LOG"], Text),
    (&["timeline", "--json", "LOG"], Json),
    (&["timeline", "--svg", "SVG", "LOG"], Xml),
    (&["flamegraph", "-o", "SVG", "LOG"], Xml),
    (&["export", "--to", "folded", "-o", "-", "LOG"], Text),
    (&["export", "--to", "speedscope", "-o", "-", "LOG"], Json),
    (&["export", "--to", "pprof", "-o", "-", "LOG"], Pprof),
    (&["leaks", "LOG"], Text),
    (&["leaks", "--json", "LOG"], Json),
    (&["check", "--max-peak", "1", "LOG"], Text),
    (
        &["check", "--format", "json", "--max-peak", "1", "LOG"],
        Json,
    ),
    (
        &["check", "--format", "sarif", "--max-peak", "1", "LOG"],
        Json,
    ),
    (
        &["check", "--format", "junit", "--max-peak", "1", "LOG"],
        Xml,
    ),
    (&["recover", "LOG"], Text),
];

/// A log with a line of each kind whose strings are all hostile; it has no end, so that reports have more to say.
fn hostile_log(directory: &Path) -> PathBuf {
    let mut lines: Vec<String> = vec![
        format!(r#"{{"op":"thread","t":1,"thread":1,"name":"{EVIL}","sp":"0x7ffc00000000"}}"#),
        format!(r#"{{"op":"module","t":2,"id":1,"base":"0x400000","size":8192,"bias":"0x0","path":"/opt/{EVIL}","build_id":"{EVIL}"}}"#),
        r#"{"op":"stack","t":3,"id":1,"parent":0,"module":1,"ip":"0x400100"}"#.into(),
        r#"{"op":"snapshot","t":4,"id":1,"when":"start","maps":2,"brk":"0x500000"}"#.into(),
        format!(r#"{{"op":"map","t":4,"snapshot":1,"from":"0x400000","to":"0x402000","perms":"r-xp","offset":0,"inode":7,"path":"/opt/{EVIL}","rss":4096}}"#),
        format!(r#"{{"op":"map","t":4,"snapshot":1,"from":"0x7f0000000000","to":"0x7f0000002000","perms":"rw-p","offset":0,"inode":8,"path":"/dev/{EVIL} (deleted)","rss":4096}}"#),
        r#"{"op":"malloc","t":5,"size":4096,"ptr":"0x10000","stack":1}"#.into(),
        r#"{"op":"mmap","t":6,"addr":"0x7f0000010000","size":139264,"prot":3,"flags":34,"fd":-1,"offset":0,"stack":1}"#.into(),
        format!(r#"{{"op":"brk","t":7,"from":"0x500000","to":"0x521000","via":"{EVIL}"}}"#),
        format!(r#"{{"op":"malloc","t":8,"size":1,"err":"{EVIL}"}}"#),
        format!(r#"{{"op":"mark","t":9,"name":"{EVIL}"}}"#),
        format!(r#"{{"op":"{EVIL}","t":10}}"#),
        format!(r#"{{"op":"stopped","t":11,"why":"{EVIL}","lost":0}}"#),
        r#"{"op":"snapshot","t":12,"id":2,"when":"exit","maps":1,"brk":"0x521000"}"#.into(),
        format!(r#"{{"op":"map","t":12,"snapshot":2,"from":"0x400000","to":"0x402000","perms":"r-xp","offset":0,"inode":7,"path":"/opt/{EVIL}","rss":4096}}"#),
        format!(r#"{{"op":"free","t":13,"ptr":"{EVIL}"}}"#),
    ];
    lines.push(format!(r#"{{"op":"end","t":20,"how":"{EVIL}","streams":2,"open":[[1,{}]],"lost":0,"abandoned":0,"mapped":1}}"#, lines.len() + 1));
    let mut text = format!(
        r#"{{"op":"start","v":1,"pid":4711,"ppid":1,"exe":"/opt/{EVIL}","argv":["{EVIL}","{EVIL}"],"cwd":"/{EVIL}","unix_ns":4000000000000000000,"mono_ns":5,"boot_id":"{EVIL}","start_ticks":1,"pid_ns":1,"memspy":"{EVIL}","libc":"{EVIL}","allocator":"{EVIL}","inference":true,"clock":"{EVIL}","mode":"{EVIL}","stacks":"{EVIL}","page":4096,"forked_from":{{"pid":4700,"log":"/{EVIL}.jsonl","streams":0,"cut":[]}}}}"#
    );
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    let (count, last) = (lines.len(), 20);
    write!(text, "\n{{\"op\":\"block\",\"thread\":1,\"tid\":4711,\"n\":1,\"events\":{count},\"bytes\":{bytes},\"t\":1,\"until\":{last}}}\n").unwrap();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    // The file's own name is hostile too, as far as file names can be.
    let log = directory.join("memspy.\u{1b}]0;t\u{7}\n::error::owned<b>\u{202e}&\"'.4711.jsonl");
    fs::write(&log, text).expect("the log can be written");
    log
}

/// A log of a program one of whose functions has a hostile name.
fn hostile_function(directory: &TestDir) -> PathBuf {
    let program = compile_with("own_stacks.cpp", &["-g0"]);
    let copy = directory.join("own_stacks");
    let evil = "=cmd\u{1b}]0;t\u{7}::error::owned\u{9b}31m]]><script>alert(1)</script>&\"'\u{202e}";
    let names = directory.write("names", format!("keep_name {evil}\n"));
    let mut objcopy = clean("objcopy");
    finish(
        objcopy
            .arg("--redefine-syms")
            .arg(names)
            .arg(program)
            .arg(&copy),
    )
    .success();
    OwnStacks::of(&copy).log(directory)
}

/// Runs one report of a log.
fn report(words: &[&str], log: &Path, svg: &Path) -> Finished {
    let mut command = memspy();
    for word in words {
        match *word {
            "LOG" => command.arg(log),
            "SVG" => command.arg(svg),
            word => command.arg(word),
        };
    }
    finish(&mut command)
}

/// Asserts that a text moves no terminal, turns no line round and gives a CI service no order.
#[track_caller]
fn assert_tame(text: &str, of: &str) {
    let wild = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text.chars().find(wild);
    assert_eq!(found, None, "{of}: {text:?}");
    let order = text
        .lines()
        .find(|line| line.trim_start().starts_with("::"));
    assert_eq!(order, None, "{of}: {text:?}");
}

/// What Python says of a document: it must be well-formed, without any element or attribute that acts.
const XML: &str = "
import sys, xml.dom.minidom
for node in xml.dom.minidom.parse(sys.argv[1]).getElementsByTagName('*'):
    own = node.tagName != 'script' or 'alert(1)' not in ''.join(child.data for child in node.childNodes)
    assert own, node.toxml()
    assert all('alert(1)' not in value for name, value in node.attributes.items() if name.startswith('on'))
";

/// The strings of a profile must be there without control bytes.
const PPROF: &str = "
import gzip, sys
data = gzip.decompress(open(sys.argv[1], 'rb').read())
assert b'\\x1b]' not in data and b'\\r::' not in data, data
";

#[track_caller]
fn assert_python_agrees(script: &str, file: &Path) {
    finish(clean("python3").args(["-c", script]).arg(file)).success();
}

/// Runs every report of a log and holds what it prints against its form.
fn assert_reports_are_tame(log: &Path, place: &TestDir) {
    for (words, form) in REPORTS {
        let file = place.join("output");
        let _ = fs::remove_file(&file);
        let ended = report(words, log, &file);
        let of = words.join(" ");
        assert!(ended.status.code().is_some_and(|code| code != 2), "{ended}");
        assert_tame(ended.stderr(), &of);
        if !file.exists() {
            fs::write(&file, &ended.stdout_bytes).unwrap();
        } else {
            assert_tame(ended.stdout(), &of);
        }
        let written = fs::read(&file).unwrap();
        if form == Pprof {
            assert_python_agrees(PPROF, &file);
            continue;
        }
        let text = String::from_utf8(written).unwrap_or_else(|why| panic!("{of}: {why}"));
        assert_tame(&text, &of);
        match form {
            Json => {
                let documents = serde_json::Deserializer::from_str(&text);
                for document in documents.into_iter::<serde::de::IgnoredAny>() {
                    document.unwrap_or_else(|why| panic!("{of}: {why}: {text}"));
                }
            }
            Xml if !text.is_empty() => assert_python_agrees(XML, &file),
            _ => {}
        }
    }
}

#[test]
fn no_name_of_a_log_acts_on_whoever_reads_a_report() {
    let place = TestDir::new();
    assert_reports_are_tame(&hostile_log(place.path()), &place);
}

#[test]
fn no_name_of_a_function_acts_on_whoever_reads_a_report() {
    let place = TestDir::new();
    let log = hostile_function(&place);
    let sites = report(&["sites", "LOG"], &log, &log).success();
    assert!(sites.stdout().contains("owned"), "{sites}");
    assert_reports_are_tame(&log, &place);
}
