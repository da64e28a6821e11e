//! What the tests of the documentation read in a markdown page: its fenced blocks, its headings' anchors, its links.
//!
//! As much of markdown as our pages use, and no more: fences of backticks, headings with `#`, links in one piece. It
//! opens no file.

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its opening fence, from 1.
    pub(crate) line: usize,
    /// The first word after the fence; empty if there is none.
    pub(crate) language: String,
    /// The words after the first.
    pub(crate) flags: Vec<String>,
    /// Its lines without the fence's indentation, each with its newline.
    pub(crate) body: String,
    /// Whether only blank lines lie between it and the block before.
    pub(crate) follows: bool,
}

impl Block {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }

    /// The file that the block is, if its first line is a comment of nothing but a relative file name.
    pub(crate) fn file_name(&self) -> Option<&str> {
        let first = self.body.lines().next()?;
        let name = first.strip_prefix("# ").or_else(|| first.strip_prefix("// "))?;
        let parts: Vec<&str> = name.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && *part != ".." && part.chars().all(is_name_char);
        let extension = parts.last()?.rsplit_once('.').is_some_and(|(_, end)| !end.is_empty());
        (extension && parts.iter().all(plain)).then_some(name)
    }

    /// What is in that file: the lines after the first.
    pub(crate) fn file_body(&self) -> &str {
        self.body.split_once('\n').map_or("", |(_, rest)| rest)
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// The length of the run of backticks that opens or closes a fenced block on this line.
fn fence(line: &str) -> Option<usize> {
    let ticks = line.trim_start().chars().take_while(|c| *c == '`').count();
    (ticks >= 3).then_some(ticks)
}

/// All fenced blocks in order; one that is not closed ends with the page.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut follows = false;
    while let Some((index, line)) = lines.next() {
        let Some(ticks) = fence(line) else {
            follows &= line.trim().is_empty();
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let words = line.trim().trim_start_matches('`').split([' ', ',']);
        let mut words = words.filter(|word| !word.is_empty()).map(str::to_owned);
        let language = words.next().unwrap_or_default();
        let mut block = Block { line: index + 1, language, flags: words.collect(), body: String::new(), follows };
        for (_, line) in lines.by_ref() {
            if fence(line).is_some_and(|n| n >= ticks) && line.trim().trim_start_matches('`').is_empty() {
                break;
            }
            let blank = line.len() - line.trim_start().len();
            block.body += &line[indent.min(blank)..];
            block.body.push('\n');
        }
        blocks.push(block);
        follows = true;
    }
    blocks
}

/// The lines of a page that are prose; those of fenced blocks are empty, so that line numbers stay.
fn prose(text: &str) -> String {
    let mut open: Option<usize> = None;
    let mut prose = String::new();
    for line in text.lines() {
        match (open, fence(line)) {
            (None, Some(ticks)) => open = Some(ticks),
            (Some(ticks), Some(n)) if n >= ticks => open = None,
            (None, None) => prose += line,
            (Some(_), _) => {}
        }
        prose.push('\n');
    }
    prose
}

/// The same without code spans, in which brackets are no links.
fn without_code_spans(prose: &str) -> String {
    let mut out = String::new();
    let mut rest = prose;
    while let Some(start) = rest.find('`') {
        out += &rest[..start];
        let ticks = rest[start..].chars().take_while(|c| *c == '`').count();
        let (run, after) = rest[start..].split_at(ticks);
        let paragraph = &after[..after.find("\n\n").unwrap_or(after.len())];
        let closed = paragraph.find(run);
        let code = closed.map_or("", |end| &after[..end + ticks]);
        out.extend(code.chars().filter(|c| *c == '\n'));
        rest = &after[code.len()..];
    }
    out + rest
}

/// The targets of all links, each with its line.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let text = without_code_spans(&prose(text));
    let mut links = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        links.extend(targets.map(|target| (index + 1, target.to_owned())));
        if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            links.push((index + 1, target.trim().to_owned()));
        }
    }
    links
}

/// The anchors that GitHub makes of the headings, and those written by hand as `<a id="…">`.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in prose(text).lines() {
        for id in line.split("<a id=\"").skip(1) {
            anchors.extend(id.split('"').next().map(str::to_owned));
        }
        let level = line.chars().take_while(|c| *c == '#').count();
        let Some(heading) = line[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else { continue };
        let anchor = slug(heading);
        let copies = anchors.iter().filter(|known| **known == anchor).count();
        // Of equal headings GitHub numbers all but the first.
        anchors.push(if copies == 0 { anchor } else { format!("{anchor}-{copies}") });
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
