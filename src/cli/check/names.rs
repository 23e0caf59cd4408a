//! The stacks of leaks, as modules and offsets in them.

use memspy_analysis::event::{StackId, StackNode};
use memspy_analysis::model::Memory;
use memspy_analysis::verdict::{Evidence, Frame};

/// The evidence with the frames of every leak filled in.
pub(super) fn named(mut evidence: Vec<Evidence>) -> Vec<Evidence> {
    for one in &mut evidence {
        for (leak, stack) in one.process.leaks.iter_mut().zip(&one.stacks) {
            leak.frames = frames(&one.memory, *stack);
            leak.cut = one
                .memory
                .stacks
                .frames(*stack)
                .any(|node| node.cut.is_some());
        }
    }
    evidence
}

/// The frames of a stack, innermost first. A return address is looked up one byte before: the call
/// may be the last instruction of its function.
fn frames(memory: &Memory, stack: StackId) -> Vec<Frame> {
    let frame = |node: &StackNode| {
        let address = node.ip.saturating_sub(1);
        let module = memory.modules.get(node.module);
        Frame {
            module: module.map(|module| String::from_utf8_lossy(&module.path).into()),
            address,
            offset: module.map(|module| address.wrapping_sub(module.bias)),
            ..Frame::default()
        }
    };
    memory.stacks.frames(stack).map(frame).collect()
}
