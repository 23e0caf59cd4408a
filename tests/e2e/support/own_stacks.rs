//! Logs with call stacks that a program took itself: names can be tested without the shim's unwinder.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{TestDir, clean, finish};

/// What `own_stacks.cpp` printed: its allocations and where its files were mapped.
pub(crate) struct OwnStacks {
    /// Size and return addresses, innermost first.
    pub(crate) allocations: Vec<(u64, Vec<u64>)>,
    /// The mapped files; a test may change what the log says of them.
    pub(crate) modules: Vec<OwnModule>,
}

/// A mapped file.
#[derive(Clone)]
pub(crate) struct OwnModule {
    /// As the log is to have it.
    pub(crate) path: PathBuf,
    /// Hexadecimal.
    pub(crate) build_id: Option<String>,
    from: u64,
    to: u64,
}

impl OwnStacks {
    /// Runs the program, without memspy.
    pub(crate) fn of(program: &Path) -> Self {
        let answer = finish(&mut clean(program)).success();
        let mut own = Self {
            allocations: Vec::new(),
            modules: Vec::new(),
        };
        for line in answer.stdout().lines() {
            match line.strip_prefix("alloc ") {
                Some(rest) => own.allocations.push(allocation(rest)),
                None => own.mapping(line),
            }
        }
        assert!(
            !own.allocations.is_empty() && !own.modules.is_empty(),
            "{answer}"
        );
        own
    }

    /// Takes in a line of /proc/self/maps.
    fn mapping(&mut self, line: &str) {
        let Some(path) = line.find(" /").map(|at| PathBuf::from(&line[at + 1..])) else {
            return;
        };
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (hex(from), hex(to));
        match self.modules.iter_mut().find(|module| module.path == path) {
            Some(module) => module.to = to,
            None => self.modules.push(OwnModule {
                build_id: build_id(&path),
                path,
                from,
                to,
            }),
        }
    }

    /// The module of the program itself.
    pub(crate) fn program(&mut self) -> &mut OwnModule {
        &mut self.modules[0]
    }

    /// Adds another copy of the program, loaded elsewhere, in which the first allocation happens too.
    pub(crate) fn add_copy(&mut self, module: OwnModule) {
        let shift = 0x1_0000_0000 * self.modules.len() as u64;
        let program = self.modules[0].from..self.modules[0].to;
        let (size, ips) = &self.allocations[0];
        let moved = ips.iter().map(|ip| {
            if program.contains(ip) {
                ip - shift
            } else {
                *ip
            }
        });
        let allocation = (*size, moved.collect());
        self.allocations.push(allocation);
        let (from, to) = (program.start - shift, program.end - shift);
        self.modules.push(OwnModule { from, to, ..module });
    }

    /// Writes the log: each allocation with its stack, each but the last freed at once.
    pub(crate) fn log(&self, directory: &TestDir) -> PathBuf {
        let mut lines = Lines::default();
        for (module, id) in self.modules.iter().zip(1..) {
            let mut line = json!({"op": "module", "t": 0, "id": id, "base": address(module.from),
                "size": module.to - module.from, "bias": address(module.from),
                "path": module.path.to_str().unwrap()});
            if let Some(build_id) = &module.build_id {
                line["build_id"] = json!(build_id);
            }
            lines.add(line);
        }
        let mut nodes: Vec<(u64, u64)> = Vec::new();
        for (number, (size, ips)) in self.allocations.iter().enumerate() {
            let mut parent = 0;
            for &ip in ips.iter().rev() {
                let known = nodes.iter().position(|node| *node == (parent, ip));
                let id = known.map_or(nodes.len() as u64 + 1, |at| at as u64 + 1);
                if known.is_none() {
                    nodes.push((parent, ip));
                    lines.add(self.node(id, parent, ip));
                }
                parent = id;
            }
            let ptr = address(0x10000 * (number as u64 + 1));
            lines.add(json!({"op": "malloc", "t": 0, "size": size, "ptr": ptr, "stack": parent}));
            if number + 1 < self.allocations.len() {
                lines.add(json!({"op": "free", "t": 0, "ptr": ptr}));
            }
        }
        let log = directory.join("memspy.own_stacks.4711.jsonl");
        fs::write(&log, lines.log(&self.modules[0].path)).unwrap();
        log
    }

    fn node(&self, id: u64, parent: u64, ip: u64) -> Value {
        let mut line =
            json!({"op": "stack", "t": 0, "id": id, "parent": parent, "ip": address(ip)});
        let inside = |module: &OwnModule| (module.from..module.to).contains(&ip);
        if let Some(at) = self.modules.iter().position(inside) {
            line["module"] = json!(at + 1);
        }
        line
    }
}

/// The lines of one thread.
#[derive(Default)]
struct Lines(Vec<Value>);

impl Lines {
    fn add(&mut self, mut line: Value) {
        line["t"] = json!(self.0.len() + 1);
        self.0.push(line);
    }

    fn log(mut self, exe: &Path) -> String {
        let events = self.0.len() + 1;
        self.add(
            json!({"op": "end", "t": 0, "how": "exit", "streams": 1, "open": [[1, events]],
            "lost": 0, "abandoned": 0, "mapped": 0}),
        );
        let mut text = String::new();
        for line in &self.0 {
            writeln!(text, "{}", op_first(line)).unwrap();
        }
        let start = json!({"op": "start", "v": 1, "pid": 4711, "ppid": 1, "exe": exe.to_str().unwrap(),
            "argv": [], "cwd": "/", "unix_ns": 4_000_000_000_000_000_000u64, "mono_ns": 5, "boot_id": "x",
            "start_ticks": 1, "pid_ns": 1, "memspy": "0.1.0", "libc": "glibc 2.36", "allocator": "glibc",
            "inference": true, "clock": "tsc", "mode": "events", "stacks": "full", "page": 4096});
        let block = json!({"op": "block", "thread": 1, "tid": 4711, "n": 1, "events": events,
            "bytes": text.len(), "t": 1, "until": events});
        format!("{}\n{}\n{text}", op_first(&start), op_first(&block))
    }
}

/// The line with `op` first, as the format has it: serde_json sorts.
fn op_first(line: &Value) -> String {
    let mut rest = line.clone();
    let op = rest.as_object_mut().unwrap().remove("op").unwrap();
    format!("{{\"op\":{op},{}", &rest.to_string()[1..])
}

fn allocation(text: &str) -> (u64, Vec<u64>) {
    let mut words = text.split(' ');
    let size = words.next().unwrap().parse().unwrap();
    (
        size,
        words.map(|ip| hex(ip.trim_start_matches("0x"))).collect(),
    )
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}

fn address(address: u64) -> String {
    format!("{address:#x}")
}

/// The build id of a file, as readelf prints it.
pub(crate) fn build_id(path: &Path) -> Option<String> {
    let answer = finish(clean("readelf").arg("-n").arg(path));
    let text = String::from_utf8_lossy(&answer.stdout_bytes).into_owned();
    let id = text.split("Build ID: ").nth(1)?;
    Some(id.split_whitespace().next()?.to_string())
}
