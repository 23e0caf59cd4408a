//! Which image came from which: processes by pid, parent and start, images of one process by exec.

use crate::event::Start;

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No log of the process that started it.
    Root,
    /// A child of the process of this image.
    Child(usize),
    /// The same process ran this image before and replaced it by exec.
    Exec(usize),
}

/// Images in the order of a tree: each after the image that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Of each image, by its place in what the tree was made of.
    pub origins: Vec<Origin>,
    /// The places in the order of the tree, with their depths from 0.
    pub order: Vec<(usize, usize)>,
}

impl Tree {
    /// Makes the tree of images by their first lines; images without one are roots.
    pub fn of(starts: &[Option<&Start>]) -> Tree {
        let origins: Vec<_> = (0..starts.len())
            .map(|image| origin(starts, image))
            .collect();
        let mut children = vec![Vec::new(); starts.len()];
        let mut roots = Vec::new();
        for (image, origin) in origins.iter().enumerate() {
            match origin {
                Origin::Root => roots.push(image),
                Origin::Child(before) | Origin::Exec(before) => children[*before].push(image),
            }
        }
        let when = |image: &usize| starts[*image].map_or(0, |start| start.mono_ns);
        let mut waiting = Vec::new();
        let later = |images: &mut Vec<usize>, depth: usize, waiting: &mut Vec<_>| {
            images.sort_by_key(when);
            waiting.extend(images.drain(..).rev().map(|image| (image, depth)));
        };
        later(&mut roots, 0, &mut waiting);
        let mut order = Vec::with_capacity(starts.len());
        while let Some((image, depth)) = waiting.pop() {
            order.push((image, depth));
            later(&mut children[image], depth + 1, &mut waiting);
        }
        Tree { origins, order }
    }
}

/// Where an image came from. Always from one that started earlier, so that no circle is possible.
fn origin(starts: &[Option<&Start>], image: usize) -> Origin {
    let Some(me) = starts[image] else {
        return Origin::Root;
    };
    let began = |start: &Start, place: usize| (start.mono_ns, place);
    let mine = began(me, image);
    let latest = |wanted: &dyn Fn(&Start) -> bool| {
        starts
            .iter()
            .enumerate()
            .filter_map(|(place, start)| Some((place, (*start)?)))
            .filter(|(place, start)| began(start, *place) < mine && same_world(start, me))
            .filter(|(_, start)| wanted(start))
            .max_by_key(|(place, start)| began(start, *place))
            .map(|(place, _)| place)
    };
    let same_process = |start: &Start| (start.pid, start.start_ticks) == (me.pid, me.start_ticks);
    if let Some(before) = latest(&same_process) {
        return Origin::Exec(before);
    }
    match latest(&|start| start.pid == me.ppid) {
        Some(parent) => Origin::Child(parent),
        None => Origin::Root,
    }
}

fn same_world(one: &Start, other: &Start) -> bool {
    one.boot_id == other.boot_id && one.pid_ns == other.pid_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pid: u32, ppid: u32, ticks: u64, mono_ns: u64) -> Start {
        Start {
            pid,
            ppid,
            start_ticks: ticks,
            mono_ns,
            ..Start::default()
        }
    }

    fn tree(starts: &[Start]) -> Tree {
        Tree::of(&starts.iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn children_stand_under_their_parents_and_execs_behind_what_they_replaced() {
        let tree = tree(&[
            start(12, 10, 2, 40),
            start(10, 1, 1, 10),
            start(11, 10, 2, 20),
            start(11, 10, 2, 30),
        ]);
        assert_eq!(
            tree.origins,
            [
                Origin::Child(1),
                Origin::Root,
                Origin::Child(1),
                Origin::Exec(2)
            ]
        );
        assert_eq!(tree.order, [(1, 0), (2, 1), (3, 2), (0, 1)]);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let tree = tree(&[
            start(10, 1, 1, 10),
            start(10, 1, 9, 90),
            start(5, 10, 9, 95),
        ]);
        assert_eq!(tree.origins, [Origin::Root, Origin::Root, Origin::Child(1)]);
    }

    #[test]
    fn equal_starts_make_no_circle() {
        let same = start(7, 7, 1, 10);
        let tree = tree(&[same.clone(), same.clone(), same]);
        assert_eq!(tree.order.len(), 3);
    }
}
