//! Source paths as a repository's tools want them: relative to its root.

use std::path::{Component, Path, PathBuf};

/// The root of the sources that reports speak of.
pub(crate) struct Sources {
    root: PathBuf,
}

impl Sources {
    /// `root` must be absolute.
    pub(crate) fn new(root: PathBuf) -> Sources {
        Sources {
            root: normal(&root),
        }
    }

    /// The path below the root; `None` for a file elsewhere. `.` and `..` are resolved in the
    /// text alone: the file need not exist here.
    pub(super) fn relative(&self, file: &str) -> Option<String> {
        let path = normal(Path::new(file));
        let below = if path.is_absolute() {
            path.strip_prefix(&self.root).ok()?
        } else {
            &path
        };
        let inside = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let below = below.to_str()?;
        (inside && !below.is_empty()).then(|| below.to_owned())
    }

    /// The path below the root where there is one, else the path itself.
    pub(super) fn shorten(&self, file: &str) -> String {
        self.relative(file).unwrap_or_else(|| file.to_owned())
    }
}

/// The path without `.` and with `x/..` taken out.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Percent-encodes what may not stand in the path of a URI (RFC 3986, `pchar` and `/`).
pub(super) fn uri_path(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte);
        if plain {
            uri.push(char::from(byte))
        } else {
            uri.push_str(&format!("%{byte:02X}"))
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_the_root_are_relative() {
        let sources = Sources::new("/home/me/app".into());
        assert_eq!(
            sources.relative("/home/me/app/src/a.c").as_deref(),
            Some("src/a.c")
        );
        assert_eq!(
            sources.relative("/home/me/app/build/../src/a.c").as_deref(),
            Some("src/a.c")
        );
        assert_eq!(sources.relative("./src/a.c").as_deref(), Some("src/a.c"));
        for outside in [
            "/home/me/application/a.c",
            "/home/me/app/../b.c",
            "../a.c",
            "/home/me/app",
        ] {
            assert_eq!(sources.relative(outside), None, "{outside}");
        }
        assert_eq!(sources.shorten("/usr/include/x.h"), "/usr/include/x.h");
    }

    #[test]
    fn a_path_that_is_no_uri_is_encoded() {
        assert_eq!(uri_path("a b/ü?#%.c"), "a%20b/%C3%BC%3F%23%25.c");
    }
}
