//! Sites put together by the function, file or module that asked.
//!
//! Nearly all memory of a C++ program is asked for by `operator new`, and nearly all of a Rust
//! program's by `alloc::alloc`. Who asked is the innermost function outside such code.

use std::collections::HashMap;

use memspy_analysis::printable;
use memspy_analysis::site::{Figures, Site, Sites, Taken};
use memspy_symbol::Frame;

use super::By;
use crate::naming::Naming;

/// Sites of one name.
pub(crate) struct Group {
    /// Safe to print.
    pub(crate) name: String,
    pub(crate) figures: Figures,
    /// How the memory of all of them was taken; `None` when of some so, of some so.
    pub(crate) taken: Option<Taken>,
    /// How many sites.
    pub(crate) sites: u64,
}

/// The groups, in no order. Functions whose names begin with one of `skip` do not ask.
pub(crate) fn groups(sites: &Sites, naming: &Naming, by: By, skip: &[String]) -> Vec<Group> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    for site in sites.list() {
        let name = name(sites, site, naming, by, skip);
        let group = groups.entry(name.clone()).or_insert_with(|| Group {
            name,
            figures: Figures::default(),
            taken: Some(site.taken),
            sites: 0,
        });
        group.figures.add(&site.figures);
        group.taken = group.taken.filter(|taken| *taken == site.taken);
        group.sites += 1;
    }
    groups.into_values().collect()
}

/// What asked at a site, safe to print: the function, file or module; without a stack the call.
pub(crate) fn name(sites: &Sites, site: &Site, naming: &Naming, by: By, skip: &[String]) -> String {
    let Some((place, frame)) = asker(sites, site, naming, skip) else {
        return site
            .call
            .map_or_else(String::new, |call| call.op.name().to_string());
    };
    let unknown = || {
        naming
            .module(place)
            .unwrap_or_else(|| "(no module)".to_string())
    };
    match by {
        By::Stack | By::Function => naming.function(place, &frame),
        By::File => match &frame.file {
            Some(file) => printable(file.as_bytes()),
            None => format!("({})", unknown()),
        },
        By::Module => unknown(),
    }
}

/// The innermost function outside the allocator's wrappers and what the caller skips; the outermost when all are such.
fn asker(sites: &Sites, site: &Site, naming: &Naming, skip: &[String]) -> Option<(usize, Frame)> {
    let mut last = None;
    for place in sites.tree.path(site.stack) {
        let frames = naming.frames(place);
        if frames.is_empty() {
            return Some((place, Frame::default()));
        }
        for frame in frames {
            let function = frame.function.as_deref().unwrap_or_default();
            let skipped = skip.iter().any(|name| function.starts_with(name.as_str()));
            if !skipped && !is_wrapper(function) {
                return Some((place, frame.clone()));
            }
            last = Some((place, frame.clone()));
        }
    }
    last
}

/// Whether a function belongs to the standard library of C++ or Rust.
pub(super) fn is_wrapper(function: &str) -> bool {
    const NAMESPACES: [&str; 9] = [
        "std::",
        "__gnu_cxx::",
        "operator new",
        "core::",
        "alloc::",
        "hashbrown::",
        "__rust",
        "__rdl_",
        "__rg_",
    ];
    // What stands before the template arguments and the parameters, with the type that is returned.
    let end = function
        .trim_start_matches(['<', '&'])
        .find(['<', '('])
        .unwrap_or(function.len());
    let head = function
        .trim_start_matches(['<', '&'])
        .get(..end)
        .unwrap_or_default();
    let qualified = head.rsplit([' ', '*', '&']).next().unwrap_or_default();
    let starts = |text: &str| NAMESPACES.iter().any(|name| text.starts_with(name));
    starts(head) || starts(qualified)
}

#[cfg(test)]
mod tests {
    use super::is_wrapper;

    #[test]
    fn the_standard_libraries_are_not_the_ones_who_ask() {
        for wrapper in [
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "std::__new_allocator<int>::allocate(unsigned long, void const*)",
            "void std::vector<int, std::allocator<int> >::_M_realloc_insert<int>(int&&)",
            "std::__cxx11::basic_string<char>::_M_create(unsigned long&, unsigned long)",
            "alloc::raw_vec::finish_grow",
            "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
            "__rust_alloc",
            "__rustc::__rust_alloc",
        ] {
            assert!(is_wrapper(wrapper), "{wrapper}");
        }
    }

    #[test]
    fn a_programs_own_functions_are() {
        for own in [
            "main",
            "make_table",
            "Words::add(int)",
            "grow(std::vector<int>&)",
            "stdio_open(char const*)",
            "<app::Row as app::Shape>::area",
            "",
        ] {
            assert!(!is_wrapper(own), "{own}");
        }
    }
}
