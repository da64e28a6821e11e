//! Files of lines that processes append to until they are killed.

/// The lines of a text; a last one that was cut off, so that it has no end, is none.
pub fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.rfind('\n').map_or("", |end| &text[..end]).lines()
}
