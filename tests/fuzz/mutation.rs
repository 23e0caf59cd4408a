//! Mutations of an input, the same for the same number: what libFuzzer does, without its feedback.

/// Words and numbers that mean something to one reader or another.
const WORDS: [&[u8]; 30] = [
    b"0",
    b"1",
    b"-1",
    b"4294967295",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e300",
    b"\"0x0\"",
    b"\"0xffffffffffffffff\"",
    b"\"0x7fffffffffff\"",
    b"null",
    b"[]",
    b"{}",
    b"\"\\udcff\\u0000\"",
    b"\"op\":\"free\"",
    b"\"op\":\"block\"",
    b"\"op\":\"start\"",
    b"\"op\":\"end\"",
    b"\"dt\":18446744073709551615",
    b"\"stack\":1",
    b"\n",
    b"\0\0\0\0",
    b"\xff\xfe",
    b"...",
    b"*",
    b"leak:",
    b"_ZN",
    b"S_IiE",
    b"{\n",
];

/// The largest input that is made.
const MOST_BYTES: usize = 64 << 10;

/// Makes inputs from inputs.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    /// Begins a series.
    pub(crate) fn new(seed: u64) -> Self {
        Mutator {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A number below `end`, which is not 0: xorshift64* (Marsaglia; Vigna 2016).
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        (number % end.max(1) as u64) as usize
    }

    /// A range of an input, short more often than long.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let most = (len - from).min(1 << self.below(12));
        from..from + self.below(most + 1)
    }

    /// One to eight changes to `seed`, some of them from `others`.
    pub(crate) fn mutate(&mut self, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seed.to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut input, others);
            input.truncate(MOST_BYTES);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                let value = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\n'][self.below(8)];
                if let Some(byte) = input.get_mut(at) {
                    *byte = value;
                }
            }
            2 => {
                let gone = self.range(input.len());
                input.drain(gone);
            }
            3 => {
                let twice = self.range(input.len());
                let copy = input[twice].to_vec();
                input.splice(at..at, copy);
            }
            4 => {
                let other = &others[self.below(others.len())];
                let part = self.range(other.len());
                input.splice(at..at, other[part].iter().copied());
            }
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                let over = at..(at + self.below(2) * word.len()).min(input.len());
                input.splice(over, word.iter().copied());
            }
            6 => self.renumber(input, at),
            7 => {
                let value = (1u64 << self.below(64)).wrapping_sub(self.below(2) as u64);
                for (byte, new) in input[at..].iter_mut().zip(value.to_le_bytes()) {
                    *byte = new;
                }
            }
            _ => input.truncate(at),
        }
    }

    /// Puts another number in the place of the next one in the text.
    fn renumber(&mut self, input: &mut Vec<u8>, at: usize) {
        let digit = |byte: &u8| byte.is_ascii_digit();
        let Some(from) = input[at..].iter().position(digit).map(|more| at + more) else {
            return;
        };
        let len = input[from..].iter().take_while(|byte| digit(byte)).count();
        let number = match self.below(3) {
            0 => self.below(10) as u64,
            1 => 1u64 << self.below(64),
            _ => u64::MAX - self.below(3) as u64,
        };
        input.splice(from..from + len, number.to_string().into_bytes());
    }
}
