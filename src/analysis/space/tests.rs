//! The model against the kernel's rules, on logs made by hand.

use super::{Cause, Difference, Kind, Moment, Reason, Story, View};
use crate::log::Log;
use crate::replay::replay;
use crate::testlog::{TestLog, free, malloc};

/// A log with these threads' lines, opened.
fn log(threads: &[&[String]]) -> Log {
    let mut text = TestLog::new("");
    for (number, lines) in threads.iter().enumerate() {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        text.block(number as u32 + 1, &lines);
    }
    text.end(1, 1_000_000);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("memspy.cat.4711.jsonl");
    text.write(&path);
    Log::open(&path).expect("a log")
}

#[test]
fn a_timeline_changes_at_the_moment_of_the_call() {
    let log = log(&[&[
        malloc(1_000, 0x10, 5),
        brk(200_000, 0x1000, 0x22000),
        malloc(300_000, 0x20, 5),
        mmap(400_000, 0x50000, 8192, ANONYMOUS),
        munmap(500_000, 0x50000, 4096),
    ]]);
    let mut line = super::Timeline::default();
    let outcome = replay(&log, &mut line).expect("the log can be read");
    line.finish(&outcome.memory);
    let held = |point: &super::Point| (point.t, point.held, point.mapped);
    let points: Vec<_> = line.points.iter().map(held).collect();
    assert_eq!(points[0], (1_000, 0, 0));
    assert_eq!(points[1], (200_000, 0x21000, 0));
    assert_eq!(points[2], (300_000, 0x21000, 0));
    assert_eq!(points[3], (400_000, 0x21000, 8192));
    assert_eq!(points[4], (500_000, 0x21000, 4096));
}

#[test]
fn a_timelines_point_has_the_most_of_its_span_and_malloc_never_holds_less_than_is_live() {
    let mapped = 196_608;
    let via = "\"prot\":3,\"flags\":34,\"fd\":-1,\"offset\":0,\"via\":\"malloc\"";
    let log = log(&[&[
        brk(1_000, 0x1000, 0x22000),
        mmap(200_000, 0x50000, mapped, via),
        malloc(200_000, 190_000, 0x50010),
        free(200_010, 0x50010),
        munmap(200_010, 0x50000, mapped).replace('}', ",\"via\":\"free\"}"),
        malloc(300_000, 5, 0x1010),
    ]]);
    let mut line = super::Timeline::default();
    let outcome = replay(&log, &mut line).expect("the log can be read");
    line.finish(&outcome.memory);
    let figures = |point: &super::Point| (point.t, point.in_use, point.held);
    let points: Vec<_> = line.points.iter().take(3).map(figures).collect();
    let expected = [
        (1_000, 0, 0x21000),
        (200_000, 190_000, 0x21000 + mapped),
        (300_000, 5, 0x21000),
    ];
    assert_eq!(points, expected);
}

fn view(threads: &[&[String]], moment: Moment) -> View {
    View::read(&log(threads), moment).expect("the log can be read")
}

/// A snapshot with mappings as /proc/PID/maps has them, behind the program's code.
fn snapshot(t: u64, id: u32, others: &[&str]) -> Vec<String> {
    let mut maps = vec!["400000-401000 r-xp 0 7 /bin/cat"];
    maps.extend(others);
    let count = maps.len();
    let mut lines = vec![format!(
        "{{\"op\":\"snapshot\",\"t\":{t},\"id\":{id},\"when\":\"request\",\"maps\":{count},\"brk\":\"0x0\"}}"
    )];
    for map in maps {
        let fields: Vec<&str> = map.split_whitespace().collect();
        let (from, to) = fields[0].split_once('-').expect("a range");
        let offset = u64::from_str_radix(fields[2], 16).expect("an offset");
        let (inode, path) = (fields[3], fields.get(4).copied().unwrap_or_default());
        lines.push(format!(
            "{{\"op\":\"map\",\"t\":{t},\"snapshot\":{id},\"from\":\"0x{from}\",\"to\":\"0x{to}\",\
             \"perms\":\"{}\",\"offset\":{offset},\"inode\":{inode},\"path\":\"{path}\",\"rss\":4096}}",
            fields[1]
        ));
    }
    lines
}

fn mmap(t: u64, addr: u64, size: u64, rest: &str) -> String {
    format!("{{\"op\":\"mmap\",\"t\":{t},\"addr\":\"{addr:#x}\",\"size\":{size},{rest}}}")
}

const ANONYMOUS: &str = "\"prot\":3,\"flags\":34,\"fd\":-1,\"offset\":0";

fn munmap(t: u64, addr: u64, size: u64) -> String {
    format!("{{\"op\":\"munmap\",\"t\":{t},\"addr\":\"{addr:#x}\",\"size\":{size}}}")
}

fn brk(t: u64, from: u64, to: u64) -> String {
    format!(
        "{{\"op\":\"brk\",\"t\":{t},\"from\":\"{from:#x}\",\"to\":\"{to:#x}\",\"via\":\"malloc\"}}"
    )
}

fn differences(view: &View) -> &[Difference] {
    let account = view.space.accounts.last().expect("a snapshot");
    &account.differences
}

#[test]
fn calls_leave_what_the_kernel_shows() {
    let mut lines = snapshot(1, 1, &[]);
    lines.extend([
        mmap(10, 0x1000_0000, 0x10000, ANONYMOUS),
        munmap(11, 0x1000_4000, 0x1001),
        "{\"op\":\"mprotect\",\"t\":12,\"addr\":\"0x10008000\",\"size\":1,\"prot\":1}".to_string(),
        mmap(
            13,
            0x1000_a000,
            0x1000,
            "\"dt\":1,\"prot\":1,\"flags\":17,\"fd\":3,\"offset\":8192",
        ),
        "{\"op\":\"mremap\",\"t\":15,\"dt\":1,\"old\":\"0x1000c000\",\"old_size\":4096,\"size\":12288,\
         \"flags\":1,\"addr\":\"0x20000000\"}"
            .to_string(),
        brk(20, 0x5000_0000, 0x5002_1000),
        brk(21, 0x5002_1000, 0x5001_0000),
    ]);
    lines.extend(snapshot(
        30,
        2,
        &[
            "10000000-10004000 rw-p 0 0",
            "10006000-10008000 rw-p 0 0",
            "10008000-10009000 r--p 0 0",
            "10009000-1000a000 rw-p 0 0",
            "1000a000-1000b000 r--s 2000 9 /tmp/file",
            "1000b000-1000c000 rw-p 0 0",
            "1000d000-10010000 rw-p 0 0",
            "20000000-20003000 rw-p 0 0",
            "50000000-50010000 rw-p 0 0 [heap]",
        ],
    ));
    let view = view(&[&lines], Moment::End);
    assert_eq!(differences(&view), []);
    let kind = |at| view.picture.at(at).map(|row| row.kind);
    assert_eq!(kind(0x1000_9000), Some(Kind::ProgramMapping));
    assert_eq!(kind(0x1000_a000), Some(Kind::FileMapping));
    assert_eq!(kind(0x5000_0000), Some(Kind::Heap));
    assert_eq!(kind(0x1000_c000), None);
}

#[test]
fn what_nobody_mapped_and_what_nobody_unmapped_is_unexplained() {
    let mut lines = snapshot(1, 1, &[]);
    lines.push(mmap(10, 0x1000_0000, 0x2000, ANONYMOUS));
    let found = ["10001000-10002000 rw-p 0 0", "30000000-30001000 rw-p 0 0"];
    lines.extend(snapshot(20, 2, &found));
    let view = view(&[&lines], Moment::End);
    let told: Vec<_> = differences(&view)
        .iter()
        .map(|one| (one.from, one.expected, one.found, one.cause))
        .collect();
    assert_eq!(
        told,
        [
            (0x1000_0000, true, false, Cause::Unexplained),
            (0x3000_0000, false, true, Cause::Unexplained),
        ]
    );
}

#[test]
fn a_snapshot_in_the_middle_of_another_threads_call_is_explained() {
    let mut first = snapshot(1, 1, &[]);
    let found = [
        // About to be unmapped by thread 2, whose munmap has its stamp already,
        "10000000-10001000 rw-p 0 0",
        // and just mapped by thread 3, whose mmap gets its stamp later.
        "20000000-20001000 rw-p 0 0",
    ];
    first.extend(snapshot(20, 2, &found));
    let second = [
        mmap(10, 0x1000_0000, 0x1000, ANONYMOUS),
        munmap(19, 0x1000_0000, 0x1000),
    ];
    let third = [mmap(21, 0x2000_0000, 0x1000, ANONYMOUS)];
    let by = |lines: &[String], tid: u32| -> Vec<String> {
        let with_tid = |line: &String| line.replace('}', &format!(",\"tid\":{tid}}}"));
        lines.iter().map(with_tid).collect()
    };
    let (second, third) = (by(&second, 4712), by(&third, 4713));
    let view = view(&[&first, &second, &third], Moment::End);
    let causes: Vec<Cause> = differences(&view).iter().map(|one| one.cause).collect();
    assert_eq!(causes, [Cause::UnderWay, Cause::UnderWay]);
}

#[test]
fn an_arena_and_a_stack_that_a_snapshot_meets_in_the_making_are_explained() {
    let mut first = snapshot(1, 1, &[]);
    let found = [
        // Twice a heap's size, as malloc reserves it for an aligned one, and in one with it (the kernel merges them)
        // a stack that pthread_create has not made readable yet.
        "7f0c51600000-7f0c59e01000 ---p 0 0",
        // Nobody's.
        "7f0d00000000-7f0d00001000 ---p 0 0",
    ];
    first.extend(snapshot(20, 2, &found));
    let thread = |t: u64, thread: u32, sp: &str| {
        format!(
            "{{\"op\":\"thread\",\"t\":{t},\"thread\":{thread},\"name\":\"a\",\"sp\":\"{sp}\",\"tid\":{}}}",
            4710 + thread
        )
    };
    let second = [
        thread(10, 2, "0x7f0c40000f00"),
        arena_made(21, 0x7f0c_5400_0000, 4712),
    ];
    let third = [thread(30, 3, "0x7f0c59e00f00")];
    let view = view(&[&first, &second, &third], Moment::End);
    let causes: Vec<_> = differences(&view)
        .iter()
        .map(|one| (one.from, one.cause))
        .collect();
    assert_eq!(
        causes,
        [
            (0x7f0c_5160_0000, Cause::UnderWay),
            (0x7f0d_0000_0000, Cause::Unexplained),
        ]
    );
    // What malloc gave back is not there any more.
    let row = view.picture.at(0x7f0c_5200_0000);
    assert_eq!(row.map(|row| row.kind), None);
}

fn arena_made(t: u64, base: u64, tid: u32) -> String {
    format!(
        "{{\"op\":\"arena\",\"t\":{t},\"base\":\"{base:#x}\",\"size\":135168,\"change\":\"made\",\
         \"arena\":\"{:#x}\",\"via\":\"malloc\",\"tid\":{tid}}}",
        base + 0x30
    )
}

#[test]
fn what_is_mapped_where_malloc_gave_a_part_of_its_reserve_back_does_not_hide_the_rest() {
    let mut first = snapshot(1, 1, &[]);
    first.extend(snapshot(20, 2, &["7f34bcc00000-7f34c4c00000 ---p 0 0"]));
    let second = [format!(
        "{},\"tid\":4712}}",
        mmap(25, 0x7f34_bff9_e000, 0x6_2000, ANONYMOUS).trim_end_matches('}')
    )];
    let third = [arena_made(30, 0x7f34_c000_0000, 4713)];
    let view = view(&[&first, &second, &third], Moment::End);
    let mut causes = differences(&view).iter().map(|one| one.cause);
    assert!(causes.all(|cause| cause == Cause::UnderWay));
    let kind = |address| view.picture.at(address).map(|row| row.kind);
    assert_eq!(kind(0x7f34_bd00_0000), None);
    assert_eq!(kind(0x7f34_bff9_e000), Some(Kind::ProgramMapping));
    assert_eq!(kind(0x7f34_c000_0000), Some(Kind::Arena));
}

#[test]
fn what_other_threads_do_while_a_snapshot_is_written_is_known_after_it() {
    let mut first = snapshot(1, 1, &[]);
    first.push(mmap(10, 0x1000_0000, 0x2000, ANONYMOUS));
    // The kernel's list is older than the calls of thread 2, the last of its lines is newer.
    let listed = [
        "10000000-10002000 rw-p 0 0",
        "7f9fab000000-7f9fb3000000 ---p 0 0",
    ];
    let written = snapshot(20, 2, &listed);
    first.extend(written.iter().map(|line| match line.contains("\"map\"") {
        true => line.replace("\"t\":20,", "\"t\":90,"),
        false => line.replace("\"t\":20,", "\"t\":20,\"dt\":70,"),
    }));
    let second: Vec<String> = [
        arena_made(30, 0x7f9f_ac00_0000, 4712),
        mmap(40, 0x2000_0000, 0x1000, ANONYMOUS).replace('}', ",\"tid\":4712}"),
        munmap(50, 0x1000_1000, 0x1000).replace('}', ",\"tid\":4712}"),
    ]
    .to_vec();
    let view = view(&[&first, &second], Moment::End);
    let mut causes = differences(&view).iter().map(|one| one.cause);
    assert!(causes.all(|cause| cause == Cause::UnderWay));
    let kind = |address| view.picture.at(address).map(|row| row.kind);
    assert_eq!(kind(0x7f9f_ac00_0000), Some(Kind::Arena));
    assert_eq!(kind(0x7f9f_ac10_0000), Some(Kind::ArenaReserve));
    assert_eq!(kind(0x7f9f_ab80_0000), None);
    assert_eq!(kind(0x7f9f_b100_0000), None);
    assert_eq!(kind(0x2000_0000), Some(Kind::ProgramMapping));
    assert_eq!(kind(0x1000_0000), Some(Kind::ProgramMapping));
    assert_eq!(kind(0x1000_1000), None);
}

#[test]
fn what_may_be_memspys_own_in_the_making_is_explained() {
    let causes = |size: u64| {
        let mut lines = snapshot(1, 1, &[]);
        let found = ["10000000-10002000 rw-p 0 0"];
        let written = snapshot(20, 2, &found);
        let with_making = format!("\"maps\":2,\"making\":{size},");
        lines.extend(
            written
                .iter()
                .map(|line| line.replace("\"maps\":2,", &with_making)),
        );
        let view = view(&[&lines], Moment::End);
        let causes = differences(&view).iter().map(|one| one.cause);
        causes.collect::<Vec<_>>()
    };
    assert_eq!(causes(0x2000), [Cause::UnderWay]);
    assert_eq!(causes(0x1000), [Cause::Unexplained]);
}

#[test]
fn a_guard_below_makes_a_stack_and_an_address_on_it_names_the_thread() {
    let mut lines = snapshot(1, 1, &[]);
    lines.push(
        "{\"op\":\"thread\",\"t\":5,\"thread\":1,\"name\":\"a\",\"sp\":\"0x10801f00\"}".to_string(),
    );
    let found = ["10000000-10001000 ---p 0 0", "10001000-10802000 rw-p 0 0"];
    lines.extend(snapshot(20, 2, &found));
    let view = view(&[&lines], Moment::End);
    assert_eq!(differences(&view)[0].cause, Cause::ThreadStack);
    let told: Vec<_> = view
        .picture
        .rows
        .iter()
        .skip(1)
        .map(|row| (row.kind, row.thread))
        .collect();
    assert_eq!(told, [(Kind::Guard, Some(1)), (Kind::ThreadStack, Some(1))]);
}

#[test]
fn a_picture_has_the_blocks_of_its_moment() {
    let lines = [
        brk(5, 0x5000_0000, 0x5002_1000),
        malloc(10, 100, 0x5000_02a0),
        malloc(20, 5000, 0x5000_0310),
        free(30, 0x5000_0310),
        free(40, 0x5000_02a0),
    ];
    let held = |moment| {
        let view = view(&[&lines], moment);
        let heap = view.picture.heap;
        (heap.blocks, heap.asked)
    };
    assert_eq!(held(Moment::Time(4)), (0, 0));
    assert_eq!(held(Moment::Time(10)), (1, 100));
    assert_eq!(held(Moment::Time(29)), (2, 5100));
    assert_eq!(held(Moment::Time(30)), (1, 100));
    assert_eq!(held(Moment::Peak), (2, 5100));
    assert_eq!(held(Moment::End), (0, 0));
}

#[test]
fn what_keeps_the_top_is_the_highest_live_block() {
    let lines = [
        brk(5, 0x5000_0000, 0x5002_1000),
        malloc(10, 24, 0x5000_02a0),
        malloc(20, 1000, 0x5000_02c0),
    ];
    let heap = view(&[&lines], Moment::End).picture.heap;
    assert_eq!(heap.held(), 33 * 4096);
    // 24 bytes need a chunk of 32, 1000 one of 1008.
    assert_eq!((heap.asked, heap.chunks), (1024, 1040));
    assert_eq!(
        heap.highest.map(|highest| highest.address),
        Some(0x5000_02c0)
    );
    assert_eq!(heap.top(), 0x2_1000 - 0x2b0 - 1008);
    assert_eq!(heap.holes() + heap.top() + heap.chunks, heap.held());
}

fn reasons(lines: &[String]) -> Vec<Reason> {
    let mut story = Story::default();
    replay(&log(&[lines]), &mut story).expect("the log can be read");
    story.finish();
    story
        .chapters
        .iter()
        .map(|chapter| chapter.reason)
        .collect()
}

#[test]
fn the_first_heap_is_33_pages_and_any_other_size_is_not_malloc_s_rule() {
    let first = |pages: u64| {
        reasons(&[
            brk(5, 0x5000_0000, 0x5000_0000 + pages * 4096),
            malloc(5, 1, 0x5000_02a0),
        ])
    };
    assert_eq!(first(33), [Reason::FirstHeap { chunk: 32 }]);
    assert_eq!(first(34), [Reason::OtherGrowth { chunk: 32 }]);
}

#[test]
fn the_threshold_rises_with_the_chunk_that_is_freed_and_not_beyond_32_mib() {
    let pair = |t: u64, size: u64| {
        let mapped = (size + 24).next_multiple_of(4096);
        let at = 0x7000_0000_0000;
        let via = "\"prot\":3,\"flags\":34,\"fd\":-1,\"offset\":0,\"via\":\"malloc\"";
        vec![
            mmap(t, at, mapped, via),
            malloc(t, size, at + 16),
            free(t + 1, at + 16),
            munmap(t + 1, at, mapped).replace('}', ",\"via\":\"free\"}"),
        ]
    };
    let lines: Vec<String> = [(10, 200_000), (20, 150_000), (30, 40 << 20)]
        .iter()
        .flat_map(|(t, size)| pair(*t, *size))
        .collect();
    let moved: Vec<_> = reasons(&lines)
        .into_iter()
        .map(|reason| match reason {
            Reason::Mapped { threshold, .. } => (true, Some(threshold)),
            Reason::Unmapped { moved, .. } => (true, moved.map(|(_, after)| after)),
            Reason::MappedBelow { threshold, .. } => (false, Some(threshold)),
            _ => (false, None),
        })
        .collect();
    assert_eq!(
        moved,
        [
            (true, Some(131_072)),
            (true, Some(200_704)),
            (false, Some(200_704)),
            (true, None),
            (true, Some(200_704)),
            (true, None),
        ]
    );
}

#[test]
fn numbers_at_the_end_of_their_range_do_not_wrap() {
    const END: u64 = u64::MAX;
    let mut lines = snapshot(
        1,
        1,
        &[
            "ffffffffffffff00-10 rw-p 0 0",
            "0-ffffffffffffffff rw-p ffffffffffffffff 9 /f",
            "0-ffffffffffffffff rw-p ffffffffffffffff 9 /f",
        ],
    );
    let arena = |t: u64, base: u64, size: u64| {
        format!(
            "{{\"op\":\"arena\",\"t\":{t},\"base\":\"{base:#x}\",\"size\":{size},\
             \"change\":\"made\",\"arena\":\"0x1\",\"via\":\"malloc\"}}"
        )
    };
    let mremap = |t: u64, old: u64, addr: u64| {
        format!(
            "{{\"op\":\"mremap\",\"t\":{t},\"old\":\"{old:#x}\",\"old_size\":{},\"size\":{END},\
             \"flags\":1,\"addr\":\"{addr:#x}\",\"via\":\"realloc\"}}",
            1u64 << 63
        )
    };
    let file = format!("\"prot\":3,\"flags\":2,\"fd\":3,\"offset\":{END}");
    lines.extend([
        mmap(10, 0x1000, END, &file),
        munmap(11, END - 9, 5),
        munmap(12, 0x3000, 1 << 63),
        mremap(13, 0x2000, END - 5),
        arena(14, END - 3, END),
        arena(15, 0, END),
        brk(16, 1, END),
        malloc(17, END, 8),
        malloc(18, END, END),
        free(19, 8),
        brk(20, END, 0),
    ]);
    lines.extend(snapshot(30, 2, &["0-ffffffffffffffff rw-p 0 0"]));
    for moment in [Moment::Start, Moment::Time(18), Moment::Peak, Moment::End] {
        let view = view(&[&lines], moment);
        assert!(view.picture.total().ranges > 0, "{moment:?}");
        let _ = view.space.accounts[1].by_cause();
    }
    let log = log(&[&lines]);
    let (mut story, mut timeline) = (Story::default(), super::Timeline::default());
    let outcome = replay(&log, &mut (&mut story, &mut timeline)).expect("the log can be read");
    timeline.finish(&outcome.memory);
    story.finish();
    assert!(timeline.points.iter().any(|point| point.held > 1 << 63));
}
