//! A part of a run, between two marks: only blocks that were allocated there count.

use crate::printable;

/// The last generation that the shim counts: more marks than that share it.
const LAST_GENERATION: u32 = 1023;

/// A named point in time of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The name, bytes from outside.
    pub name: Box<[u8]>,
    /// When, nanoseconds since the image started.
    pub t: u64,
    /// The generation of blocks that begins with it.
    pub generation: Option<u32>,
}

/// What part of a run is looked at. Of marks with the same name the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Blocks allocated after this mark; `None`: from the start.
    pub since: Option<String>,
    /// Blocks allocated before this mark, as they were at the first check from then on; `None`: up to the end.
    pub until: Option<String>,
}

/// A window among the marks of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    pub(super) since: Option<Mark>,
    pub(super) until: Option<Mark>,
}

impl Window {
    /// Where the window lies.
    ///
    /// # Errors
    /// The name of a mark that is not there.
    pub(super) fn among(&self, marks: &[Mark]) -> Result<Bounds, String> {
        let find = |name: &Option<String>| -> Result<Option<Mark>, String> {
            let Some(name) = name else { return Ok(None) };
            let of_name = |mark: &&Mark| *mark.name == *name.as_bytes();
            let mark = marks.iter().rfind(of_name).ok_or_else(|| name.clone())?;
            Ok(Some(mark.clone()))
        };
        Ok(Bounds {
            since: find(&self.since)?,
            until: find(&self.until)?,
        })
    }
}

impl Bounds {
    /// Whether blocks of this generation were allocated in the window.
    pub(super) fn holds(&self, generation: u32) -> bool {
        let from = self.since.as_ref().and_then(|mark| mark.generation);
        let to = self.until.as_ref().and_then(|mark| mark.generation);
        from.is_none_or(|from| generation >= from) && to.is_none_or(|to| generation < to)
    }

    /// Why the window can't be told.
    pub(super) fn doubts(&self) -> Vec<String> {
        let marks = [&self.since, &self.until].into_iter().flatten();
        let mut doubts: Vec<String> = marks
            .filter(|mark| mark.generation.is_none_or(|number| number >= LAST_GENERATION))
            .map(|mark| {
                let name = printable(&mark.name);
                format!("what was allocated before the mark {name} can't be told from what came after it")
            })
            .collect();
        if let (Some(since), Some(until)) = (&self.since, &self.until)
            && since.t >= until.t
        {
            let (since, until) = (printable(&since.name), printable(&until.name));
            doubts.push(format!("the mark {since} comes after the mark {until}"));
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str, t: u64, generation: u32) -> Mark {
        Mark {
            name: name.as_bytes().into(),
            t,
            generation: Some(generation),
        }
    }

    fn window(since: Option<&str>, until: Option<&str>) -> Window {
        Window {
            since: since.map(Into::into),
            until: until.map(Into::into),
        }
    }

    #[test]
    fn a_window_holds_the_generations_between_its_marks() {
        let marks = [mark("a", 10, 1), mark("b", 20, 2), mark("c", 30, 3)];
        let held = |since, until| {
            let bounds = window(since, until)
                .among(&marks)
                .expect("the marks are there");
            (0..5)
                .filter(|number| bounds.holds(*number))
                .collect::<Vec<u32>>()
        };
        assert_eq!(held(Some("a"), Some("c")), [1, 2]);
        assert_eq!(held(Some("b"), None), [2, 3, 4]);
        assert_eq!(held(None, Some("b")), [0, 1]);
        assert_eq!(held(None, None), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn of_a_name_given_twice_the_last_counts_and_a_missing_one_is_named() {
        let marks = [mark("a", 10, 1), mark("a", 20, 2)];
        let bounds = window(Some("a"), None).among(&marks).expect("is there");
        assert!(!bounds.holds(1) && bounds.holds(2));
        assert_eq!(
            window(None, Some("z")).among(&marks).err().as_deref(),
            Some("z")
        );
    }

    #[test]
    fn marks_in_the_wrong_order_and_uncounted_ones_raise_doubt() {
        let marks = [mark("a", 10, 1), mark("b", 20, LAST_GENERATION)];
        let doubts = |since, until| window(since, until).among(&marks).map(|all| all.doubts());
        assert_eq!(doubts(Some("b"), Some("a")).map(|all| all.len()), Ok(2));
        assert_eq!(doubts(Some("a"), None), Ok(vec![]));
    }
}
