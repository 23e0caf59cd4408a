//! Name patterns of suppression files: `*` stands for any run of characters, `?` for one.

/// A pattern that is held against a whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Char(char),
    /// Any one character.
    One,
    /// Any run of characters, also none.
    Any,
}

impl Pattern {
    /// Valgrind's patterns: `*` and `?`, the whole name must match.
    pub(super) fn whole(text: &str) -> Pattern {
        Pattern(
            text.chars()
                .map(|c| match c {
                    '*' => Token::Any,
                    '?' => Token::One,
                    c => Token::Char(c),
                })
                .collect(),
        )
    }

    /// LeakSanitizer's patterns: `*` is the only wildcard and any part of the name may match;
    /// `^` at the start and `$` at the end tie the pattern to the name's ends.
    pub(super) fn part(text: &str) -> Pattern {
        let (text, at_start) = match text.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (text, at_end) = match text.strip_suffix('$') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let mut tokens = Vec::new();
        if !at_start {
            tokens.push(Token::Any);
        }
        tokens.extend(
            text.chars()
                .map(|c| if c == '*' { Token::Any } else { Token::Char(c) }),
        );
        if !at_end {
            tokens.push(Token::Any);
        }
        Pattern(tokens)
    }

    /// Whether the pattern matches. Takes at most `tokens × characters` steps: only the last `*`
    /// is ever tried again, which is enough because an earlier one that takes more leaves less.
    pub(super) fn matches(&self, name: &str) -> bool {
        let mut rest = name;
        let mut token = 0;
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let next = rest.chars().next();
            match (self.0.get(token), next) {
                (Some(Token::Any), _) => {
                    token += 1;
                    retry = Some((token, rest));
                    continue;
                }
                (Some(Token::One), Some(c)) => {
                    rest = &rest[c.len_utf8()..];
                    token += 1;
                    continue;
                }
                (Some(Token::Char(wanted)), Some(c)) if *wanted == c => {
                    rest = &rest[c.len_utf8()..];
                    token += 1;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after_any, from)) = retry else {
                return false;
            };
            let Some(skipped) = from.chars().next() else {
                return false;
            };
            rest = &from[skipped.len_utf8()..];
            token = after_any;
            retry = Some((after_any, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_pattern_matches_only_whole_names() {
        assert!(Pattern::whole("malloc").matches("malloc"));
        assert!(!Pattern::whole("malloc").matches("my_malloc"));
        assert!(Pattern::whole("*alloc").matches("my_malloc"));
        assert!(Pattern::whole("f??").matches("foo"));
        assert!(!Pattern::whole("f??").matches("fo"));
        assert!(Pattern::whole("_ZN*4node*Ev").matches("_ZN1a4node4node3getEv"));
        assert!(!Pattern::whole("").matches("x"));
    }

    #[test]
    fn a_part_pattern_matches_anywhere_unless_it_is_anchored() {
        assert!(Pattern::part("leak").matches("my_leak_function"));
        assert!(!Pattern::part("^leak").matches("my_leak_function"));
        assert!(Pattern::part("function$").matches("my_leak_function"));
        assert!(!Pattern::part("leak$").matches("my_leak_function"));
        assert!(Pattern::part("^my*function$").matches("my_leak_function"));
        assert!(
            Pattern::part("foo$").matches("foofoo"),
            "the last occurrence counts"
        );
        assert!(
            !Pattern::part("a?c").matches("abc"),
            "'?' is no wildcard there"
        );
    }

    #[test]
    fn a_dollar_inside_a_mangled_rust_name_is_a_plain_character() {
        assert!(Pattern::part("_$LT$impl").matches("core::_$LT$impl$GT$"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::whole(&"*a".repeat(60));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(4000))));
    }
}
