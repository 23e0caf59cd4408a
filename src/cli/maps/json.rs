//! The annotated map for programs.

use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::space::{Account, Fragments, Moment, Picture, Row, Total, View};
use serde_json::{Value, json};

use crate::callers::Callers;

/// The document. Addresses are hexadecimal strings, sizes bytes, times nanoseconds.
pub(super) fn document(log: &Log, at: Moment, view: &View, callers: &Callers) -> Value {
    let picture = &view.picture;
    json!({
        "schema": 1,
        "program": log.start().map(|start| printable(&start.exe)),
        "pid": log.pid(),
        "complete": view.outcome.completeness.complete,
        "moment": match at {
            Moment::Start => "start",
            Moment::Time(_) => "time",
            Moment::Peak => "peak",
            Moment::End => "end",
        },
        "t": picture.t,
        "snapshot": picture.snapshot.as_ref().map(|(when, t)| json!({"when": when, "t": t})),
        "stack_limit": picture.stack_limit,
        "ranges": picture.rows.iter().map(|row| range(row, callers)).collect::<Vec<_>>(),
        "totals": totals(picture),
        "total": sums(&picture.total()),
        "heap": heap(&picture.heap, callers),
        "snapshots": view.space.accounts.iter().map(account).collect::<Vec<_>>(),
    })
}

fn address(address: u64) -> String {
    format!("{address:#x}")
}

fn range(row: &Row, callers: &Callers) -> Value {
    json!({
        "from": address(row.from),
        "to": address(row.to),
        "size": row.to - row.from,
        "perms": row.perms.to_string(),
        "may": row.perms.words(),
        "kind": row.kind.name(),
        "path": printable(&row.path),
        "offset": row.offset,
        "inode": row.inode,
        "thread": row.thread,
        "resident": row.resident.map(|resident| resident.all),
        "private": row.resident.map(|resident| resident.private),
        "dirty": row.resident.map(|resident| resident.dirty),
        "handed_out": {"blocks": row.handed_out.blocks, "bytes": row.handed_out.bytes},
        "call": row.call.map(|call| json!({
            "t": call.t,
            "thread": call.thread,
            "via": call.via.map(|via| via.to_string()),
            "stack": callers.of(call.stack),
        })),
    })
}

fn sums(total: &Total) -> Value {
    json!({
        "ranges": total.ranges,
        "size": total.size,
        "resident": total.resident,
        "resident_unknown": total.resident_unknown,
        "handed_out": {"blocks": total.handed_out.blocks, "bytes": total.handed_out.bytes},
    })
}

fn totals(picture: &Picture) -> Vec<Value> {
    let total = |(kind, total): (memspy_analysis::space::Kind, Total)| {
        let mut value = sums(&total);
        value["kind"] = kind.name().into();
        value["meaning"] = kind.sentence().into();
        value
    };
    picture.totals().into_iter().map(total).collect()
}

fn heap(heap: &Fragments, callers: &Callers) -> Value {
    json!({
        "from": address(heap.from),
        "to": address(heap.to),
        "held": heap.held(),
        "blocks": heap.blocks,
        "asked": heap.asked,
        "chunks": heap.chunks,
        "holes": heap.holes(),
        "top": heap.top(),
        "highest": heap.highest.map(|highest| json!({
            "ptr": address(highest.address),
            "size": highest.block.size,
            "op": highest.block.op.name(),
            "t": highest.block.t,
            "stack": callers.of(highest.block.stack),
        })),
    })
}

fn account(account: &Account) -> Value {
    let differences = account.differences.iter().map(|difference| {
        json!({
            "from": address(difference.from),
            "to": address(difference.to),
            "expected": difference.expected,
            "found": difference.found,
            "cause": difference.cause.name(),
        })
    });
    json!({
        "id": account.snapshot,
        "when": account.when,
        "t": account.t,
        "mapped": account.mapped,
        "resident": account.resident,
        "unexplained": account.unexplained().count(),
        "differences": differences.collect::<Vec<_>>(),
    })
}
