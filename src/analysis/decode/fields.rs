//! The general decoder: any JSON object with memspy's keys, in any order.

use super::BadLine;
use super::text::Text;
use crate::event::*;
use memspy_log::Op;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::fmt;

/// Every key that a line can have; a key has one type in the whole log.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    abandoned: Option<u64>,
    addr: Option<Hex>,
    align: Option<u64>,
    allocator: Option<Text>,
    arena: Option<Hex>,
    argv: Option<Vec<Text>>,
    argv_cut: Option<bool>,
    at: Option<u64>,
    base: Option<Hex>,
    bias: Option<Hex>,
    blocks: Option<u64>,
    boot_id: Option<Text>,
    brk: Option<Hex>,
    build_id: Option<Text>,
    bytes: Option<u64>,
    change: Option<Text>,
    check: Option<u32>,
    clock: Option<Text>,
    complete: Option<bool>,
    count: Option<u64>,
    cut: Option<Text>,
    cwd: Option<Text>,
    delta: Option<Int>,
    dt: Option<u64>,
    err: Option<Text>,
    events: Option<u64>,
    failed: Option<bool>,
    exe: Option<Text>,
    fd: Option<Int>,
    flags: Option<Int>,
    forked_from: Option<Image>,
    from: Option<Hex>,
    generation: Option<u32>,
    groups: Option<u64>,
    hint: Option<Hex>,
    how: Option<Text>,
    id: Option<u32>,
    inference: Option<bool>,
    inherited: Option<bool>,
    inode: Option<u64>,
    ip: Option<Hex>,
    kind: Option<Text>,
    last: Option<bool>,
    libc: Option<Text>,
    live_blocks: Option<u64>,
    live_bytes: Option<u64>,
    lost: Option<u64>,
    mapped: Option<u64>,
    maps: Option<u64>,
    mark: Option<Text>,
    memspy: Option<Text>,
    mode: Option<Text>,
    module: Option<u32>,
    mono_ns: Option<u64>,
    n: Option<u64>,
    name: Option<Text>,
    offset: Option<Int>,
    old: Option<Hex>,
    old_size: Option<u64>,
    op: Option<Text>,
    open: Option<Vec<(u32, u64)>>,
    own: Option<bool>,
    page: Option<u64>,
    parent: Option<u32>,
    path: Option<Text>,
    pause_ns: Option<u64>,
    perms: Option<Text>,
    pid: Option<u32>,
    pid_ns: Option<u64>,
    ppid: Option<u32>,
    prot: Option<Int>,
    ptr: Option<Hex>,
    private: Option<u64>,
    dirty: Option<u64>,
    rss: Option<u64>,
    sp: Option<Hex>,
    stack_limit: Option<u64>,
    making: Option<u64>,
    size: Option<u64>,
    snapshot: Option<u32>,
    stack: Option<u32>,
    stacks: Option<Text>,
    start_ticks: Option<u64>,
    streams: Option<u64>,
    t: Option<u64>,
    thread: Option<u32>,
    tid: Option<u32>,
    to: Option<Hex>,
    unix_ns: Option<u64>,
    until: Option<u64>,
    v: Option<u64>,
    via: Option<Text>,
    when: Option<Text>,
    why: Option<Text>,
}

/// The image of which a forked child is a copy.
#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    log: Text,
    #[serde(default)]
    streams: u64,
    #[serde(default)]
    cut: Vec<(u32, u64)>,
}

/// Reads one line.
pub(super) fn decode(line: &[u8]) -> Result<Event, BadLine> {
    let line = std::str::from_utf8(line).map_err(|_| BadLine::Utf8)?;
    let mut fields: Fields = serde_json::from_str(line).map_err(|why| {
        let why = why.to_string();
        BadLine::Json(why.replace(" at line 1 column ", ", at column "))
    })?;
    let name = fields.op.take().ok_or(BadLine::NoOp)?.word();
    let op = Op::from_name(&name).ok_or_else(|| BadLine::UnknownOp(name.into()))?;
    fields.event(op)
}

impl Fields {
    fn event(mut self, op: Op) -> Result<Event, BadLine> {
        let missing = |key| BadLine::Missing { op: op.name(), key };
        let t = match op {
            Op::Start => self.t.unwrap_or(0),
            _ => self.t.ok_or(missing("t"))?,
        };
        let err = self.err.take().map(|name| Errno::from_name(&name.word()));
        Ok(Event {
            t,
            dt: self.dt.unwrap_or(0),
            tid: self.tid.unwrap_or(0),
            stack: self.stack.unwrap_or(0),
            op,
            via: self.via.take().map(|name| via(&name.word())),
            err,
            what: self.what(op, err.is_some()).map_err(missing)?,
        })
    }

    /// The keys of `op`; the error is the name of a missing one.
    fn what(mut self, op: Op, failed: bool) -> Result<What, &'static str> {
        Ok(match op {
            Op::Malloc
            | Op::Calloc
            | Op::PosixMemalign
            | Op::AlignedAlloc
            | Op::Memalign
            | Op::Valloc
            | Op::Pvalloc => What::Alloc(Alloc {
                count: self.count.unwrap_or(1),
                size: self.size.ok_or("size")?,
                align: self.align.unwrap_or(0),
                ptr: self.result(failed)?,
            }),
            Op::Realloc | Op::Reallocarray => What::Realloc(Realloc {
                old: address(self.old).ok_or("old")?,
                count: self.count.unwrap_or(1),
                size: self.size.ok_or("size")?,
                ptr: address(self.ptr).unwrap_or(0),
            }),
            Op::Free | Op::FreeSized | Op::FreeAlignedSized => What::Free(Free {
                ptr: address(self.ptr).ok_or("ptr")?,
                size: self.size,
                align: self.align,
            }),
            Op::Mmap => What::Mmap(Mmap {
                addr: self.mapped_at(failed)?,
                hint: address(self.hint).unwrap_or(0),
                size: self.size.ok_or("size")?,
                prot: word(self.prot),
                flags: word(self.flags),
                fd: self.fd.map_or(-1, |fd| fd.0 as i32),
                offset: self.offset.map_or(0, |offset| offset.0 as u64),
            }),
            Op::Munmap => What::Munmap(self.range()?),
            Op::Mremap => What::Mremap(Mremap {
                old: address(self.old).ok_or("old")?,
                old_size: self.old_size.ok_or("old_size")?,
                size: self.size.ok_or("size")?,
                flags: word(self.flags),
                hint: address(self.hint).unwrap_or(0),
                addr: self.mapped_at(failed)?,
            }),
            Op::Mprotect => What::Mprotect {
                range: self.range()?,
                prot: word(self.prot),
            },
            Op::Brk | Op::Sbrk => {
                let from = address(self.from).ok_or("from")?;
                What::Brk(Brk {
                    from,
                    to: address(self.to).unwrap_or(from),
                    hint: address(self.hint).unwrap_or(0),
                    delta: self.delta.map_or(0, |delta| delta.0),
                })
            }
            Op::Arena => What::Arena(Arena {
                base: address(self.base).ok_or("base")?,
                size: self.size.ok_or("size")?,
                change: match &*owned(self.change) {
                    "made" => ArenaChange::Made,
                    "grown" => ArenaChange::Grown,
                    "shrunk" => ArenaChange::Shrunk,
                    _ => ArenaChange::Other,
                },
                arena: address(self.arena).unwrap_or(0),
            }),
            Op::Stack => What::Stack(StackNode {
                id: self.id.ok_or("id")?,
                parent: self.parent.unwrap_or(0),
                module: self.module.unwrap_or(0),
                ip: address(self.ip).ok_or("ip")?,
                cut: self.cut.map(|why| match &*why.word() {
                    "depth" => Cut::Depth,
                    "bounds" => Cut::Bounds,
                    "unwind" => Cut::Unwind,
                    _ => Cut::Other,
                }),
            }),
            Op::Module => What::Module(Box::new(Module {
                id: self.id.ok_or("id")?,
                base: address(self.base).ok_or("base")?,
                size: self.size.unwrap_or(0),
                bias: address(self.bias).unwrap_or(0),
                path: bytes(self.path),
                build_id: owned(self.build_id),
            })),
            Op::Unload => What::Unload {
                module: self.module.ok_or("module")?,
            },
            Op::Thread => What::Thread {
                thread: self.thread.ok_or("thread")?,
                name: bytes(self.name),
                sp: address(self.sp).unwrap_or(0),
            },
            Op::Spawn => What::Spawn {
                pid: self.pid.ok_or("pid")?,
                path: bytes(self.path),
                failed: self.failed.unwrap_or(false),
            },
            Op::Mark => What::Mark {
                name: bytes(self.name),
                generation: self.generation,
            },
            Op::Stopped => What::Stopped {
                why: owned(self.why),
                lost: self.lost.unwrap_or(0),
            },
            Op::Resumed => What::Resumed {
                why: owned(self.why),
                lost: self.lost.unwrap_or(0),
            },
            Op::Snapshot => What::Snapshot(Box::new(Snapshot {
                id: self.id.ok_or("id")?,
                when: owned(self.when),
                maps: self.maps.unwrap_or(0),
                brk: address(self.brk).unwrap_or(0),
                stack_limit: self.stack_limit.filter(|limit| *limit != u64::MAX),
                making: self.making.unwrap_or(0),
            })),
            Op::Map => What::Map(Box::new(Map {
                snapshot: self.snapshot.ok_or("snapshot")?,
                from: address(self.from).ok_or("from")?,
                to: address(self.to).ok_or("to")?,
                perms: owned(self.perms),
                offset: self.offset.map_or(0, |offset| offset.0 as u64),
                inode: self.inode.unwrap_or(0),
                path: bytes(self.path),
                rss: self.rss,
                private: self.private,
                dirty: self.dirty,
                own: self.own.unwrap_or(false),
            })),
            Op::Check => What::Check(Box::new(Check {
                id: self.id.ok_or("id")?,
                when: owned(self.when),
                mark: bytes(self.mark),
                groups: self.groups.unwrap_or(0),
                live_blocks: self.live_blocks.unwrap_or(0),
                live_bytes: self.live_bytes.unwrap_or(0),
                complete: self.complete.unwrap_or(true),
                why: bytes(self.why),
                pause_ns: self.pause_ns.unwrap_or(0),
            })),
            Op::Leak => What::Leak(Box::new(Leak {
                check: self.check.ok_or("check")?,
                kind: self.kind.ok_or("kind")?.word(),
                blocks: self.blocks.ok_or("blocks")?,
                bytes: self.bytes.ok_or("bytes")?,
                generation: self.generation.unwrap_or(0),
                inherited: self.inherited.unwrap_or(false),
            })),
            Op::Start => What::Start(Box::new(self.start()?)),
            Op::Block => What::Block(Box::new(self.block()?)),
            Op::End => What::End(Box::new(End {
                how: owned(self.how),
                streams: self.streams.unwrap_or(0),
                open: self.open.unwrap_or_default(),
                lost: self.lost.unwrap_or(0),
                abandoned: self.abandoned.unwrap_or(0),
                mapped: self.mapped.unwrap_or(0),
            })),
        })
    }

    /// `ptr`, which a call that failed does not have.
    fn result(&self, failed: bool) -> Result<Address, &'static str> {
        match &self.ptr {
            Some(ptr) => Ok(ptr.0),
            None if failed => Ok(0),
            None => Err("ptr"),
        }
    }

    /// `addr`, which a call that failed does not have.
    fn mapped_at(&self, failed: bool) -> Result<Address, &'static str> {
        match &self.addr {
            Some(addr) => Ok(addr.0),
            None if failed => Ok(0),
            None => Err("addr"),
        }
    }

    fn range(&self) -> Result<Range, &'static str> {
        Ok(Range {
            addr: self.addr.as_ref().ok_or("addr")?.0,
            size: self.size.ok_or("size")?,
        })
    }

    fn start(&mut self) -> Result<Start, &'static str> {
        let argv = self.argv.take().unwrap_or_default();
        Ok(Start {
            v: self.v.ok_or("v")?,
            pid: self.pid.ok_or("pid")?,
            ppid: self.ppid.unwrap_or(0),
            exe: bytes(self.exe.take()),
            argv: argv.into_iter().map(|arg| arg.0.into()).collect(),
            argv_cut: self.argv_cut.unwrap_or(false),
            cwd: bytes(self.cwd.take()),
            unix_ns: self.unix_ns.unwrap_or(0),
            mono_ns: self.mono_ns.unwrap_or(0),
            boot_id: owned(self.boot_id.take()),
            start_ticks: self.start_ticks.unwrap_or(0),
            pid_ns: self.pid_ns.unwrap_or(0),
            memspy: owned(self.memspy.take()),
            libc: owned(self.libc.take()),
            allocator: bytes(self.allocator.take()),
            inference: self.inference.unwrap_or(false),
            clock: owned(self.clock.take()),
            mode: owned(self.mode.take()),
            stacks: owned(self.stacks.take()),
            page: self.page.unwrap_or(0),
            forked_from: self.forked_from.take().map(|image| Parent {
                pid: image.pid,
                log: image.log.0.into(),
                streams: image.streams,
                cut: image.cut,
            }),
        })
    }

    fn block(&self) -> Result<BlockLine, &'static str> {
        Ok(BlockLine {
            thread: self.thread.ok_or("thread")?,
            n: self.n.ok_or("n")?,
            events: self.events.ok_or("events")?,
            bytes: self.bytes.ok_or("bytes")?,
            until: self.until.or(self.t).ok_or("until")?,
            mono_ns: self.mono_ns,
            at: self.at,
            rss: self.rss,
            last: self.last.unwrap_or(false),
        })
    }
}

fn address(hex: Option<Hex>) -> Option<Address> {
    hex.map(|hex| hex.0)
}

fn word(int: Option<Int>) -> u32 {
    int.map_or(0, |int| int.0 as u32)
}

fn bytes(text: Option<Text>) -> Box<[u8]> {
    text.map_or_else(Box::default, |text| text.0.into())
}

fn owned(text: Option<Text>) -> Box<str> {
    text.map_or_else(Box::default, |text| text.word())
}

fn via(name: &str) -> Via {
    match Op::from_name(name) {
        Some(op) => Via::Call(op),
        None if name == "?" => Via::Several,
        None => Via::Other,
    }
}

/// An address: `"0x"` and up to sixteen hexadecimal digits.
#[derive(Clone, Copy)]
struct Hex(Address);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(json)?;
        let digits = text.0.strip_prefix(b"0x").unwrap_or_default();
        std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| Address::from_str_radix(digits, 16).ok())
            .map(Hex)
            .ok_or_else(|| D::Error::custom("an address is \"0x\" and up to 16 digits"))
    }
}

/// A number of a call, signed or not; above 2^63-1 it is taken as two's complement.
#[derive(Clone, Copy)]
struct Int(i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Int, E> {
                Ok(Int(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Int, E> {
                Ok(Int(value as i64))
            }
        }
        json.deserialize_any(Number)
    }
}
