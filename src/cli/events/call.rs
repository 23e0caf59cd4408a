//! An event as one line of text: when, who, the call as a programmer writes it, its result.

use std::io::{self, Write};

use memspy_analysis::event::{Address, ArenaChange, Cut, Event, Start, What};
use memspy_analysis::merge::Step;
use memspy_analysis::printable;
use memspy_log::Op;

/// Writes the line of an event of the only log, without its newline.
pub(super) fn write(line: &mut Vec<u8>, step: &Step) {
    // Writing to a Vec can't fail.
    let _ = clock(line, step.time).and_then(|()| whole(line, step));
}

/// Writes the line of an event of one of several processes; `time` is what they have in common.
pub(super) fn write_of(line: &mut Vec<u8>, pid: u32, time: u64, step: &Step) {
    // Writing to a Vec can't fail.
    let _ = process(line, pid, time).and_then(|()| whole(line, step));
}

/// Writes the line that says which program a process runs from now on.
pub(super) fn write_start(line: &mut Vec<u8>, time: u64, start: &Start) {
    // Writing to a Vec can't fail.
    let _ = process(line, start.pid, time).and_then(|()| program(line, start));
}

fn clock(line: &mut Vec<u8>, time: u64) -> io::Result<()> {
    let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000);
    write!(line, "{seconds:>4}.{rest:09}")
}

fn process(line: &mut Vec<u8>, pid: u32, time: u64) -> io::Result<()> {
    clock(line, time)?;
    write!(line, " {pid:>7}")
}

fn program(line: &mut Vec<u8>, start: &Start) -> io::Result<()> {
    write!(line, " {:>7}  start {}", start.pid, printable(&start.exe))?;
    for argument in start.argv.iter().skip(1) {
        write!(line, " {}", printable(argument))?;
    }
    Ok(())
}

fn whole(line: &mut Vec<u8>, step: &Step) -> io::Result<()> {
    let event = step.event;
    match event.tid {
        0 => write!(line, " {:>7}  ", "?")?,
        tid => write!(line, " {tid:>7}  ")?,
    }
    call(line, event)?;
    if event.dt > 0 {
        write!(line, "  in {} ns", event.dt)?;
    }
    if let Some(via) = event.via {
        write!(line, "  [inside {via}]")?;
    }
    if event.stack > 0 {
        write!(line, "  stack {}", event.stack)?;
    }
    Ok(())
}

fn call(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    let name = event.op.name();
    match &event.what {
        What::Alloc(call) => {
            let size = call.size;
            match event.op {
                Op::Calloc => write!(line, "{name}({}, {size})", call.count)?,
                Op::PosixMemalign | Op::AlignedAlloc | Op::Memalign => {
                    write!(line, "{name}({}, {size})", call.align)?;
                }
                _ => write!(line, "{name}({size})")?,
            }
            result(line, event, call.ptr)
        }
        What::Realloc(call) => {
            let old = Pointer(call.old);
            match event.op {
                Op::Reallocarray => write!(line, "{name}({old}, {}, {})", call.count, call.size)?,
                _ => write!(line, "{name}({old}, {})", call.size)?,
            }
            result(line, event, call.ptr)
        }
        What::Free(call) => {
            write!(line, "{name}({}", Pointer(call.ptr))?;
            for told in call.align.into_iter().chain(call.size) {
                write!(line, ", {told}")?;
            }
            write!(line, ")")
        }
        What::Mmap(call) => {
            write!(
                line,
                "{name}({}, {}, {}, {:#x}, {}, {})",
                Pointer(call.hint),
                call.size,
                protection(call.prot),
                call.flags,
                call.fd,
                call.offset
            )?;
            result(line, event, call.addr)
        }
        What::Munmap(range) => {
            write!(line, "{name}({}, {})", Pointer(range.addr), range.size)?;
            failure(line, event)
        }
        What::Mremap(call) => {
            write!(
                line,
                "{name}({}, {}, {}, {:#x})",
                Pointer(call.old),
                call.old_size,
                call.size,
                call.flags
            )?;
            result(line, event, call.addr)
        }
        What::Mprotect { range, prot } => {
            let prot = protection(*prot);
            write!(
                line,
                "{name}({}, {}, {prot})",
                Pointer(range.addr),
                range.size
            )?;
            failure(line, event)
        }
        What::Brk(call) => {
            if event.op == Op::Sbrk {
                write!(line, "{name}({})", call.delta)?;
            } else {
                write!(line, "{name}")?;
            }
            let moved = call.to.wrapping_sub(call.from) as i64;
            write!(
                line,
                " {} -> {} ({moved:+})",
                Pointer(call.from),
                Pointer(call.to)
            )?;
            failure(line, event)
        }
        What::Arena(arena) => {
            let change = match arena.change {
                ArenaChange::Made => "made",
                ArenaChange::Grown => "grown",
                ArenaChange::Shrunk => "shrunk",
                ArenaChange::Other => "changed",
            };
            write!(
                line,
                "{name} {}: heap at {} {change}, {} bytes",
                Pointer(arena.arena),
                Pointer(arena.base),
                arena.size
            )
        }
        other => about(line, event, other),
    }
}

/// Lines that are no calls.
fn about(line: &mut Vec<u8>, event: &Event, what: &What) -> io::Result<()> {
    let name = event.op.name();
    match what {
        What::Module(module) => write!(
            line,
            "{name} {} {} at {}, {} bytes",
            module.id,
            printable(&module.path),
            Pointer(module.base),
            module.size
        ),
        What::Unload { module } => write!(line, "{name} module {module}"),
        What::Stack(node) => {
            write!(
                line,
                "{name} {} = {} <- {}",
                node.id,
                Pointer(node.ip),
                node.parent
            )?;
            match node.cut {
                None => Ok(()),
                Some(Cut::Depth) => write!(line, " (cut: too deep)"),
                Some(Cut::Bounds) => write!(line, " (cut: end of the known stack)"),
                Some(Cut::Unwind) => write!(line, " (cut: no unwind data)"),
                Some(Cut::Other) => write!(line, " (cut)"),
            }
        }
        What::Thread {
            thread, name: of, ..
        } => write!(line, "{name} {thread} {}", printable(of)),
        What::Snapshot(snapshot) => write!(
            line,
            "{name} {} ({}), {} mappings",
            snapshot.id,
            printable(snapshot.when.as_bytes()),
            snapshot.maps
        ),
        What::Map(map) => write!(
            line,
            "{name} {:x}-{:x} {}{}{}{}",
            map.from,
            map.to,
            printable(map.perms.as_bytes()),
            if map.path.is_empty() { "" } else { " " },
            printable(&map.path),
            if map.own { " (memspy's)" } else { "" }
        ),
        What::Spawn { pid, failed, .. } if *failed => write!(line, "{name} {pid} failed"),
        What::Spawn { pid, path, .. } => write!(line, "{name} {pid} {}", printable(path)),
        What::Mark { name: of, .. } => write!(line, "{name} {}", printable(of)),
        What::Check(check) => write!(
            line,
            "{name} {} ({}), {} blocks and {} bytes live",
            check.id,
            printable(check.when.as_bytes()),
            check.live_blocks,
            check.live_bytes
        ),
        What::Leak(leak) => write!(
            line,
            "{name} {}: {} blocks, {} bytes",
            printable(leak.kind.as_bytes()),
            leak.blocks,
            leak.bytes
        ),
        What::End(end) => write!(line, "{name} ({})", printable(end.how.as_bytes())),
        What::Stopped { why, lost } | What::Resumed { why, lost } => {
            write!(
                line,
                "{name} ({}), {lost} events lost",
                printable(why.as_bytes())
            )
        }
        _ => write!(line, "{name}"),
    }
}

fn result(line: &mut Vec<u8>, event: &Event, address: Address) -> io::Result<()> {
    match event.err {
        Some(why) => write!(line, " failed: {why}"),
        None => write!(line, " = {}", Pointer(address)),
    }
}

fn failure(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    event
        .err
        .map_or(Ok(()), |why| write!(line, " failed: {why}"))
}

/// `rw-`: the protection of an mmap or mprotect call.
fn protection(prot: u32) -> String {
    let letter = |bit: i32, letter| if prot & bit as u32 != 0 { letter } else { '-' };
    [
        letter(libc::PROT_READ, 'r'),
        letter(libc::PROT_WRITE, 'w'),
        letter(libc::PROT_EXEC, 'x'),
    ]
    .iter()
    .collect()
}

/// An address, or NULL.
struct Pointer(Address);

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("NULL"),
            address => write!(f, "{address:#x}"),
        }
    }
}
