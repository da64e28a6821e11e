//! Reads the plain data of a Python pickle: numbers, texts, bytes, lists, dictionaries.
//!
//! Invariant: nothing is imported, called or built, whatever the bytes ask for. What is no plain data becomes
//! [`Value::Opaque`], except a member of an enum, which is its value: NAQ writes the status of a schedule so. Values
//! that hold others are not read inside of each other, and not shared: time and memory grow with the length of the bytes
//! only, and nothing is deep.
//!
//! Not here: pickled functions and arguments. NAQ pickles the *record* of a delayed or recurring job, whichever serializer
//! is set for the job inside; without this, no record could be read.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Bytes(Bytes),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(BTreeMap<Arc<str>, Value>),
    /// A class or function. Not which: a name is made of two texts, and an instruction may name those that were remembered.
    Named,
    /// Something that is no plain data.
    Opaque,
}

impl Value {
    fn holds_others(&self) -> bool {
        matches!(self, Self::Tuple(_) | Self::List(_) | Self::Dict(_))
    }

    fn flat(self) -> Self {
        if self.holds_others() { Self::Opaque } else { self }
    }
}

/// Why bytes are no pickle of plain data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    /// It ends too soon, or asks for what is not there.
    #[error("the pickle is damaged")]
    Damaged,
    /// An instruction that plain data does not need.
    #[error("the pickle holds more than plain data (instruction {0:#04x})")]
    Unknown(u8),
}

use PickleError::Damaged;

type Result<T> = std::result::Result<T, PickleError>;

/// Whether these bytes begin as Python has begun pickles since version 2 of the format.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// The value of a pickle, protocols 2 to 5.
pub(super) fn read(bytes: &[u8]) -> Result<Value> {
    let mut machine = Machine { rest: bytes, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), memoized: 0 };
    loop {
        let instruction = machine.byte()?;
        if instruction == b'.' {
            return machine.pop();
        }
        machine.step(instruction)?;
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value>,
    memoized: u32,
}

impl Machine<'_> {
    fn step(&mut self, instruction: u8) -> Result<()> {
        let value = match instruction {
            // Protocol and frames only say how to read on.
            0x80 => return self.take(1).map(drop),
            0x95 => return self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b's' | b'u' | b'a' | b'e' => return self.fill(instruction),
            0x94 | b'q' | b'r' => return self.memoize(instruction),
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.number(1)?),
            b'M' => Value::Int(self.number(2)?),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            0x8a => self.long()?,
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            0x8e => self.bytes(8)?,
            b'}' => Value::Dict(BTreeMap::new()),
            b']' => Value::List(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            b't' => Value::Tuple(self.above_mark()?),
            0x85..=0x87 => Value::Tuple(self.parts(usize::from(instruction - 0x84))?),
            0x93 => self.named()?,
            b'c' => {
                let (_module, _name) = (self.line()?, self.line()?);
                Value::Named
            }
            b'R' => self.called()?,
            other => return Err(PickleError::Unknown(other)),
        };
        self.stack.push(value);
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, length: usize) -> Result<i64> {
        let mut number = [0; 8];
        number[..length].copy_from_slice(self.take(length)?);
        Ok(i64::from_le_bytes(number))
    }

    /// What follows its own length.
    fn counted(&mut self, length: usize) -> Result<&[u8]> {
        let length = usize::try_from(self.number(length)?).map_err(|_| Damaged)?;
        self.take(length)
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        let text = str::from_utf8(self.counted(length)?).map_err(|_| Damaged)?;
        Ok(Value::Text(text.into()))
    }

    fn bytes(&mut self, length: usize) -> Result<Value> {
        Ok(Value::Bytes(Bytes::copy_from_slice(self.counted(length)?)))
    }

    /// A whole number of any length; one that does not fit 64 bits is nothing that a record holds.
    fn long(&mut self) -> Result<Value> {
        let digits = self.counted(1)?;
        if digits.len() > 8 {
            return Ok(Value::Opaque);
        }
        let negative = digits.last().is_some_and(|last| last & 0x80 != 0);
        let mut number = if negative { [0xff; 8] } else { [0; 8] };
        number[..digits.len()].copy_from_slice(digits);
        Ok(Value::Int(i64::from_le_bytes(number)))
    }

    fn line(&mut self) -> Result<String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(Damaged)?;
        let line = str::from_utf8(self.take(end)?).map_err(|_| Damaged)?.to_owned();
        self.byte()?;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or(Damaged)
    }

    fn top(&mut self, count: usize) -> Result<Vec<Value>> {
        let from = self.stack.len().checked_sub(count).ok_or(Damaged)?;
        Ok(self.stack.split_off(from))
    }

    /// What goes into a value that holds others.
    fn parts(&mut self, count: usize) -> Result<Vec<Value>> {
        Ok(self.top(count)?.into_iter().map(Value::flat).collect())
    }

    fn above_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or(Damaged)?;
        self.parts(self.stack.len().checked_sub(mark).ok_or(Damaged)?)
    }

    /// Puts values into the list or dictionary below them.
    fn fill(&mut self, instruction: u8) -> Result<()> {
        let values = match instruction {
            b's' => self.parts(2)?,
            b'a' => self.parts(1)?,
            _ => self.above_mark()?,
        };
        match self.stack.last_mut().ok_or(Damaged)? {
            Value::Dict(dict) => {
                let mut values = values.into_iter();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    // No record has a key that is no text.
                    if let Value::Text(key) = key {
                        dict.insert(key, value);
                    }
                }
            }
            Value::List(list) => list.extend(values),
            _ => return Err(Damaged),
        }
        Ok(())
    }

    /// Only what cannot hold other values is remembered as it is.
    fn memoize(&mut self, instruction: u8) -> Result<()> {
        let place = match instruction {
            b'q' => u32::from(self.byte()?),
            b'r' => u32::from_le_bytes(self.array()?),
            _ => self.memoized,
        };
        self.memoized = self.memoized.saturating_add(1);
        let value = self.stack.last().ok_or(Damaged)?;
        let value = if value.holds_others() { Value::Opaque } else { value.clone() };
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, length: usize) -> Result<Value> {
        let place = u32::try_from(self.number(length)?).map_err(|_| Damaged)?;
        self.memo.get(&place).cloned().ok_or(Damaged)
    }

    fn named(&mut self) -> Result<Value> {
        let parts = self.top(2)?;
        let [Value::Text(_module), Value::Text(_name)] = parts.as_slice() else { return Err(Damaged) };
        Ok(Value::Named)
    }

    /// `Status("active")`, or `getattr(Status, "ACTIVE")` as Python 3.11 had it for a while: the text. Nothing is called.
    fn called(&mut self) -> Result<Value> {
        let parts = self.top(2)?;
        Ok(match parts.as_slice() {
            [Value::Named, Value::Tuple(args)] => match args.as_slice() {
                [Value::Text(value)] | [Value::Named, Value::Text(value)] => Value::Text(Arc::clone(value)),
                _ => Value::Opaque,
            },
            _ => Value::Opaque,
        })
    }
}

#[cfg(test)]
mod tests;
