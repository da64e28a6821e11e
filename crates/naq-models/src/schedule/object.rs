//! A JSON object whose known fields are taken one by one and whose unknown ones are kept as text.
//!
//! Invariant: what was not taken is returned by [`Object::rest`], byte for byte. Serde's `flatten` cannot keep raw JSON
//! text.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};

use crate::RawJson;

pub(super) struct Object(BTreeMap<String, RawJson>);

impl Object {
    pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }

    /// The field, or its default if it is absent or null.
    pub(super) fn take<T: DeserializeOwned + Default, E: Error>(&mut self, name: &'static str) -> Result<T, E> {
        Ok(self.take_option(name)?.unwrap_or_default())
    }

    /// The field; its absence is an error.
    pub(super) fn require<T: DeserializeOwned, E: Error>(&mut self, name: &'static str) -> Result<T, E> {
        self.take_option(name)?.ok_or_else(|| E::missing_field(name))
    }

    /// The field, if it is there and not null.
    pub(super) fn take_option<T: DeserializeOwned, E: Error>(&mut self, name: &'static str) -> Result<Option<T>, E> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => value.to().map_err(|error| E::custom(format_args!("{name}: {error}"))),
        }
    }

    pub(super) fn rest(self) -> BTreeMap<String, RawJson> {
        self.0
    }
}
