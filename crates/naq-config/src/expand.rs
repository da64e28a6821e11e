//! `${VAR}` and `${VAR:default}` in the texts of a configuration file; `$${` writes a literal `${`.
//!
//! Invariant: a text either expands completely or is an error that names the variable; a value put in is not expanded
//! again. A variable that is set and empty counts as set.

/// Why a text does not expand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    #[error(
        "the variable {0} is not set and no default is given: write ${{{0}:default}}, or $${{{0}}} for the text itself"
    )]
    NotSet(String),
    #[error("`${{` does not start ${{NAME}} or ${{NAME:default}}: write $${{ for the text itself")]
    Malformed,
}

/// A text after expansion.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// Whether a variable or default was put in: then the text may stand for a number or another type.
    pub(crate) substituted: bool,
}

/// Expands one text. The default runs to the next `}`.
pub(crate) fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), substituted: false };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.text.push_str(&rest[..at - 1]);
            expanded.text.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.text.push_str(&rest[..at]);
        let (inside, after) = rest[at + 2..].split_once('}').ok_or(ExpandError::Malformed)?;
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (inside.trim(), None),
        };
        if !is_name(name) {
            return Err(ExpandError::Malformed);
        }
        match (variable(name), default) {
            (Some(value), _) => expanded.text.push_str(&value),
            (None, Some(default)) => expanded.text.push_str(default),
            (None, None) => return Err(ExpandError::NotSet(name.to_owned())),
        }
        expanded.substituted = true;
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<(String, bool), ExpandError> {
        let variable = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        };
        expand(text, variable).map(|e| (e.text, e.substituted))
    }

    #[test]
    fn texts_expand_once_and_completely() {
        for (text, expanded, substituted) in [
            ("plain $5 text", "plain $5 text", false),
            ("nats://${HOST}:4222", "nats://db:4222", true),
            ("${URL:nats://localhost:4222}", "nats://localhost:4222", true),
            ("${EMPTY:default}", "", true),
            ("${GONE:}", "", true),
            ("${TRICK}", "${HOST}", true),
            ("$${HOST} and ${HOST}", "${HOST} and db", true),
            ("echo $${x%.txt}", "echo ${x%.txt}", false),
            ("${HOST}${HOST}", "dbdb", true),
        ] {
            assert_eq!(run(text), Ok((expanded.to_owned(), substituted)), "{text}");
        }
        assert_eq!(run("a ${GONE} b"), Err(ExpandError::NotSet("GONE".into())));
        for text in ["${HOST", "${}", "${x%y}", "${1}", "${:d}"] {
            assert_eq!(run(text), Err(ExpandError::Malformed), "{text}");
        }
    }
}
