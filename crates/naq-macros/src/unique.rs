//! The option `unique` of `#[naq::job]`: read, checked against the function's arguments, written as calls of the builder.
//!
//! Invariant: as with the other options, what the running program would refuse is refused here.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Expr, ExprArray, Ident, LitStr, Result, Token, parenthesized, parse::ParseStream, spanned::Spanned};

use crate::options::{duration, text};

const KNOWN: [&str; 5] = ["args", "key", "while", "ttl", "on_conflict"];
const MAX_KEY: usize = 1024;
const NAMES: &str = "the names of arguments, for example [\"to\", \"subject\"]";

/// What makes two jobs the same.
enum By {
    Args,
    Fields(Vec<LitStr>),
    Key(String),
}

/// What was said of being unique.
pub(crate) struct Unique {
    by: By,
    /// The name of the variant of `UniqueWhile`.
    holds: Option<Ident>,
    ttl: Option<Duration>,
    /// The name of the variant of `OnConflict`.
    on_conflict: Option<Ident>,
}

impl Unique {
    /// Reads what follows the word `unique`: nothing, `= "to"`, `= ["to", …]`, or `(args = …, while = …, …)`.
    pub(crate) fn read(name: &Ident, input: ParseStream<'_>) -> Result<Self> {
        let mut unique = Self { by: By::Args, holds: None, ttl: None, on_conflict: None };
        if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            unique.by = By::Fields(fields(&input.parse()?)?);
        } else if input.peek(syn::token::Paren) {
            let inner;
            parenthesized!(inner in input);
            unique.read_options(name, &inner)?;
        }
        Ok(unique)
    }

    fn read_options(&mut self, name: &Ident, input: ParseStream<'_>) -> Result<()> {
        let mut seen: Vec<(String, Ident)> = Vec::new();
        while !input.is_empty() {
            let option = input.call(<Ident as syn::ext::IdentExt>::parse_any)?;
            let text = option.to_string();
            if !KNOWN.contains(&text.as_str()) {
                let message = format!("unknown option `{text}` of `unique`\nknown options: {}", KNOWN.join(", "));
                return Err(Error::new(option.span(), message));
            }
            if seen.iter().any(|(other, _)| *other == text) {
                return Err(Error::new(option.span(), format!("`{text}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            let value: Expr = input.parse()?;
            match text.as_str() {
                "args" => self.by = By::Fields(fields(&value)?),
                "key" => self.by = By::Key(key(&value)?),
                "while" => self.holds = Some(holds(&value)?),
                "ttl" => self.ttl = Some(ttl(&value)?),
                _ => self.on_conflict = Some(answer(&value)?),
            }
            seen.push((text, option));
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let given = |name: &str| seen.iter().find(|(text, _)| text == name).map(|(_, option)| option);
        if let (Some(_), Some(key)) = (given("args"), given("key")) {
            return Err(Error::new(key.span(), "a job is unique by its arguments or by a key, not by both"));
        }
        let for_a_time = self.holds.as_ref().is_none_or(|holds| holds == "Ttl");
        match (given("while"), given("ttl")) {
            (Some(_), Some(ttl)) if !for_a_time => {
                Err(Error::new(ttl.span(), "`ttl` belongs to `while = \"ttl\"`; leave one of the two out"))
            }
            (Some(holds), None) if for_a_time => {
                Err(Error::new(holds.span(), "`while = \"ttl\"` needs the time: `ttl = \"1h\"`"))
            }
            _ if seen.is_empty() => Err(Error::new(
                name.span(),
                "write `unique` without parentheses for a job that is unique by all arguments",
            )),
            _ => Ok(()),
        }
    }

    /// Whether each chosen name is one of the function's arguments, and there are any to choose from.
    pub(crate) fn check(&self, arguments: &[&str]) -> Result<()> {
        let By::Fields(fields) = &self.by else { return Ok(()) };
        for field in fields {
            if !arguments.contains(&field.value().as_str()) {
                let known = arguments.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                let message = format!("{:?} is not an argument of the job; its arguments are {known}", field.value());
                return Err(Error::new(field.span(), message));
            }
        }
        Ok(())
    }

    pub(crate) fn calls(&self, private: &TokenStream) -> TokenStream {
        let by = match &self.by {
            By::Args => quote!(#private::UniqueBy::args()),
            By::Fields(fields) => quote!(#private::UniqueBy::fields([#(#fields),*] as [&str; _])),
            By::Key(key) => quote!(#private::UniqueBy::key(#key)),
        };
        let holds = self.holds.iter().map(|variant| quote!(.unique_while(#private::UniqueWhile::#variant)));
        let ttl = self.ttl.iter().map(|ttl| {
            let (seconds, nanos) = (ttl.as_secs(), ttl.subsec_nanos());
            quote!(.unique_ttl(::core::time::Duration::new(#seconds, #nanos)))
        });
        let answer = self.on_conflict.iter().map(|variant| quote!(.on_conflict(#private::OnConflict::#variant)));
        quote!(.unique(#by) #(#holds)* #(#ttl)* #(#answer)*)
    }
}

fn fields(value: &Expr) -> Result<Vec<LitStr>> {
    match value {
        Expr::Array(ExprArray { elems, .. }) if elems.is_empty() => {
            Err(Error::new(value.span(), "the list is empty; write `unique` alone for all arguments"))
        }
        Expr::Array(ExprArray { elems, .. }) => elems.iter().map(|name| text(name, NAMES)).collect(),
        one => Ok(vec![text(one, NAMES)?]),
    }
}

fn key(value: &Expr) -> Result<String> {
    let literal = text(value, "a text, for example \"nightly-report\"")?;
    let key = literal.value();
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Error::new(literal.span(), format!("a unique key has 1 to {MAX_KEY} bytes")));
    }
    Ok(key)
}

fn ttl(value: &Expr) -> Result<Duration> {
    let ttl = duration(value)?;
    if ttl.is_zero() {
        return Err(Error::new(value.span(), "a key that holds for no time keeps nobody out"));
    }
    Ok(ttl)
}

fn holds(value: &Expr) -> Result<Ident> {
    word(value, &[("pending", "Pending"), ("active", "Active"), ("ttl", "Ttl")])
}

fn answer(value: &Expr) -> Result<Ident> {
    word(value, &[("existing", "Existing"), ("replace", "Replace"), ("error", "Error")])
}

/// The variant that one of a few words stands for.
fn word(value: &Expr, words: &[(&str, &str)]) -> Result<Ident> {
    let listed = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let literal = text(value, &format!("one of {listed}"))?;
    match words.iter().find(|(word, _)| *word == literal.value()) {
        Some((_, variant)) => Ok(Ident::new(variant, literal.span())),
        None => Err(Error::new(literal.span(), format!("{:?} is none of {listed}", literal.value()))),
    }
}
