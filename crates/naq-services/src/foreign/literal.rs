//! Reads values as Python shows them (`repr`): `(1, 'a', None)`, `{'to': ["a"]}`.
//!
//! Invariant: what is read is what JSON can say, exactly; anything else (bytes, sets, objects, keys that are no text,
//! infinite numbers) is an error. Depth is bounded.

use serde_json::{Map, Number, Value};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// Why a text is no value that JSON can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what Python shows at character {at} of its arguments is nothing that JSON can say")]
pub(super) struct LiteralError {
    at: usize,
}

type Result<T> = std::result::Result<T, LiteralError>;

/// The value that is shown.
pub(super) fn read(shown: &str) -> Result<Value> {
    let mut reader = Reader { text: shown, at: 0 };
    let value = reader.value(0)?;
    if reader.peek().is_some() { Err(reader.error()) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self) -> LiteralError {
        LiteralError { at: self.text[..self.at].chars().count() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
        self.rest().chars().next()
    }

    fn next(&mut self) -> Result<char> {
        let next = self.rest().chars().next().ok_or_else(|| self.error())?;
        self.at += next.len_utf8();
        Ok(next)
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        self.at += if found { expected.len_utf8() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(self.error());
        }
        match self.peek() {
            Some(quote @ ('\'' | '"')) => {
                self.next()?;
                self.string(quote).map(Value::String)
            }
            Some('(') => {
                self.next()?;
                let (values, commas) = self.list(')', depth)?;
                // `(1)` would be a number in brackets, which Python never shows.
                if values.len() == 1 && commas == 0 { Err(self.error()) } else { Ok(Value::Array(values)) }
            }
            Some('[') => {
                self.next()?;
                self.list(']', depth).map(|(values, _)| Value::Array(values))
            }
            Some('{') => {
                self.next()?;
                self.dict(depth)
            }
            _ => self.word(),
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<(Vec<Value>, usize)> {
        let (mut values, mut commas) = (Vec::new(), 0);
        while !self.eat(end) {
            if values.len() > commas {
                return Err(self.error());
            }
            values.push(self.value(depth + 1)?);
            commas += usize::from(self.eat(','));
        }
        Ok((values, commas))
    }

    fn dict(&mut self, depth: usize) -> Result<Value> {
        let mut entries = Map::new();
        let mut more = true;
        while !self.eat('}') {
            let Some(quote @ ('\'' | '"')) = self.peek().filter(|_| more) else { return Err(self.error()) };
            self.next()?;
            let key = self.string(quote)?;
            if !self.eat(':') {
                return Err(self.error());
            }
            let value = self.value(depth + 1)?;
            entries.insert(key, value);
            more = self.eat(',');
        }
        Ok(Value::Object(entries))
    }

    fn string(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                found if found == quote => return Ok(text),
                '\\' => text.push(self.escaped()?),
                other => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let digits = match self.next()? {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            same @ ('\\' | '\'' | '"') => return Ok(same),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.error()),
        };
        let hex = self.rest().get(..digits).ok_or_else(|| self.error())?;
        let code = u32::from_str_radix(hex, 16).map_err(|_| self.error())?;
        let character = char::from_u32(code).ok_or_else(|| self.error())?;
        self.at += digits;
        Ok(character)
    }

    fn word(&mut self) -> Result<Value> {
        let length = self.rest().find([',', ')', ']', '}', ':', ' ']).unwrap_or(self.rest().len());
        let word = &self.rest()[..length];
        let value = match word {
            "None" => Some(Value::Null),
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            number => number_of(number),
        };
        let value = value.ok_or_else(|| self.error())?;
        self.at += length;
        Ok(value)
    }
}

fn number_of(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    // Python shows `inf` and `nan`, which Rust would read.
    let float = || text.parse().ok().filter(|_| text.contains(['.', 'e'])).and_then(Number::from_f64);
    whole.ok().or_else(float).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_repr_shows() {
        // Each left side was printed by CPython's repr().
        let table = [
            ("()", json!([])),
            ("(1,)", json!([1])),
            ("('a', \"it's\", None, True, False)", json!(["a", "it's", null, true, false])),
            ("(-1, 2.5, 1e+20, 18446744073709551615)", json!([-1, 2.5, 1e20, u64::MAX])),
            (r#"('a\\b\'"\n\x00ü\u200b\U000e0001',)"#, json!(["a\\b'\"\n\u{0}ü\u{200b}\u{e0001}"])),
            ("{}", json!({})),
            ("{'to': ['a', ('b', {'n': 1})], 'x y': {}}", json!({"to": ["a", ["b", {"n": 1}]], "x y": {}})),
        ];
        for (shown, value) in table {
            assert_eq!(read(shown), Ok(value), "{shown}");
        }
    }

    #[test]
    fn what_json_cannot_say() {
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        for shown in [
            "",
            "(",
            "(1",
            "(1)",
            "(1 2)",
            "[,]",
            "{'a'}",
            "{'a': 1 'b': 2}",
            "{1: 2}",
            "{1, 2}",
            "b'x'",
            "(b'x',)",
            "inf",
            "nan",
            "-inf",
            "<object at 0x7f>",
            "(datetime.date(2026, 1, 1),)",
            "'open",
            "'\\",
            "'\\ud800'",
            "1 2",
            "99999999999999999999",
            "0x10",
            deep.as_str(),
        ] {
            assert!(matches!(read(shown), Err(LiteralError { .. })), "{shown}");
        }
    }
}
