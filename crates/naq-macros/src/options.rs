//! The options of `#[naq::job(…)]`, read and checked.
//!
//! Invariant: a value that the running program would refuse is refused here (queue names, priorities, durations). The
//! rules repeat those of naq-models in a few lines, so that the macro does not compile that crate for the host.

use std::time::Duration;

use syn::{
    Error, Expr, ExprArray, ExprLit, Ident, Lit, LitStr, Path, Result, Token,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned,
};

use crate::unique::Unique;

const KNOWN: [&str; 15] = [
    "kind",
    "queue",
    "priority",
    "max_retries",
    "retry_delay",
    "retry_strategy",
    "retry_max_delay",
    "retry_jitter",
    "retry_on",
    "ignore_on",
    "timeout",
    "result_ttl",
    "unique",
    "blocking",
    "crate",
];
const MAX_KIND: usize = 256;
const MAX_QUEUE: usize = 64;
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What stands between the parentheses.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) kind: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<u8>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_delay: Option<Vec<Duration>>,
    /// The name of the variant of `RetryStrategy`.
    pub(crate) retry_strategy: Option<Ident>,
    pub(crate) retry_max_delay: Option<Duration>,
    pub(crate) retry_jitter: Option<f64>,
    pub(crate) retry_on: Option<Vec<String>>,
    pub(crate) ignore_on: Option<Vec<String>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_ttl: Option<Duration>,
    pub(crate) unique: Option<Unique>,
    pub(crate) blocking: Option<Ident>,
    pub(crate) krate: Option<Path>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        let mut seen: Vec<String> = Vec::new();
        while !input.is_empty() {
            let name = input.call(<Ident as syn::ext::IdentExt>::parse_any)?;
            let text = name.to_string();
            if seen.contains(&text) {
                return Err(Error::new(name.span(), format!("`{text}` is given twice")));
            }
            options.read(&name, input)?;
            seen.push(text);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn read(&mut self, name: &Ident, input: ParseStream<'_>) -> Result<()> {
        let text = name.to_string();
        if !KNOWN.contains(&text.as_str()) {
            return Err(Error::new(name.span(), unknown(&text)));
        }
        if text == "blocking" {
            if input.peek(Token![=]) {
                return Err(Error::new(name.span(), "`blocking` takes no value"));
            }
            self.blocking = Some(name.clone());
            return Ok(());
        }
        if text == "unique" {
            self.unique = Some(Unique::read(name, input)?);
            return Ok(());
        }
        if !input.peek(Token![=]) {
            return Err(Error::new(name.span(), format!("`{text}` needs a value: `{text} = …`")));
        }
        input.parse::<Token![=]>()?;
        if text == "crate" {
            self.krate = Some(input.call(Path::parse_mod_style)?);
            return Ok(());
        }
        let value: Expr = input.parse()?;
        match text.as_str() {
            "kind" => self.kind = Some(kind(&value)?),
            "queue" => self.queue = Some(queue(&value)?),
            "priority" => self.priority = Some(whole(&value, 3, "a number from 0 (first) to 3")?),
            "max_retries" => self.max_retries = Some(whole(&value, u32::MAX, "a whole number, 0 or more")?),
            "retry_delay" => self.retry_delay = Some(durations(&value)?),
            "retry_strategy" => self.retry_strategy = Some(strategy(&value)?),
            "retry_max_delay" => self.retry_max_delay = Some(duration(&value)?),
            "retry_jitter" => self.retry_jitter = Some(jitter(&value)?),
            "retry_on" => self.retry_on = Some(names(&value)?),
            "ignore_on" => self.ignore_on = Some(names(&value)?),
            "timeout" => self.timeout = Some(positive(&value)?),
            "result_ttl" => self.result_ttl = Some(duration(&value)?),
            _ => return Err(Error::new(name.span(), unknown(&text))),
        }
        Ok(())
    }
}

fn unknown(text: &str) -> String {
    if text == "delay" || text == "at" {
        return format!("`{text}` belongs to a single job: `send_mail::job(…).{text}(…)`");
    }
    let nearest = KNOWN.iter().map(|known| (strsim::damerau_levenshtein(known, text), known)).min();
    let hint = match nearest {
        Some((distance, known)) if distance <= 3 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    };
    format!("unknown option `{text}`{hint}\nknown options: {}", KNOWN.join(", "))
}

pub(crate) fn text(value: &Expr, expected: &str) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(Error::new(other.span(), format!("expected {expected}"))),
    }
}

fn kind(value: &Expr) -> Result<String> {
    let literal = text(value, "a text, for example \"send_mail\"")?;
    let kind = literal.value();
    if kind.is_empty() || kind.len() > MAX_KIND || kind.chars().any(char::is_control) {
        let message = format!("a kind has 1 to {MAX_KIND} bytes and no control characters");
        return Err(Error::new(literal.span(), message));
    }
    Ok(kind)
}

fn queue(value: &Expr) -> Result<String> {
    let literal = text(value, "the name of a queue, for example \"mail\"")?;
    let queue = literal.value();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if queue.is_empty() || queue.len() > MAX_QUEUE || !queue.chars().all(allowed) {
        let message =
            format!("{queue:?} is not a queue name: 1 to {MAX_QUEUE} characters, allowed are A-Z a-z 0-9 _ and -");
        return Err(Error::new(literal.span(), message));
    }
    Ok(queue)
}

fn whole<N>(value: &Expr, max: N, expected: &str) -> Result<N>
where
    N: std::str::FromStr + PartialOrd,
    N::Err: std::fmt::Display,
{
    let refused = || Error::new(value.span(), format!("expected {expected}"));
    let Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) = value else { return Err(refused()) };
    let number: N = number.base10_parse().map_err(|_| refused())?;
    if number > max { Err(refused()) } else { Ok(number) }
}

fn number(value: &Expr) -> Option<f64> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => number.base10_parse().ok(),
        _ => None,
    }
}

fn jitter(value: &Expr) -> Result<f64> {
    match number(value) {
        Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(Error::new(value.span(), "expected a number from 0 to 1")),
    }
}

pub(crate) fn duration(value: &Expr) -> Result<Duration> {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    let read = match (number(value), value) {
        (Some(number), _) => seconds(number),
        (None, Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => {
            let text = text.value();
            match text.trim().parse::<f64>() {
                Ok(number) => seconds(number),
                Err(_) => humantime::parse_duration(text.trim()).map_err(|e| e.to_string()),
            }
        }
        _ => Err("neither a text nor a number".to_owned()),
    };
    let bounded = read.and_then(|d| if d > MAX_DURATION { Err("longer than 100 years".to_owned()) } else { Ok(d) });
    bounded.map_err(|reason| {
        let message =
            format!("not a duration ({reason}); write \"250ms\", \"5s\", \"10m\", \"1h30m\" or a number of seconds");
        Error::new(value.span(), message)
    })
}

fn positive(value: &Expr) -> Result<Duration> {
    let timeout = duration(value)?;
    if timeout.is_zero() {
        return Err(Error::new(value.span(), "a run needs some time; leave `timeout` out for the default"));
    }
    Ok(timeout)
}

fn durations(value: &Expr) -> Result<Vec<Duration>> {
    match value {
        Expr::Array(ExprArray { elems, .. }) if elems.is_empty() => {
            Err(Error::new(value.span(), "the list of delays is empty; leave `retry_delay` out for the default"))
        }
        Expr::Array(ExprArray { elems, .. }) => elems.iter().map(duration).collect(),
        one => Ok(vec![duration(one)?]),
    }
}

fn strategy(value: &Expr) -> Result<Ident> {
    let literal = text(value, "\"fixed\", \"linear\" or \"exponential\"")?;
    let variant = match literal.value().as_str() {
        "fixed" => "Fixed",
        "linear" => "Linear",
        "exponential" => "Exponential",
        other => {
            let message = format!("{other:?} is not a retry strategy: \"fixed\", \"linear\" or \"exponential\"");
            return Err(Error::new(literal.span(), message));
        }
    };
    Ok(Ident::new(variant, literal.span()))
}

fn names(value: &Expr) -> Result<Vec<String>> {
    let expected = "a list of error types, for example [\"timeout\", \"io_error\"]";
    let elements: Punctuated<Expr, Token![,]> = match value {
        Expr::Array(ExprArray { elems, .. }) => elems.clone(),
        Expr::Lit(_) => Punctuated::from_iter([value.clone()]),
        other => return Err(Error::new(other.span(), format!("expected {expected}"))),
    };
    elements.iter().map(|name| text(name, expected).map(|literal| literal.value())).collect()
}
