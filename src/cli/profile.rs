//! Named call stacks with what was allocated there: what flamegraphs and exports are made from.

use std::path::PathBuf;

use clap::ValueEnum;
use memspy_analysis::call_tree::CallTree;
use memspy_analysis::printable;
use memspy_analysis::site::{Figures, Kind, Site, Sites};
use memspy_symbol::Frame;

use crate::naming::{NameOptions, Naming};
use crate::site_kind::Words;
use crate::site_logs::SiteLogs;

/// Named call stacks and their figures.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Loaded objects, referred to by index.
    pub(crate) modules: Vec<Module>,
    /// Code addresses, referred to by index.
    pub(crate) places: Vec<Place>,
    /// Which memory it is about.
    pub(crate) kind: Kind,
    /// One for each call stack, of the heap's and of mappings.
    pub(crate) samples: Vec<Sample>,
    /// Wall clock at the start of the first log, nanoseconds since 1970.
    pub(crate) start_unix_ns: u64,
    /// From the start to the last event of the log that lasted longest, nanoseconds.
    pub(crate) duration_ns: u64,
    /// Which programs, safe to print.
    pub(crate) title: String,
    /// What a reader must know: what the logs lack, which modules have no names. Safe to print.
    pub(crate) notes: Vec<String>,
}

/// A loaded object.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) path: String,
    /// Hexadecimal, empty when unknown.
    pub(crate) build_id: String,
    /// Lowest mapped address.
    pub(crate) base: u64,
    /// Bytes up to the highest.
    pub(crate) size: u64,
}

impl Module {
    fn of(module: &memspy_analysis::event::Module) -> Module {
        Module {
            path: printable(&module.path),
            build_id: printable(module.build_id.as_bytes()),
            base: module.base,
            size: module.size,
        }
    }
}

/// A code address and the functions there.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The address looked up, in the recorded process.
    pub(crate) address: u64,
    /// Index of its module.
    pub(crate) module: Option<usize>,
    /// Innermost first; never empty, each with a function that is safe to print: without a name it is
    /// `libx.so+0x1234`.
    pub(crate) frames: Vec<Frame>,
}

impl Place {
    fn of(naming: &Naming, tree: &CallTree, place: usize) -> Place {
        let mut frames = naming.frames(place).to_vec();
        if frames.is_empty() {
            frames.push(Frame::default());
        }
        for frame in &mut frames {
            frame.function = Some(naming.function(place, frame));
        }
        let place = tree.places()[place];
        let bias = place.module.map_or(0, |module| tree.modules()[module].bias);
        Place {
            address: place.address.wrapping_add(bias),
            module: place.module,
            frames,
        }
    }
}

/// What was allocated at one call stack.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Indices of places, innermost first.
    pub(crate) stack: Vec<usize>,
    pub(crate) figures: Figures,
}

/// One figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Bytes asked for
    Bytes,
    /// Number of calls that succeeded
    Count,
    /// Bytes live at the peak
    Peak,
    /// Bytes not given back at the end
    Leaked,
}

impl Measure {
    /// What its numbers count.
    pub(crate) fn unit(self, kind: Kind) -> &'static str {
        match self {
            Measure::Count => Words::of(kind).many_calls(),
            Measure::Bytes | Measure::Peak | Measure::Leaked => "bytes",
        }
    }

    /// A few words for a title.
    pub(crate) fn title(self, kind: Kind) -> String {
        let words = Words::of(kind);
        match self {
            Measure::Bytes => format!("bytes {}", words.took),
            Measure::Count => words.many_calls().to_string(),
            Measure::Peak => format!("bytes live at {} peak", words.whose),
            Measure::Leaked => format!("bytes {}", words.live),
        }
    }

    pub(crate) fn of(self, sample: &Sample) -> u64 {
        match self {
            Measure::Bytes => sample.figures.bytes,
            Measure::Count => sample.figures.blocks,
            Measure::Peak => sample.figures.peak_bytes,
            Measure::Leaked => sample.figures.live_bytes,
        }
    }
}

impl Profile {
    /// Reads logs and names everything in them.
    ///
    /// # Errors
    /// When a log can't be read.
    pub(crate) fn read(
        logs: &[PathBuf],
        kind: Kind,
        names: &NameOptions,
    ) -> anyhow::Result<Profile> {
        let logs = SiteLogs::read(logs, kind, 1)?;
        let sites = &logs.sites;
        let tree = &sites.tree;
        let naming = Naming::find(tree, 0..tree.places().len(), names, logs.start_unix_ns);
        let mut profile = Profile {
            modules: tree.modules().iter().map(Module::of).collect(),
            places: (0..tree.places().len())
                .map(|place| Place::of(&naming, tree, place))
                .collect(),
            kind,
            samples: Vec::new(),
            start_unix_ns: logs.start_unix_ns.unwrap_or_default(),
            duration_ns: logs.duration_ns,
            title: logs.title(),
            notes: logs
                .warnings
                .iter()
                .cloned()
                .chain(naming.notes())
                .collect(),
        };
        profile.samples = sites
            .list()
            .iter()
            .map(|site| profile.sample(sites, site))
            .collect();
        Ok(profile)
    }

    /// A site as a sample. Where the log has no stack, the call stands for it, as a place of its own.
    fn sample(&mut self, sites: &Sites, site: &Site) -> Sample {
        let mut stack: Vec<usize> = sites.tree.path(site.stack).collect();
        if let Some(call) = site.call {
            let name = format!("{}({})", call.op.name(), call.size);
            stack.push(self.places.len());
            self.places.push(Place {
                frames: vec![Frame {
                    function: Some(name),
                    ..Frame::default()
                }],
                ..Place::default()
            });
        }
        Sample {
            stack,
            figures: site.figures,
        }
    }

    /// The frames of a sample, outermost first, as flamegraphs grow.
    pub(crate) fn frames<'a>(&'a self, sample: &'a Sample) -> impl Iterator<Item = &'a Frame> {
        let places = sample.stack.iter().rev();
        places.flat_map(|&place| self.places[place].frames.iter().rev())
    }
}

/// The function's name.
pub(crate) fn function(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or("??")
}

#[cfg(test)]
pub(crate) mod example {
    //! A small profile: main calls grow (in which push is inlined) and keep.

    use super::*;

    fn frame(function: &str, line: u32, inlined: bool) -> Frame {
        Frame {
            function: Some(function.to_string()),
            symbol: None,
            file: Some("main.c".to_string()),
            line: Some(line),
            inlined,
        }
    }

    pub(crate) fn profile() -> Profile {
        let module = Module {
            path: "/usr/bin/example".to_string(),
            build_id: "0123abcd".to_string(),
            base: 0x1000,
            size: 0x9000,
        };
        let place = |address, frames| Place {
            address,
            module: Some(0),
            frames,
        };
        Profile {
            modules: vec![module],
            places: vec![
                place(0x1100, vec![frame("main", 20, false)]),
                place(
                    0x1200,
                    vec![frame("push", 3, true), frame("grow", 9, false)],
                ),
                place(0x1300, vec![frame("keep", 14, false)]),
            ],
            kind: Kind::Heap,
            samples: vec![
                Sample {
                    stack: vec![1, 0],
                    figures: Figures {
                        blocks: 4,
                        bytes: 400,
                        peak_bytes: 300,
                        ..Figures::default()
                    },
                },
                Sample {
                    stack: vec![2, 0],
                    figures: Figures {
                        blocks: 1,
                        bytes: 50,
                        live_blocks: 1,
                        live_bytes: 50,
                        peak_bytes: 50,
                        ..Figures::default()
                    },
                },
            ],
            start_unix_ns: 1_790_000_000_000_000_000,
            duration_ns: 5_000_000,
            title: "example".to_string(),
            notes: Vec::new(),
        }
    }
}
