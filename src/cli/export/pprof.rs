//! pprof's profile.proto, gzipped: four values for each stack, as Go's heap profiles have them.
//! <https://github.com/google/pprof/blob/main/proto/profile.proto> gives the field numbers.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use memspy_symbol::Frame;
use prost::Message;

use crate::profile::{self, Profile, function};

/// Writes `profile` to `out`.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(profile: &Profile, out: impl Write) -> io::Result<()> {
    let mut zipped = GzEncoder::new(out, Compression::default());
    zipped.write_all(&message(profile).encode_to_vec())?;
    zipped.finish()?.flush()
}

/// The four values, in their order: type and unit.
const VALUES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

fn message(profile: &Profile) -> ProfileMessage {
    let mut strings = Strings::default();
    let mut functions = Functions::default();
    let location = profile.places.iter().zip(1..).map(|(place, id)| Location {
        id,
        mapping_id: place.module.map_or(0, number),
        address: place.address,
        line: place
            .frames
            .iter()
            .map(|frame| functions.line(frame, &mut strings))
            .collect(),
    });
    let location = location.collect();
    let value_type = |(kind, unit)| ValueType {
        kind: strings.number(kind),
        unit: strings.number(unit),
    };
    let sample_type: Vec<ValueType> = VALUES.into_iter().map(value_type).collect();
    ProfileMessage {
        default_sample_type: sample_type[1].kind,
        sample_type,
        sample: profile.samples.iter().map(sample).collect(),
        mapping: profile
            .modules
            .iter()
            .zip(1..)
            .map(|it| mapping(it, &mut strings))
            .collect(),
        location,
        function: functions.list,
        time_nanos: clamped(profile.start_unix_ns),
        duration_nanos: clamped(profile.duration_ns),
        string_table: strings.list,
    }
}

fn sample(sample: &profile::Sample) -> Sample {
    let it = &sample.figures;
    let values = [it.blocks, it.bytes, it.live_blocks, it.live_bytes];
    Sample {
        location_id: sample.stack.iter().map(|&place| number(place)).collect(),
        value: values.map(clamped).to_vec(),
    }
}

fn mapping((module, id): (&profile::Module, u64), strings: &mut Strings) -> Mapping {
    Mapping {
        id,
        memory_start: module.base,
        memory_limit: module.base.saturating_add(module.size),
        filename: strings.number(&module.path),
        build_id: strings.number(&module.build_id),
        // Nothing is left for pprof to look up.
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    }
}

/// An index as a number of the format, where 0 means none.
fn number(index: usize) -> u64 {
    index as u64 + 1
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The string table; number 0 is the empty string.
struct Strings {
    list: Vec<String>,
    known: HashMap<String, i64>,
}

impl Default for Strings {
    fn default() -> Self {
        Strings {
            list: vec![String::new()],
            known: HashMap::from([(String::new(), 0)]),
        }
    }
}

impl Strings {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.known.get(text) {
            return number;
        }
        let number = self.list.len() as i64;
        self.list.push(text.to_string());
        self.known.insert(text.to_string(), number);
        number
    }
}

/// The function table.
#[derive(Default)]
struct Functions {
    list: Vec<Function>,
    known: HashMap<(i64, i64), u64>,
}

impl Functions {
    fn line(&mut self, frame: &Frame, strings: &mut Strings) -> Line {
        let name = strings.number(function(frame));
        let filename = strings.number(frame.file.as_deref().unwrap_or_default());
        let function_id = *self.known.entry((name, filename)).or_insert_with(|| {
            let id = number(self.list.len());
            self.list.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
            id
        });
        Line {
            function_id,
            line: frame.line.map_or(0, i64::from),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ProfileMessage {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    #[test]
    fn the_string_table_starts_with_the_empty_string() {
        assert_eq!(message(&example::profile()).string_table[0], "");
    }

    #[test]
    fn a_location_has_its_inlined_functions_innermost_first() {
        let message = message(&example::profile());
        let names: Vec<&str> = message.location[1]
            .line
            .iter()
            .map(|line| {
                let function = &message.function[line.function_id as usize - 1];
                message.string_table[function.name as usize].as_str()
            })
            .collect();
        assert_eq!(names, ["push", "grow"]);
    }

    #[test]
    fn values_beyond_63_bits_are_the_largest_number() {
        let mut profile = example::profile();
        profile.samples[0].figures.bytes = u64::MAX;
        assert_eq!(message(&profile).sample[0].value, [4, i64::MAX, 0, 0]);
    }
}
