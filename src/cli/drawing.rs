//! What memspy's own SVG pictures share: escaping, colours for light and dark.

/// The style sheet: text and lines follow the reader's light or dark setting; the colours of areas
/// are readable on both.
pub(crate) const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}
text{fill:#222}.title{font-size:15px;font-weight:600}.dim{fill:#666}.grid{stroke:#ddd}.axis{stroke:#888}
@media (prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e6e6e6}.dim{fill:#a0a0a0}\
.grid{stroke:#333}.axis{stroke:#777}}";

/// Text as it may stand in XML; control characters are escaped as memspy escapes them everywhere.
pub(crate) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in crate::terminal::clean(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no place for these two.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// A text cut to `most` letters, with an ellipsis where something is missing.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

/// A path cut to `most` letters at its front: its end says more.
pub(crate) fn shorten_path(path: &str, most: usize) -> String {
    let letters = path.chars().count();
    if letters <= most {
        return path.to_string();
    }
    let kept = path.chars().skip(letters - most.saturating_sub(1));
    format!("\u{2026}{}", kept.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{shorten, shorten_path, xml};

    #[test]
    fn no_markup_and_no_control_byte_gets_through() {
        assert_eq!(
            xml("<a href='x'>&\"\u{1b}\u{ffff}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\u{1b}\u{fffd}"
        );
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis() {
        assert_eq!(shorten("abcdef", 4), "abc\u{2026}");
        assert_eq!(shorten("abcd", 4), "abcd");
        assert_eq!(shorten_path("/usr/lib/x.so", 5), "\u{2026}x.so");
        assert_eq!(shorten_path("x.so", 4), "x.so");
    }
}
