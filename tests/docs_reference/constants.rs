//! Values of constants, read from the source: most are nobody's business but their module's, and a
//! page that names them must not be wrong all the same.

use std::{fs, path::Path};

/// A constant's value: a whole number, of nanoseconds where it is a time.
pub struct Value {
    pub number: u128,
    pub is_time: bool,
}

/// The value of `name` in the file `file` under `src/`.
///
/// # Panics
/// It is not there, or is more than arithmetic on numbers and on constants of the same file.
pub fn value(file: &str, name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
    let place = format!("const {name}: ");
    let (_, rest) = text.split_once(&place).unwrap_or_else(|| panic!("{file} has no constant {name}"));
    let (_, expression) = rest.split_once(" = ").unwrap();
    let (expression, _) = expression.split_once(';').unwrap();
    let mut reader = Reader { file, rest: expression, is_time: false };
    let number = reader.shift();
    assert!(reader.rest.trim().is_empty(), "{file}: {name} goes on with {:?}", reader.rest);
    Value { number, is_time: reader.is_time }
}

struct Reader<'a> {
    file: &'a str,
    rest: &'a str,
    is_time: bool,
}

impl Reader<'_> {
    fn takes(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let taken = self.rest.strip_prefix(token);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    fn shift(&mut self) -> u128 {
        let mut left = self.sum();
        while self.takes("<<") {
            left <<= self.sum();
        }
        left
    }

    fn sum(&mut self) -> u128 {
        let mut left = self.product();
        loop {
            if self.takes("+") {
                left += self.product();
            } else if self.takes("-") {
                left -= self.product();
            } else {
                return left;
            }
        }
    }

    fn product(&mut self) -> u128 {
        let mut left = self.single();
        loop {
            if self.takes("*") {
                left *= self.single();
            } else if self.takes("/") {
                left /= self.single();
            } else {
                return left;
            }
        }
    }

    fn single(&mut self) -> u128 {
        for (name, nanos) in [
            ("Duration::from_secs(", 1_000_000_000),
            ("Duration::from_millis(", 1_000_000),
            ("Duration::from_micros(", 1000),
        ] {
            if self.takes(name) {
                let inner = self.shift();
                assert!(self.takes(")"), "{}", self.rest);
                self.is_time = true;
                return inner * nanos;
            }
        }
        let number = if self.takes("(") {
            let inner = self.shift();
            assert!(self.takes(")"), "{}", self.rest);
            inner
        } else {
            self.rest = self.rest.trim_start();
            let len = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(len);
            self.rest = rest;
            match word.replace('_', "").parse() {
                Ok(number) => number,
                Err(_) => {
                    let named = value(self.file, word);
                    self.is_time |= named.is_time;
                    named.number
                }
            }
        };
        if self.takes("as ") {
            let len = self.rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(self.rest.len());
            self.rest = &self.rest[len..];
        }
        number
    }
}

#[test]
fn constants_are_read() {
    for (file, name, number, is_time) in [
        ("wire/limits.rs", "FRAME_BYTES_MAX", 16_384, false),
        ("wire/limits.rs", "CHUNK_BYTES", 15_313, false),
        ("config/mod.rs", "DEDUP_ENTRIES_MAX", 917_504, false),
        ("crypto/receiver.rs", "KEPT_AFTER_S", 14 * 86_400, false),
        ("proto/link.rs", "HELLO_TIMEOUT", 5_000_000_000, true),
    ] {
        let read = value(file, name);
        assert_eq!((read.number, read.is_time), (number, is_time), "{name}");
    }
}
