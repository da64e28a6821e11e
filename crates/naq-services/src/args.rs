//! The arguments of a job function: read by name or position ([`Args`]), written by name ([`NamedArgs`]).
//!
//! Invariant: every argument that is missing, unknown or of the wrong type is named in the error. A missing argument is
//! whatever its type says of a missing value: `None` for an `Option`, an error for all others.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};

use naq_models::{Job, JobError, Timestamp, Verdict, error_type};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor, value::Error as MissingError},
    forward_to_deserialize_any,
    ser::SerializeMap,
};
use serde_json::value::RawValue;

/// Why a handler was not called: its arguments do not fit, or the worker cannot give what it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection(Box<Verdict>);

impl Rejection {
    /// Arguments that do not fit: the job fails for good.
    #[must_use]
    pub fn decode(message: impl Into<String>) -> Self {
        Self(Box::new(Verdict::Fail(JobError::new(error_type::DECODE, message, Timestamp::EPOCH).permanent())))
    }

    /// A shared value that this worker lacks; another worker may have it.
    #[must_use]
    pub fn missing_state(parameter: &str) -> Self {
        let message = format!("this worker was not given the state that the handler needs: {parameter}");
        Self(Box::new(Verdict::Error(JobError::new("missing_state", message, Timestamp::EPOCH))))
    }

    /// The verdict on the run.
    #[must_use]
    pub fn into_verdict(self) -> Verdict {
        *self.0
    }
}

/// The arguments of one job, not yet read as their types.
pub struct Args<'a> {
    names: &'static [&'static str],
    values: Vec<Option<&'a RawValue>>,
}

impl<'a> Args<'a> {
    /// Matches a job's arguments with the names of a function's parameters.
    ///
    /// # Errors
    /// If an argument has no parameter.
    pub fn of(job: &'a Job, names: &'static [&'static str]) -> Result<Self, Rejection> {
        let found: Found<'a> = serde_json::from_str(job.args.get())
            .map_err(|e| Rejection::decode(format!("the arguments of {}: {e}", job.kind)))?;
        let values = match found {
            Found::Positions(list) if list.len() > names.len() => {
                let (takes, got) = (names.len(), list.len());
                return Err(Rejection::decode(format!(
                    "{} takes {takes} arguments ({}), but {got} were given",
                    job.kind,
                    listed(names)
                )));
            }
            Found::Positions(list) => {
                let mut values: Vec<_> = list.into_iter().map(Some).collect();
                values.resize(names.len(), None);
                values
            }
            Found::Names(entries) => by_name(job, names, entries)?,
        };
        Ok(Self { names, values })
    }

    /// The argument at a parameter's position, as its type.
    ///
    /// # Errors
    /// If it is missing and its type has no value for that, or does not fit its type.
    pub fn take<T: DeserializeOwned>(&mut self, position: usize) -> Result<T, Rejection> {
        let name = self.names[position];
        match self.values[position].take() {
            Some(json) => serde_json::from_str(json.get())
                .map_err(|e| Rejection::decode(format!("argument `{name}` does not fit: {e}"))),
            None => T::deserialize(Missing).map_err(|_: MissingError| {
                Rejection::decode(format!("argument `{name}` is missing; the arguments are {}", listed(self.names)))
            }),
        }
    }
}

fn by_name<'a>(
    job: &Job,
    names: &[&'static str],
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
) -> Result<Vec<Option<&'a RawValue>>, Rejection> {
    let mut values = vec![None; names.len()];
    let mut unknown = Vec::new();
    for (name, value) in entries {
        match names.iter().position(|known| *known == name) {
            Some(position) => values[position] = Some(value),
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(values);
    }
    let unknown = listed(&unknown);
    Err(Rejection::decode(match names {
        [] => format!("{} takes no arguments, but {unknown} was given", job.kind),
        _ => format!("{} has no argument {unknown}; its arguments are {}", job.kind, listed(names)),
    }))
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

enum Found<'a> {
    Names(Vec<(Cow<'a, str>, &'a RawValue)>),
    Positions(Vec<&'a RawValue>),
}

impl<'de> Deserialize<'de> for Found<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FoundVisitor;
        impl<'de> Visitor<'de> for FoundVisitor {
            type Value = Found<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object (arguments by name) or an array (by position)")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    entries.push((key, value));
                }
                Ok(Found::Names(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Found::Positions(values))
            }
        }
        deserializer.deserialize_any(FoundVisitor)
    }
}

/// Reads as `None` for an option and is an error for all other types, as serde's derive treats a missing field.
struct Missing;

impl<'de> Deserializer<'de> for Missing {
    type Error = MissingError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, MissingError> {
        Err(serde::de::Error::custom("missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MissingError> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Arguments by name: a list of `(name, value, rest)` that ends with `()`, serialized as one object.
#[derive(Debug)]
pub struct NamedArgs<L>(pub L);

/// See [`NamedArgs`].
pub trait ArgList {
    /// How many there are.
    const LEN: usize;

    /// Writes them in order.
    ///
    /// # Errors
    /// What serializing a value gives.
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

impl ArgList for () {
    const LEN: usize = 0;

    fn write<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }
}

impl<T: Serialize, L: ArgList> ArgList for (&'static str, T, L) {
    const LEN: usize = 1 + L::LEN;

    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry(self.0, &self.1)?;
        self.2.write(map)
    }
}

impl<L: ArgList> Serialize for NamedArgs<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(L::LEN))?;
        self.0.write(&mut map)?;
        map.end()
    }
}

/// What a job's builder takes for a parameter of type `T`: a `T`, or something that obviously is one (`&str` for a
/// `String`, a value for an `Option` of it). Unlike `Into`, it leaves the type of a literal number to be inferred.
#[diagnostic::on_unimplemented(message = "the job's argument is a `{T}`, not a `{Self}`", label = "expected a `{T}`")]
pub trait IntoArg<T> {
    /// The argument.
    fn into_arg(self) -> T;
}

impl<T> IntoArg<T> for T {
    fn into_arg(self) -> T {
        self
    }
}

impl<T> IntoArg<Option<T>> for T {
    fn into_arg(self) -> Option<T> {
        Some(self)
    }
}

macro_rules! into_arg {
    ($({$($generic:tt)*} $from:ty => $to:ty: $convert:expr;)*) => {$(
        impl<$($generic)*> IntoArg<$to> for $from {
            fn into_arg(self) -> $to {
                $convert(self)
            }
        }
    )*};
}

into_arg! {
    {} &str => String: str::to_owned;
    {} &String => String: String::clone;
    {} &str => Option<String>: |text: &str| Some(text.to_owned());
    {} &str => PathBuf: PathBuf::from;
    {} String => PathBuf: PathBuf::from;
    {} &Path => PathBuf: Path::to_owned;
    {} &PathBuf => PathBuf: PathBuf::clone;
    {T: Clone} &[T] => Vec<T>: <[T]>::to_vec;
    {T: Clone} &Vec<T> => Vec<T>: Vec::clone;
    {T, const N: usize} [T; N] => Vec<T>: Vec::from;
}

#[cfg(test)]
mod tests {
    use naq_models::{JobId, RawJson};

    use super::*;

    fn read(args: &str) -> Result<(String, Option<u32>), String> {
        let job = Job::new(JobId::new("j").unwrap(), "greet", RawJson::parse(args).unwrap(), Timestamp::EPOCH);
        let read = || {
            let mut args = Args::of(&job, &["name", "times"])?;
            Ok::<_, Rejection>((args.take(0)?, args.take(1)?))
        };
        read().map_err(|rejection| match rejection.into_verdict() {
            Verdict::Fail(error) if error.error_type == error_type::DECODE => error.message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn by_name_and_by_position() {
        for args in [r#"{"times":3,"name":"Ann"}"#, r#"["Ann",3]"#] {
            assert_eq!(read(args), Ok(("Ann".into(), Some(3))), "{args}");
        }
        for args in [r#"{"name":"A\u006en"}"#, r#"{"name":"Ann","times":null}"#, r#"["Ann"]"#] {
            assert_eq!(read(args), Ok(("Ann".into(), None)), "{args}");
        }
    }

    #[test]
    fn errors_name_the_argument() {
        for (args, named) in [
            (r#"{"times":3}"#, "`name` is missing"),
            ("[]", "`name` is missing"),
            (r#"{"name":"Ann","tiems":3}"#, "`tiems`"),
            (r#"["Ann",3,4]"#, "takes 2 arguments (`name`, `times`), but 3 were given"),
            (r#"{"name":5}"#, "`name` does not fit"),
            (r#"["Ann","x"]"#, "`times` does not fit"),
        ] {
            let message = read(args).unwrap_err();
            assert!(message.contains(named), "{args}: {message}");
        }
    }

    #[test]
    fn named_arguments_are_one_object() {
        let json = RawJson::from_value(&NamedArgs(("a", 1, ("b", "x", ())))).unwrap();
        assert_eq!(json.get(), r#"{"a":1,"b":"x"}"#);
        assert_eq!(RawJson::from_value(&NamedArgs(())).unwrap().get(), "{}");
    }

    #[test]
    fn literals_and_options_are_taken_as_arguments() {
        fn take<T>(value: impl IntoArg<T>) -> T {
            value.into_arg()
        }
        assert_eq!(take::<u64>(5), 5);
        assert_eq!(take::<Option<u64>>(5), Some(5));
        assert_eq!(take::<Option<u64>>(None), None);
        assert_eq!(take::<String>("x"), "x");
        assert_eq!(take::<Option<String>>("x"), Some("x".into()));
        assert_eq!(take::<Vec<u8>>([1, 2]), [1, 2]);
    }
}
