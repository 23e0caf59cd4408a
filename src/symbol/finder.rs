//! The finder: hands modules to worker processes, and outlives them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::names::{Names, Note};
use crate::wire::{Answer, Files, Request};
use crate::{Frame, Module, Options, Problem, debuginfod};

/// How a worker is started: a program that calls [`crate::worker::serve`] on its standard streams.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Finds the names of code addresses.
#[derive(Debug)]
pub struct Finder {
    /// How to start a worker.
    pub worker: Worker,
    /// Where to look.
    pub options: Options,
    /// How many workers at once; at least one is used.
    pub workers: usize,
    /// How long a worker may be silent over one address or one file before it is given up.
    pub patience: Duration,
    /// Grows by one with each address that was looked up, while [`Finder::find`] runs.
    pub named: AtomicUsize,
}

/// One piece of work.
enum Task {
    Locate {
        module: usize,
    },
    /// `strict`: only the plain symbol table; a worker died over the rest.
    Name {
        module: usize,
        files: Files,
        addresses: Vec<u64>,
        strict: bool,
    },
}

/// Below this many addresses a module is not split between the workers: opening the file twice
/// would cost more.
const SPLIT: usize = 2048;

impl Finder {
    /// The names at `wanted[i]`, addresses as they stand in the file of `modules[i]`.
    pub fn find(&self, modules: &[Module], wanted: &[Vec<u64>]) -> Names {
        let search = Search {
            finder: self,
            modules,
            wanted,
            queue: Mutex::new(
                (0..modules.len())
                    .filter(|&module| wanted.get(module).is_some_and(|list| !list.is_empty()))
                    .map(|module| Task::Locate { module })
                    .collect(),
            ),
            names: Mutex::default(),
            idle: Mutex::default(),
        };
        // Two rounds: a module is located once, and then its addresses are split.
        for _round in 0..2 {
            search.drain();
            let located = std::mem::take(&mut lock(&search.names).located);
            *lock(&search.queue) = located
                .into_iter()
                .flat_map(|(module, files)| search.split(module, files))
                .collect();
        }
        let mut names = lock(&search.names);
        names.found.notes.sort_by_key(|note| note.module);
        names.found.notes.dedup();
        std::mem::take(&mut names.found)
    }
}

/// A search under way, shared by the threads that look after the workers.
struct Search<'a> {
    finder: &'a Finder,
    modules: &'a [Module],
    wanted: &'a [Vec<u64>],
    queue: Mutex<VecDeque<Task>>,
    names: Mutex<Results>,
    /// Workers of the first round for the second: to start one takes longer than to name a few addresses.
    idle: Mutex<Vec<Link>>,
}

#[derive(Default)]
struct Results {
    found: Names,
    located: Vec<(usize, Files)>,
}

impl Search<'_> {
    fn workers(&self) -> usize {
        self.finder.workers.max(1)
    }

    /// Works until the queue is empty.
    fn drain(&self) {
        let count = self.workers().min(lock(&self.queue).len());
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    let mut link = lock(&self.idle).pop();
                    while let Some(task) = self.next() {
                        self.run(task, &mut link);
                    }
                    lock(&self.idle).extend(link);
                });
            }
        });
    }

    fn next(&self) -> Option<Task> {
        lock(&self.queue).pop_front()
    }

    fn split(&self, module: usize, files: Files) -> Vec<Task> {
        let mut all = self.wanted[module].clone();
        all.sort_unstable();
        all.dedup();
        let parts = if all.len() < SPLIT { 1 } else { self.workers() };
        let size = all.len().div_ceil(parts).max(1);
        let part = |part: &[u64]| Task::Name {
            module,
            files: files.clone(),
            addresses: part.to_vec(),
            strict: false,
        };
        all.chunks(size).map(part).collect()
    }

    fn run(&self, task: Task, link: &mut Option<Link>) {
        match task {
            Task::Locate { module } => self.locate(module, link),
            Task::Name {
                module,
                files,
                addresses,
                strict,
            } => {
                self.name(module, files, addresses, strict, link);
            }
        }
    }

    fn note(&self, module: usize, problem: Problem) {
        lock(&self.names).found.notes.push(Note { module, problem });
    }

    fn locate(&self, module: usize, link: &mut Option<Link>) {
        let options = self.finder.options.clone();
        let mut patience = self.finder.patience;
        if options.debuginfod {
            patience += debuginfod::PATIENCE;
        }
        let request = Request::Locate {
            module: self.modules[module].clone(),
            options,
        };
        let answer = self
            .ask(link, &request)
            .and_then(|link| link.answer(patience));
        match answer {
            Ok(Answer::Located { files, problem }) => {
                if let Some(problem) = problem {
                    self.note(module, problem);
                }
                if files != Files::default() {
                    lock(&self.names).located.push((module, files));
                }
            }
            Ok(_) => self.give_up(module, link, "it answered another question".to_string()),
            Err(why) => self.give_up(module, link, why),
        }
    }

    fn name(
        &self,
        module: usize,
        mut files: Files,
        mut addresses: Vec<u64>,
        strict: bool,
        link: &mut Option<Link>,
    ) {
        if strict {
            let debug = files.debug.take();
            files.symbols = files.symbols.or(debug);
            files.mini = None;
        }
        let patience = self.finder.patience;
        let options = self.finder.options.clone();
        let request = Request::Name {
            files: files.clone(),
            options,
            addresses: addresses.clone(),
        };
        let mut frames: Vec<Vec<Frame>> = Vec::with_capacity(addresses.len());
        let result = self.ask(link, &request).and_then(|link| {
            let mut problem = None;
            while frames.len() < addresses.len() {
                match link.answer(patience)? {
                    Answer::Opened { problem: found } => problem = found,
                    Answer::Frames(found) => {
                        frames.push(found);
                        self.finder.named.fetch_add(1, Ordering::Relaxed);
                    }
                    Answer::Located { .. } => return Err("it answered another question".into()),
                }
            }
            Ok(problem)
        });
        let rest = addresses.split_off(frames.len());
        let named = addresses
            .into_iter()
            .map(|address| (module, address))
            .zip(frames);
        lock(&self.names).found.frames.extend(named);
        match result {
            Ok(None) => {}
            Ok(Some(problem)) => self.note(module, problem),
            Err(why) => {
                self.give_up(module, link, why);
                if !strict {
                    let again = Task::Name {
                        module,
                        files,
                        addresses: rest,
                        strict: true,
                    };
                    lock(&self.queue).push_front(again);
                }
            }
        }
    }

    /// Notes that a worker was lost over `module`, and lets go of it.
    fn give_up(&self, module: usize, link: &mut Option<Link>, why: String) {
        self.note(module, Problem::Fatal(why));
        *link = None;
    }

    /// Sends `request` to the worker of `link`, starting one where there is none.
    fn ask<'l>(
        &self,
        link: &'l mut Option<Link>,
        request: &Request,
    ) -> Result<&'l mut Link, String> {
        let link = match link {
            Some(link) => link,
            None => link.insert(Link::start(&self.finder.worker)?),
        };
        link.send(request)?;
        Ok(link)
    }
}

/// What a panicking thread left behind is still whole: nothing here is half done under a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker process, killed when dropped.
struct Link {
    child: Child,
    input: BufWriter<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Link {
    fn start(worker: &Worker) -> Result<Link, String> {
        let mut child = Command::new(&worker.program)
            .args(&worker.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|err| format!("it cannot be started: {err}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it cannot be spoken to".to_string());
        };
        // A bounded channel: a worker must not fill this process while it waits elsewhere.
        let (sender, lines) = mpsc::sync_channel(1024);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Link {
            child,
            input: BufWriter::new(input),
            lines,
        })
    }

    fn send(&mut self, request: &Request) -> Result<(), String> {
        let sent = serde_json::to_writer(&mut self.input, request)
            .map_err(std::io::Error::from)
            .and_then(|()| self.input.write_all(b"\n"))
            .and_then(|()| self.input.flush());
        sent.map_err(|_| self.epitaph())
    }

    /// The worker's next answer, or why none comes.
    fn answer(&mut self, patience: Duration) -> Result<Answer, String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|err| format!("its answer makes no sense: {err}")),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(format!("no answer in {} seconds", patience.as_secs_f32()))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.epitaph()),
        }
    }

    /// How the worker ended. It has closed its output: what does not end by itself is ended here,
    /// and a process that is on its way out keeps its own status.
    fn epitaph(&mut self) -> String {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        match ended.map(|status| (status.signal(), status.code())) {
            Ok((Some(signal), _)) => format!("it was ended by signal {signal}"),
            Ok((None, code)) => format!("it ended with status {}", code.unwrap_or_default()),
            Err(err) => format!("it is gone: {err}"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Fails only for a worker that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A finder whose workers are shell scripts.
    fn finder(script: &str, patience: Duration) -> Finder {
        Finder {
            worker: Worker {
                program: "sh".into(),
                args: vec!["-c".into(), script.into()],
            },
            options: Options::default(),
            workers: 2,
            patience,
            named: AtomicUsize::new(0),
        }
    }

    fn modules(count: usize) -> Vec<Module> {
        let path = |n: usize| Module {
            path: format!("/lib/{n}.so").into(),
            ..Module::default()
        };
        (0..count).map(path).collect()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_module_without_wanted_addresses_is_not_looked_at() {
        let names = finder("exit 3", LONG).find(&modules(2), &[vec![], vec![]]);
        assert_eq!(names.notes(), []);
    }

    #[test]
    fn workers_that_die_at_once_cost_names_and_are_reported() {
        let names = finder("exit 3", LONG).find(&modules(3), &[vec![1], vec![], vec![2]]);
        assert_eq!(names.frames(0, 1), []);
        let noted: Vec<usize> = names.notes().iter().map(|note| note.module).collect();
        assert_eq!(noted, [0, 2]);
        let text = names.notes()[0].problem.to_string();
        assert!(text.ends_with("it ended with status 3"), "{text}");
    }

    #[test]
    fn a_worker_that_cannot_be_started_is_reported() {
        let mut finder = finder("", LONG);
        finder.worker.program = "/nonexistent/worker".into();
        let names = finder.find(&modules(1), &[vec![1]]);
        let text = names.notes()[0].problem.to_string();
        assert!(text.contains("it cannot be started"), "{text}");
    }

    #[test]
    fn a_worker_that_hangs_is_given_up() {
        let names =
            finder("exec sleep 1000", Duration::from_millis(50)).find(&modules(1), &[vec![1]]);
        let text = names.notes()[0].problem.to_string();
        assert!(text.contains("no answer in 0.05 seconds"), "{text}");
    }

    #[test]
    fn a_worker_that_talks_nonsense_is_given_up() {
        for nonsense in ["hello", "{}", r#"{"Frames":[]}"#, r#"{"Located":7}"#] {
            let script = format!("read request; echo '{nonsense}'; exec sleep 1000");
            let names = finder(&script, LONG).find(&modules(1), &[vec![1]]);
            assert_eq!(names.notes().len(), 1, "{nonsense}");
            assert!(
                matches!(names.notes()[0].problem, Problem::Fatal(_)),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn one_worker_locates_and_names() {
        let script = r#"
            while read -r request; do case $request in
            *Locate*) echo '{"Located":{"files":{"debug":[47],"symbols":[47]},"problem":null}}';;
            *)  echo '{"Opened":{"problem":null}}'
                echo '{"Frames":[{"function":"'$$'"}]}';;
            esac; done"#;
        let mut finder = finder(script, LONG);
        finder.workers = 1;
        let names = finder.find(&modules(2), &[vec![1], vec![1]]);
        let worker = |module| names.frames(module, 1)[0].function.clone().unwrap();
        assert_eq!(worker(0), worker(1));
    }

    #[test]
    fn after_a_death_over_debug_information_the_symbol_table_is_asked() {
        // Names the first address, then dies over the second as long as it may read debug
        // information ("debug":null in the request forbids it).
        let script = r#"
            while read -r request; do case $request in
            *Locate*) echo '{"Located":{"files":{"debug":[47],"symbols":[47]},"problem":null}}';;
            *'"debug":null'*)
                echo '{"Opened":{"problem":null}}'
                echo '{"Frames":[{"function":"from_symbols"}]}'
                echo '{"Frames":[{"function":"from_symbols"}]}';;
            *)  echo '{"Opened":{"problem":null}}'
                echo '{"Frames":[{"function":"from_debug"}]}'
                kill -SEGV $$;;
            esac; done"#;
        let names = finder(script, LONG).find(&modules(1), &[vec![7, 5, 6, 5]]);
        let name = |address| names.frames(0, address)[0].function.clone().unwrap();
        assert_eq!(
            [name(5), name(6), name(7)],
            ["from_debug", "from_symbols", "from_symbols"]
        );
        let text = names.notes()[0].problem.to_string();
        assert!(text.ends_with("it was ended by signal 11"), "{text}");
        assert_eq!(names.notes().len(), 1);
    }

    #[test]
    fn many_addresses_are_split_between_workers_and_all_named() {
        let script = r#"
            while read -r request; do case $request in
            *Locate*) echo '{"Located":{"files":{"debug":[47],"symbols":[47]},"problem":null}}';;
            *)  echo '{"Opened":{"problem":null}}'
                list=${request##*addresses\":[}; list=${list%%]*}
                IFS=,; for address in $list; do echo '{"Frames":[{"function":"f'$address'"}]}'; done;;
            esac; done"#;
        let wanted: Vec<u64> = (0..SPLIT as u64 + 1).rev().collect();
        let finder = finder(script, LONG);
        let names = finder.find(&modules(1), std::slice::from_ref(&wanted));
        for address in wanted {
            let frames = names.frames(0, address);
            assert_eq!(frames[0].function, Some(format!("f{address}")));
        }
        assert_eq!(finder.named.into_inner(), SPLIT + 1);
    }
}
