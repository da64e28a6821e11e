//! A configuration as a tree of named values, before it has types: the few operations that layers need.
//!
//! Invariant: a [`Path`] never holds the index of a list; lists are leaves.

use figment::value::{Dict, Tag, Value};

/// The names from the root to a value.
pub(crate) type Path = Vec<String>;

/// A dotted name as a path.
pub(crate) fn path(dotted: &str) -> Path {
    dotted.split('.').map(str::to_owned).collect()
}

/// The value at a path.
pub(crate) fn get<'a>(dict: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(dict, |dict, name| dict.get(name)?.as_dict())?;
    parent.get(last)
}

/// Removes the value at a path.
pub(crate) fn remove(dict: &mut Dict, path: &[String]) -> Option<Value> {
    match path {
        [] => None,
        [last] => dict.remove(last),
        [first, rest @ ..] => match dict.get_mut(first)? {
            Value::Dict(_, inner) => remove(inner, rest),
            _ => None,
        },
    }
}

/// Puts a value at a path, making the tables on the way; a plain value on the way is replaced.
pub(crate) fn insert(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(dict.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let slot = dict.entry(first.clone()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            if slot.as_dict().is_none() {
                *slot = Value::Dict(Tag::Default, Dict::new());
            }
            if let Value::Dict(_, inner) = slot {
                insert(inner, rest, value);
            }
        }
    }
}

/// The part of a path that leads to a leaf: everything before the first name that is no table's entry (an index).
pub(crate) fn leaf(dict: &Dict, path: &[String]) -> Path {
    let mut known = Path::new();
    let mut here = Some(dict);
    for name in path {
        let Some(value) = here.and_then(|dict| dict.get(name)) else { break };
        known.push(name.clone());
        here = value.as_dict();
    }
    known
}

/// Calls `visit` for every leaf: plain values, lists and empty tables.
pub(crate) fn leaves(dict: &Dict, prefix: &mut Path, visit: &mut impl FnMut(&Path, &Value)) {
    for (name, value) in dict {
        prefix.push(name.clone());
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => leaves(inner, prefix, visit),
            leaf => visit(prefix, leaf),
        }
        prefix.pop();
    }
}
